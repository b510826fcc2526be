# What BUILD files share. Not a module: Pants reads it before every BUILD file, and it cannot import.

# The resolves that tests run in; callback-core can be used in each. `core` comes first: it is what all have in common.
RESOLVES = (
    "core",
    "torch",
    "peers",
    "mlflow",
    "codecarbon",
    "clearml",
    "comet",
    "wandb",
    "neptune",
    "azureml",
    "dagshub",
    "flyte",
)


def requirements_of(resolve):
    """The <name>-requirements.txt files that a resolve is made of: those it is built on, and its own."""
    built_on = {"core": (), "torch": ("core",)}.get(resolve, ("core", "torch"))
    return (*built_on, resolve)


def resolves_with(requirements):
    """The resolves that have these requirements, the one that is named like them first."""
    return [resolve for resolve in RESOLVES if requirements in requirements_of(resolve)]


def everything_in(resolve):
    """All requirements of a resolve. With them its tests share one environment, not one per set of imports."""
    return [f"3rdparty/python:{name}@resolve={resolve}" for name in requirements_of(resolve)]


# What may be imported from another package: what its __init__.py exports, and by tests what its testing.py offers.
# Whole packages (:lib) are for BUILD files.
PUBLIC_CORE = (
    "//packages/callback-core/callback_core/__init__.py",
    "//packages/callback-core/callback_core/tracking/__init__.py",
    "//packages/callback-core/callback_core/tracking/config.py",  # a module that it exports as such
)
PUBLIC = (
    "!//packages/*/tests/**",
    "//packages/*/*/__init__.py",
    "//packages/*/*/testing.py",
    "//packages/*:lib",
    *PUBLIC_CORE,
)
THIRD_PARTY = ("//3rdparty/**",)


def package(dist, *, resolves, may_import=(*PUBLIC_CORE, *THIRD_PARTY), data=()):
    """The targets of packages/<dist>: its sources, its metadata, its wheel and sdist, and its tests.

    resolves: where its sources can be used. Its tests run in the first.
    may_import: what its sources may import beside each other, as rules of Pants' visibility backend.
    data: modules below tests/ that are what tests look at, not code of ours, as globs.
    """
    module = dist.replace("-", "_")
    home = resolves[0]
    many = len(resolves) > 1
    lib = f":lib@resolve={home}" if many else ":lib"

    python_sources(
        name="lib",
        sources=[f"{module}/**/*.py"],
        resolve=parametrize(*resolves) if many else home,
        dependencies=[":metadata", ":py_typed"],
    )
    resource(name="py_typed", source=f"{module}/py.typed")

    # Code that Pants runs is not installed, so importlib.metadata would know neither its version nor its entry
    # points. This writes beside the module what an installer would write, from pyproject.toml.
    adhoc_tool(
        name="metadata",
        runnable="tools/dist_info.py",
        workdir="/",
        args=[f"packages/{dist}/pyproject.toml"],
        execution_dependencies=[":project"],
        output_directories=[f"packages/{dist}/{module}.dist-info"],
    )

    files(name="project", sources=["pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"])
    # An sdist has the tests too. As files: as what they are, they would bring the packages that they import.
    files(name="tests_as_files", sources=["tests/**"])
    python_distribution(
        name="dist",
        dependencies=[lib, ":project", ":tests_as_files"],
        provides=python_artifact(name=dist),
        generate_setup=False,
    )

    # Not only what a test imports: some run the package, or the core's replay, in a process of its own.
    core = f"packages/callback-core:lib@resolve={home}"
    tests("tests", resolve=home, dependencies=[lib, core], data=data)

    own = f"//packages/{dist}"
    __dependencies_rules__(
        (f"{own}/tests/**", f"{own}/**", *PUBLIC, *THIRD_PARTY, "!*"),
        (f"{own}/{module}/**", f"!{own}/tests/**", f"{own}/**", *may_import, "!*"),
        ("*", "*"),  # wheels, metadata, files
    )


def tests(folder="", *, resolve, dependencies=(), data=()):
    """The tests in a folder: test_*.py, what they import (conftest.py, helpers), and files that they read.

    folder: one below that of the BUILD file, with all that is below it; without it, the BUILD file's own, alone.
    data: modules that are what tests look at, not code of ours, as globs.
    """
    at = f"{folder}/**/" if folder else ""
    needed = [":test_data", *([":modules_as_data"] if data else [])]
    shared = dict(resolve=resolve, dependencies=[*needed, *everything_in(resolve), *dependencies])
    python_tests(name="tests", sources=[f"{at}test_*.py"], **shared)
    others = [f"!{glob}" for glob in (f"{at}test_*.py", *data)]
    python_test_utils(name="test_utils", sources=[f"{at}*.py", *others], **shared)
    files(name="test_data", sources=[f"{at}*", f"!{at}*.py", f"!{at}BUILD"])
    if data:
        files(name="modules_as_data", sources=[*data])

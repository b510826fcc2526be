# Functions for BUILD files. This is not a module: Pants reads it before every BUILD file, and it cannot import.

# The resolves that the tests of packages run in, each called like its package.
OF_PACKAGES = (
    "accelerate",
    "lightning",
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

# The resolves that tests run in. callback-core can be used in each. `core` comes first: all others include it.
RESOLVES = ("core", "torch", "peers", "integrations", "remote", *OF_PACKAGES)


def requirements_of(resolve):
    """Return the names of the <name>-requirements.txt files of a resolve: those that it is built on, and its own."""
    built_on = {"core": (), "torch": ("core",)}.get(resolve, ("core", "torch"))
    return (*built_on, resolve)


def resolves_with(requirements):
    """Return the resolves that include these requirements. The one with the same name comes first."""
    return [resolve for resolve in RESOLVES if requirements in requirements_of(resolve)]


def everything_in(resolve):
    """Return all requirements of a resolve. Tests that depend on all of them share one environment."""
    return [f"3rdparty/python:{name}@resolve={resolve}" for name in requirements_of(resolve)]


# What one package may import from another: its __init__.py, and in tests also its testing.py.
# The targets :lib are for BUILD files.
PUBLIC_CORE = (
    "//packages/callback-core/callback_core/__init__.py",
    "//packages/callback-core/callback_core/tracking/__init__.py",
    "//packages/callback-core/callback_core/tracking/config.py",  # exported as a module
)
PUBLIC = (
    "!//packages/*/tests/**",
    "//packages/*/*/__init__.py",
    "//packages/*/*/testing.py",
    "//packages/*:lib",
    *PUBLIC_CORE,
)
THIRD_PARTY = ("//3rdparty/**",)


def package(
    dist, *, resolves, may_import=(*PUBLIC_CORE, *THIRD_PARTY), data=(), tests_need=(), waiting={}
):
    """Define the targets of packages/<dist>: its sources, metadata, wheel, sdist and tests.

    resolves: The resolves in which its sources can be used. Its tests run in the first.
    may_import: What its sources may import besides each other, as rules of Pants' visibility backend.
    data: Globs of modules below tests/ that tests read as data.
    tests_need: Further dependencies of its tests, such as `:project`, the README and the like.
    waiting: Its test files that wait for an SDK most of the time, each with the number of processes that share it.
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

    # Pants runs code without installing it, so importlib.metadata would find neither its version nor its entry
    # points. This tool writes the metadata that an installer would write, next to the module.
    adhoc_tool(
        name="metadata",
        runnable="tools/dist_info.py",
        workdir="/",
        args=[f"packages/{dist}/pyproject.toml"],
        execution_dependencies=[":project"],
        output_directories=[f"packages/{dist}/{module}.dist-info"],
    )

    files(name="project", sources=["pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"])
    # The sdist contains the tests. They are files here, because as Python targets they would pull in what they import.
    files(name="tests_as_files", sources=["tests/**"])
    python_distribution(
        name="dist",
        dependencies=[lib, ":project", ":tests_as_files"],
        provides=python_artifact(name=dist),
        generate_setup=False,
    )

    # More than a test imports: some tests run the package, or the core's replay, in a separate process.
    core = f"packages/callback-core:lib@resolve={home}"
    tests("tests", resolve=home, dependencies=[lib, core, *tests_need], data=data, waiting=waiting)

    own = f"//packages/{dist}"
    __dependencies_rules__(
        (f"{own}/tests/**", f"{own}/**", *PUBLIC, *THIRD_PARTY, "!*"),
        (f"{own}/{module}/**", f"!{own}/tests/**", f"{own}/**", *may_import, "!*"),
        ("*", "*"),  # wheels, metadata, files
    )


def tests(folder="", *, resolve, dependencies=(), data=(), waiting={}):
    """Define the tests in a folder: test_*.py, the modules that they import, and the files that they read.

    folder: A folder below the BUILD file, including its subfolders. By default, only the BUILD file's own folder.
    data: Globs of modules that tests read as data.
    waiting: Test files that wait for an SDK most of the time, each with the number of processes that share it.
    """
    at = f"{folder}/**/" if folder else ""
    needed = [":test_data", *([":modules_as_data"] if data else [])]
    shared = dict(resolve=resolve, dependencies=[*needed, *everything_in(resolve), *dependencies])
    # pants.toml sets how many files share a process. Starting one, with torch, takes three seconds.
    together = str(build_file_dir())
    sources = [f"{at}test_*.py", *[f"!{folder}/{name}" for name in waiting]]
    python_tests(name="tests", sources=sources, batch_compatibility_tag=together, **shared)
    for name, processes in waiting.items():
        variables = [f"PYTEST_ADDOPTS=-n {processes}"]
        python_tests(name=name[:-3], sources=[f"{folder}/{name}"], extra_env_vars=variables, **shared)
    others = [f"!{glob}" for glob in (f"{at}test_*.py", *data)]
    python_test_utils(name="test_utils", sources=[f"{at}*.py", *others], **shared)
    files(name="test_data", sources=[f"{at}*", f"!{at}*.py", f"!{at}BUILD"])
    if data:
        files(name="modules_as_data", sources=[*data])

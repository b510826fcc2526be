"""Three linters that Pants 2.17 lacks.

Ruff: Pants 2.17 calls `ruff FILES`, which newer versions of ruff reject, and it has no
`ruff format`. Here, `lint` calls `ruff check` and checks the format, `fix` calls `ruff check --fix`
and `ruff format`, and `fmt` calls only `ruff format`.

Layers: Pants checks the dependency rules in BUILD files whenever it computes dependencies. `lint`
does not compute them by itself, so this linter does.

Imports: import-linter finds circular imports between the modules of a package, and imports that
point upwards, according to `[tool.importlinter]` in pyproject.toml.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pants.backend.python.lint.ruff import skip_field, subsystem
from pants.backend.python.lint.ruff.subsystem import Ruff, RuffFieldSet
from pants.backend.python.subsystems.python_tool_base import PythonToolBase
from pants.backend.python.target_types import ConsoleScript, PythonSourceField
from pants.backend.python.util_rules import pex
from pants.backend.python.util_rules.pex import PexRequest, VenvPex, VenvPexProcess
from pants.core.goals.fix import FixResult, FixTargetsRequest
from pants.core.goals.fmt import FmtResult, FmtTargetsRequest
from pants.core.goals.lint import LintResult, LintTargetsRequest
from pants.core.util_rules.config_files import ConfigFiles, ConfigFilesRequest
from pants.core.util_rules.partitions import PartitionerType
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.addresses import Addresses
from pants.engine.fs import Digest, DigestSubset, MergeDigests, PathGlobs, RemovePrefix, Snapshot
from pants.engine.process import FallibleProcessResult, Process, ProcessResult
from pants.engine.rules import Get, MultiGet, collect_rules, rule
from pants.engine.target import Dependencies, DependenciesRequest, FieldSet
from pants.option.option_types import ArgsListOption, SkipOption
from pants.option.subsystem import Subsystem
from pants.util.meta import classproperty


class RuffCheckRequest(LintTargetsRequest):
    field_set_type = RuffFieldSet
    tool_subsystem = Ruff
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


class RuffFixRequest(FixTargetsRequest):
    field_set_type = RuffFieldSet
    tool_subsystem = Ruff
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION

    @classproperty
    def tool_name(cls) -> str:
        return "ruff --fix"


class RuffFormatRequest(FmtTargetsRequest):
    """Formats in `fmt`, and checks the format in `lint`."""

    field_set_type = RuffFieldSet
    tool_subsystem = Ruff
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION

    @classproperty
    def tool_name(cls) -> str:
        return "ruff format"

    @classproperty
    def tool_id(cls) -> str:
        return "ruff-format"


@dataclass(frozen=True)
class RuffRun:
    command: tuple[str, ...]
    snapshot: Snapshot


@rule
async def make_ruff_process(run: RuffRun, ruff: Ruff) -> Process:
    ruff_pex, config = await MultiGet(
        Get(VenvPex, PexRequest, ruff.to_pex_request()),
        Get(ConfigFiles, ConfigFilesRequest, ruff.config_request(run.snapshot.dirs)),
    )
    inputs = await Get(Digest, MergeDigests((run.snapshot.digest, config.snapshot.digest)))
    return await Get(
        Process,
        VenvPexProcess(
            ruff_pex,
            argv=(*run.command, "--quiet", "--force-exclude", *ruff.args, *run.snapshot.files),
            input_digest=inputs,
            output_files=run.snapshot.files,
            description=f"Run ruff {' '.join(run.command)}",
        ),
    )


@rule(desc="Lint with ruff")
async def ruff_check(request: RuffCheckRequest.Batch[RuffFieldSet, Any]) -> LintResult:
    sources = await Get(SourceFiles, SourceFilesRequest(fs.source for fs in request.elements))
    process = await Get(Process, RuffRun(("check",), sources.snapshot))
    result = await Get(FallibleProcessResult, Process, process)
    return LintResult.create(request, result, strip_chroot_path=True)


@rule(desc="Fix with ruff")
async def ruff_fix(request: RuffFixRequest.Batch) -> FixResult:
    process = await Get(Process, RuffRun(("check", "--fix", "--exit-zero"), request.snapshot))
    result = await Get(ProcessResult, Process, process)
    return await FixResult.create(request, result, strip_chroot_path=True)


@rule(desc="Format with ruff")
async def ruff_format(request: RuffFormatRequest.Batch) -> FmtResult:
    process = await Get(Process, RuffRun(("format",), request.snapshot))
    result = await Get(ProcessResult, Process, process)
    return await FmtResult.create(request, result, strip_chroot_path=True)


class Layers(Subsystem):
    options_scope = "layers"
    name = "Layers"
    help = "Which targets may depend on which, by the __dependencies_rules__ in BUILD files."
    skip = SkipOption("lint")


@dataclass(frozen=True)
class LayersFieldSet(FieldSet):
    required_fields = (Dependencies,)

    dependencies: Dependencies


class LayersRequest(LintTargetsRequest):
    field_set_type = LayersFieldSet
    tool_subsystem = Layers
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


@rule(desc="Check the layers")
async def check_layers(request: LayersRequest.Batch[LayersFieldSet, Any]) -> LintResult:
    # A dependency that breaks a rule raises an error here, which names both targets and the rule.
    await MultiGet(Get(Addresses, DependenciesRequest(fs.dependencies)) for fs in request.elements)
    return LintResult(0, "", "", linter_name="layers", partition_description=None)


class ImportLinter(PythonToolBase):
    options_scope = "import-linter"
    name = "import-linter"
    help = "Which modules of a package may import which."
    default_version = "import-linter>=2.17,<3"
    default_main = ConsoleScript("lint-imports")
    default_requirements = (default_version,)
    # The base class needs one for its help. The pins are in a resolve in pants.toml.
    default_lockfile_resource = ("repository_lints", "import-linter.lock")
    register_interpreter_constraints = True
    skip = SkipOption("lint")
    args = ArgsListOption(example="--verbose")


@dataclass(frozen=True)
class ImportLinterFieldSet(FieldSet):
    required_fields = (PythonSourceField,)

    source: PythonSourceField


class ImportLinterRequest(LintTargetsRequest):
    field_set_type = ImportLinterFieldSet
    tool_subsystem = ImportLinter
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


@rule(desc="Check the imports")
async def check_imports(
    request: ImportLinterRequest.Batch[ImportLinterFieldSet, Any], linter: ImportLinter
) -> LintResult:
    # Check all packages, whatever the user names, because a circle can lead through any of them.
    sources = await Get(Snapshot, PathGlobs(["packages/*/*_*/**/*.py"]))
    roots = sorted({"/".join(file.split("/")[:2]) for file in sources.files})
    parts = await MultiGet(
        Get(Digest, DigestSubset(sources.digest, PathGlobs([f"{root}/**"]))) for root in roots
    )
    modules = await MultiGet(
        Get(Digest, RemovePrefix(parts[number], root)) for number, root in enumerate(roots)
    )
    config, linter_pex = await MultiGet(
        Get(Digest, PathGlobs(["pyproject.toml"])),
        Get(VenvPex, PexRequest, linter.to_pex_request()),
    )
    process = await Get(
        Process,
        VenvPexProcess(
            linter_pex,
            argv=("--no-cache", *linter.args),
            input_digest=await Get(Digest, MergeDigests((config, *modules))),
            description="Run import-linter",
        ),
    )
    result = await Get(FallibleProcessResult, Process, process)
    if result.exit_code == 0:  # omit the banner
        return LintResult(0, "", "", linter_name=request.tool_name, partition_description=None)
    return LintResult.create(request, result, strip_chroot_path=True)


def rules():
    return [
        *collect_rules(),
        *RuffCheckRequest.rules(),
        *RuffFixRequest.rules(),
        *RuffFormatRequest.rules(),
        *LayersRequest.rules(),
        *ImportLinterRequest.rules(),
        *skip_field.rules(),
        *subsystem.rules(),
        *pex.rules(),
    ]

"""Leftovers: after a training or an evaluation, the process is as it was before."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Mapping
from typing import Any

from callback_contract import _process
from callback_contract._case import Case
from callback_contract._left_behind import require_no_leftovers, require_restored
from callback_contract._models import make_learner
from callback_contract._process import captured_output, files_below
from callback_contract._registry import rule
from callback_contract._training import Training
from callback_contract._violation import DoesNotApply, require
from callback_contract._watching import watch


@rule(
    "LEF-001",
    why="A tracker's running thread keeps the interpreter from exiting. MLflow's thread freezes "
    "at exit (mlflow/mlflow#12402), and ClearML's close() never returns if its server hangs. "
    "TensorBoardCallback never closes the writer that it opens for an evaluation without a "
    "training, so the writer's thread remains (transformers 5.24.0).",
    fix="In on_train_end, stop and join the threads that on_train_begin started. If an evaluation "
    "outside a training starts a thread, join it in the same event, because no other follows.",
)
def leaves_no_thread(case: Case) -> None:
    """No thread that started in a training or an evaluation remains after it."""
    require_no_leftovers(case, "threads", _process.threads)


@rule(
    "LEF-002",
    why="A tracker's process kept running after the training script had ended, and Ctrl-C did not "
    "end it (wandb/wandb#5187).",
    fix="In on_train_end, end the processes that on_train_begin started, and wait for them.",
)
def leaves_no_process(case: Case) -> None:
    """No process that started in a training or an evaluation remains after it.

    After a training, the callback must also have waited for a process that has ended.
    """
    require_no_leftovers(case, "processes", _process.children, _process.running_children)


@rule(
    "LEF-003",
    why="A run id that remained in the environment sent the next training to a run that did not "
    "exist (mlflow/mlflow#8877).",
    fix="Pass settings to the SDK as arguments, or restore the variables in on_train_end.",
)
def restores_the_environment(case: Case) -> None:
    """Neither a training nor an evaluation changes environment variables permanently."""
    case.make()  # the hook may set a variable once, such as the port of the server that it starts
    require_restored(case, lambda: dict(os.environ))


@rule(
    "LEF-004",
    why="A loop that saves at SIGTERM does not receive the signal if a tracker's handler replaced "
    "its own (clearml/clearml-agent#20).",
    fix="Leave signals to the loop, which fires on_exception, or restore the handler.",
)
def restores_signal_handlers(case: Case) -> None:
    """Neither a training nor an evaluation changes signal handlers permanently."""
    require_restored(case, _process.signal_handlers)


@rule(
    "LEF-005",
    why="Composer's MLflow logger replaces sys.excepthook to notice a crash. If two callbacks do "
    "this, the first hook is lost, and a debugger's hook too.",
    fix="Use on_exception to notice errors, or restore the hook in on_train_end.",
)
def restores_the_hooks_for_errors(case: Case) -> None:
    """Neither a training nor an evaluation changes the hooks for uncaught errors permanently.

    These are `sys.excepthook`, `sys.unraisablehook` and `threading.excepthook`.
    """
    require_restored(case, lambda: _process.values_of(_process.HOOKS))


@rule(
    "LEF-006",
    why="TensorBoardCallback writes to ./runs in the working directory if a model is evaluated "
    "before any training (transformers 5.23.0).",
    fix="Write below args.output_dir at every event.",
)
def writes_only_to_the_output_directory(case: Case) -> None:
    """Neither an evaluation nor a training writes to the working directory."""
    working_directory = case.folder / "elsewhere"
    working_directory.mkdir()
    sys.path[:] = map(os.path.abspath, sys.path)  # relative entries would no longer work
    os.chdir(working_directory)
    with captured_output():
        training = case.training()
        training.fire("on_init_end")
        training.evaluate()
        training.live()
    found = sorted(path.name for path in working_directory.iterdir())
    require(not found, f"it wrote {', '.join(found)} to the working directory")


@rule(
    "LEF-007",
    why="A search with hundreds of trials in one process runs out of file descriptors: "
    "MLflowCallback leaves connections to its database open (transformers 5.24.0).",
    fix="In on_train_end, close all open files and connections. If an evaluation outside a "
    "training opens one, close it in the same event, because no other follows.",
)
def leaves_no_file_open(case: Case) -> None:
    """No file or connection that was opened in a training or an evaluation is open after it."""
    require_no_leftovers(case, "files", _process.open_files)


@rule(
    "LEF-008",
    why="A tracker's log handler printed every line of the program a second time "
    "(tornede/py_experimenter#58).",
    fix="Log to `logging.getLogger(__name__)`, and leave handlers and levels to the program.",
)
def restores_logging(case: Case) -> None:
    """Neither a training nor an evaluation changes the handlers and levels of loggers.

    The loggers of the callback's SDK are exempt, and so are the levels of new loggers, because
    libraries set them when they are imported.
    """
    sdk = (case.subject.sdk or "-").partition(".")[0]
    existing = _process.logger_names()

    def loggers() -> dict[str, Any]:
        found = _process.logging_state().items()
        return {
            name: state
            for name, state in found
            if name.partition(".")[0] != sdk and (name in existing or state[0])
        }

    require_restored(case, loggers)


@rule(
    "LEF-009",
    why="Disks fill up: ClearML's `update_weights_package` leaves a copy of each checkpoint in "
    "the temporary directory unless it uploads in the background (clearml 2.1.12).",
    fix="Create temporary files in a `tempfile.TemporaryDirectory` that ends with the call.",
)
def leaves_no_temporary_file(case: Case) -> None:
    """No file that a training or an evaluation created in the temporary directory remains."""
    with _process.temporary_directory(case.folder / "tmp") as folder:
        require_no_leftovers(case, "temporary files", lambda: {*files_below(folder)})


@rule(
    "LEF-010",
    why="A running profiler, silenced warnings or a disabled garbage collector outlive the "
    "training, and slow down or hide what follows (allenai/OLMo-core#689).",
    fix="In on_train_end, restore what on_train_begin changed, or use `with` blocks.",
)
def restores_the_interpreter(case: Case) -> None:
    """Neither a training nor an evaluation changes the settings of the interpreter permanently.

    These include the working directory, `sys.path`, the standard streams, warning filters, the
    garbage collector, tracing, profiling and builtins. Filters for the warnings of a library's own
    class are exempt, because libraries add them when they are imported.
    """

    def settings() -> dict[str, Any]:
        found = _process.values_of(_process.SWITCHES)
        name = "warnings.filters"
        found[name] = [one for one in found[name] if one[2].__module__ == "builtins"]
        return found

    require_restored(case, settings)


@rule(
    "LEF-011",
    why="A callback disabled gradients for its samples and did not enable them again, so the rest "
    "of the training learnt nothing.",
    fix="Use `with torch.no_grad():`, `numpy.errstate()` and the like instead of bare switches.",
)
def restores_torch_and_numpy(case: Case) -> None:
    """Neither a training nor an evaluation changes the global settings of torch and numpy.

    These include gradients, anomaly detection, default types, threads and determinism. No event
    leaves gradients disabled, or another default type, for what follows it.
    """
    switches = _process.library_switches()
    of_the_loop = {name: one for name, one in switches.items() if name in _process.OF_THE_LOOP}
    watch(case, "settings of libraries", lambda *_: _process.values_of(of_the_loop))
    require_restored(case, lambda: _process.values_of(switches))


@rule(
    "LEF-012",
    why="A callback that outlives its training and references the model, the optimizer or an error "
    "with its traceback keeps device memory allocated, so the next training runs out of it "
    "(huggingface/setfit#567).",
    fix="Drop the model in on_train_end. Keep numbers and texts, not tensors or exceptions.",
)
def releases_the_training(case: Case) -> None:
    """After a training, neither a callback nor its class references the model or the optimizer.

    The same holds for the model's weights.
    """
    for dies in (False, True):
        callback = case.make()
        references = _trained_and_forgotten(case, callback, dies)
        case.forget_trainings()
        gc.collect()
        alive = dict.fromkeys(type(ref()).__name__ for ref in references if ref() is not None)
        how = "a training that died" if dies else "a training"
        require(not alive, f"after {how}, the callback still references the {', '.join(alive)}")


@rule(
    "LEF-013",
    why="Each training of a search registered one more function with atexit, and each function "
    "referenced its callback (DataDog/dd-trace-py#2409).",
    fix="In on_train_end, end the threads and timers that use the callback, and call "
    "atexit.unregister. Keep no callbacks in a module's list.",
)
def is_referenced_by_nothing(case: Case) -> None:
    """A callback is freed after its training once its user drops it."""
    callback = case.make()
    with captured_output():
        case.training(callback).live()
    case.end_trainings()
    case.forget_trainings()
    try:
        reference = weakref.ref(callback)
    except TypeError:
        raise DoesNotApply("its class has slots, but none for weak references") from None
    del callback
    gc.collect()
    require(reference() is None, "something still references it: a thread, atexit, or a module")


@rule(
    "LEF-014",
    why="A logged tensor keeps the graph of its step, and with it the activations, as long as a "
    "history or a queue has the log. Memory grows with every log.",
    fix="Log numbers: `tensor.item()`, or at least `tensor.detach()`.",
)
def logs_no_graph(case: Case) -> None:
    """No value that a callback logs requires a gradient."""
    case.exercise(kind=_LogsWithoutGraph)


class _LogsWithoutGraph(Training):
    def log_for_callback(self, logs: Mapping[str, Any]) -> None:
        attached = [name for name, value in logs.items() if getattr(value, "requires_grad", False)]
        require(not attached, f"a value that it logs requires a gradient: {', '.join(attached)}")
        super().log_for_callback(logs)


def _trained_and_forgotten(case: Case, callback: Any, dies: bool) -> list[weakref.ref[Any]]:
    training = case.begin(callback)
    next(training.steps())
    if dies:
        try:
            raise MemoryError  # its traceback references this frame, and so the training
        except MemoryError as error:
            training.end(error)
    else:
        training.finish()
    shared = {id(weight) for weight in _weights(make_learner(case.subject.make_model).model)}
    weights = (weight for weight in _weights(training.model) if id(weight) not in shared)
    return [*map(weakref.ref, (training.model, training.learner.optimizer, *weights))]


def _weights(model: Any) -> list[Any]:
    return [*model.parameters()] if hasattr(model, "parameters") else []

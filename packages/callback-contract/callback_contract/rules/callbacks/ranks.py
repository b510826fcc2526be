"""Ranks: only the main process writes, and all processes make the same requests."""

from __future__ import annotations

from callback_contract._behaviour import files_outside_checkpoints
from callback_contract._case import Case
from callback_contract._process import children, difference, files_below, threads
from callback_contract._registry import rule
from callback_contract._violation import require
from callback_contract._watching import ObservedTraining, another_rank, watch

_FIX = (
    "Begin every event that writes or starts something with "
    "`if not state.is_world_process_zero: return`."
)


@rule(
    "RNK-001",
    why="Flyte's and DagsHub's on_train_end write on every rank (transformers 4.34.0). Two writers "
    "corrupt a file or race for it (huggingface/transformers#28009).",
    fix=_FIX,
)
def other_ranks_write_no_files(case: Case) -> None:
    """A process that is not the main process of the training writes nothing to `output_dir`.

    This includes the main process of another machine, because machines share the directory.
    """
    folder = case.output_dir
    (folder / "checkpoint-0").mkdir()
    (folder / "checkpoint-0" / "model.safetensors").touch()
    for main_of_its_node in (False, True):
        state = another_rank(main_of_its_node=main_of_its_node)
        theirs = case.folder / f"theirs-{main_of_its_node}"
        theirs.mkdir()
        args = case.arguments(output_dir=str(theirs))
        case.make()  # the hook may prepare a store
        before = files_below(folder)
        for training in case.exercise(args=args, state=state):
            training.fire("on_save", checkpoint_dir=str(folder / "checkpoint-0"))
        written = difference(before, files_below(folder))
        other = files_outside_checkpoints(theirs)
        require(not written and not other, f"it wrote {', '.join([*written, *other])}")


@rule(
    "RNK-002",
    why="A tracker's client that started slowly on one rank made the other ranks wait until their "
    "collective operation timed out (starVLA/starVLA#369). 64 ranks would start 64 clients.",
    fix=_FIX,
    of_trackers=True,
)
def other_ranks_start_nothing(case: Case) -> None:
    """In a process that is not the main process, a tracker starts no thread and no process."""
    before = threads(), children()
    found: set[str] = set()

    def started(*_: object) -> set[str]:
        """Return everything that has started so far, even if it has ended."""
        names = {thread.name for thread in threads() - before[0]}
        # A server of the tests may still answer a late request.
        found.update(n for n in names if not n.endswith("(process_request_thread)"))
        found.update(f"process {number}" for number in children() - before[1])
        return found

    watch(case, "the running threads and processes", started, another_rank())


@rule(
    "RNK-003",
    why="If one process stops or saves and the others do not, they wait in a collective operation "
    "until it times out (speechbrain/speechbrain#1939, unslothai/unsloth-zoo#873).",
    fix="Decide by the state and the metrics, which all processes share, and request it on all.",
)
def every_rank_makes_the_same_requests(case: Case) -> None:
    """The callback makes the same requests in every process, at every event."""
    requests = []
    # The main process comes last, because what it sets on the class is not in other processes.
    for state in (another_rank(), another_rank(main_of_its_node=True), None):
        trainings = case.exercise(kind=ObservedTraining, state=state, max_steps=12)
        requests.append([getattr(training, "requests", None) for training in trainings])
    *others, main = requests
    for other in others:
        require(other == main, f"the main process requested {main}, another process {other}")

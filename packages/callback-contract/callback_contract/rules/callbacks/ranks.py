"""Ranks: of many processes, the main one writes, and all ask for the same."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from callback_contract._case import Case
from callback_contract._process import children, difference, files_below, threads
from callback_contract._registry import rule
from callback_contract._violation import require
from callback_contract._watching import Observed, another_rank, files_of_its_own, watch

_MEND = "Begin with `if not state.is_world_process_zero: return`, in every event that writes."


@rule(
    "RNK-001",
    why="Flyte's and DagsHub's on_train_end write on every rank (transformers 4.34.0); two writers "
    "tear a file, or race for it (huggingface/transformers#28009).",
    mend=_MEND,
)
def another_rank_writes_no_files(case: Case) -> None:
    """In a process that is not the main one of the world, nothing is written to `output_dir`.

    The main process of another machine is no exception: they share the directory.
    """
    folder = case.output_dir
    (folder / "checkpoint-0").mkdir()
    (folder / "checkpoint-0" / "model.safetensors").touch()
    for main_of_its_node in (False, True):
        state = another_rank(main_of_its_node=main_of_its_node)
        args = case.arguments(output_dir=str(case.folder / f"theirs-{main_of_its_node}"))
        case.make()  # a hook may prepare a store
        before = files_below(folder)
        for training in case.live_and_stop(args=args, state=state):
            training.fire("on_save", checkpoint_dir=str(folder / "checkpoint-0"))
        written = difference(before, files_below(folder))
        other = files_of_its_own(Path(args.output_dir))
        require(not written and not other, f"it wrote {', '.join([*written, *other])}")


@rule(
    "RNK-002",
    why="A tracker's client that was slow to start on one rank kept the others waiting until their "
    "collective timed out (starVLA/starVLA#369); one on each of 64 ranks is 64 times that.",
    mend=_MEND,
    of_trackers=True,
)
def another_rank_starts_nothing(case: Case) -> None:
    """In a process that is not the main one, a tracker starts no thread and no process."""
    before = threads(), children()
    found: set[str] = set()

    def started(*_: object) -> set[str]:
        """Return what was started so far, whether it still runs or has ended."""
        found.update(thread.name for thread in threads() - before[0] if not _serves(thread))
        found.update(f"process {number}" for number in children() - before[1])
        return found

    watch(case, "what was started", started, another_rank())


def _serves(thread: Thread) -> bool:
    """Return whether it answers a late request to a server of the tests."""
    return thread.name.endswith("(process_request_thread)")


@rule(
    "RNK-003",
    why="If one process stops or saves and the others do not, they wait in a collective until its "
    "time is out (speechbrain/speechbrain#1939, unslothai/unsloth-zoo#873).",
    mend="Decide by what all processes have, state and metrics; ask for it on all of them.",
)
def every_rank_asks_for_the_same(case: Case) -> None:
    """The callback asks for the same in every process, at every event."""
    asked = []
    for state in (None, another_rank(), another_rank(main_of_its_node=True)):
        trainings = case.live_and_stop(kind=Observed, state=state, max_steps=12)
        asked.append([getattr(training, "asked", None) for training in trainings])
    main, *others = asked
    for other in others:
        require(other == main, f"the main process asked for {main}, another for {other}")

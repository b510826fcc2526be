"""Ranks: of many processes, the main one writes, and all ask for the same."""

from __future__ import annotations

from threading import Thread

from callback_contract._case import Case, Training
from callback_contract._rule import require, rule
from callback_contract._watching import Watched, children, elsewhere, files_below, threads

_MEND = "Begin with `if not state.is_world_process_zero: return`, in every event that writes."


@rule(
    "RNK-001",
    why="Flyte's and DagsHub's on_train_end write on every rank (transformers 4.34.0); two "
    "writers tear a file, or race for it (huggingface/transformers#28009).",
    mend=_MEND,
)
def another_rank_writes_no_files(case: Case) -> None:
    """In a process that is not the main one, the callback writes nothing to `output_dir`."""
    folder = case.output_dir
    (folder / "checkpoint-0").mkdir()
    training = Watched(case, "files", lambda *_: files_below(folder), elsewhere())
    training.run()
    training.fire("on_save", checkpoint_dir=str(folder / "checkpoint-0"))


@rule(
    "RNK-002",
    why="A tracker's client that was slow to start on one rank kept the others waiting until "
    "their collective timed out (starVLA/starVLA#369); one on each of 64 ranks is 64 times "
    "that.",
    mend=_MEND,
)
def another_rank_starts_nothing(case: Case) -> None:
    """In a process that is not the main one, the callback starts no thread and no process."""
    before = threads(), children()
    found: set[str] = set()

    def started(*_: object) -> set[str]:
        """Return what was started so far, whether it runs on or has come to an end."""
        found.update(thread.name for thread in threads() - before[0] if not _serves(thread))
        found.update(f"process {number}" for number in children() - before[1])
        return found

    Watched(case, "what was started", started, elsewhere()).live()


def _serves(thread: Thread) -> bool:
    """Return whether it answers one request to a server of the tests: from an SDK before, maybe."""
    return thread.name.endswith("(process_request_thread)")


@rule(
    "RNK-003",
    why="Where one process stops or saves and the others go on, they wait in a collective until"
    " its time is out (speechbrain/speechbrain#1939, unslothai/unsloth-zoo#873).",
    mend="Decide by what all processes have, state and metrics; ask for it on all of them.",
    needs=("steers",),
)
def every_rank_asks_for_the_same(case: Case) -> None:
    """The callback asks for the same in every process, at every event."""
    main = case.training()
    other = case.training(state=elsewhere())
    asked = [_asked_for(training) for training in (main, other)]
    require(asked[0] == asked[1], f"the main process asked for {asked[0]}, another for {asked[1]}")


@rule(
    "RNK-004",
    why="NeptuneCallback.on_save asks for no rank, so that each would open a run of its own "
    "(transformers 4.34.0).",
    mend=_MEND,
    of_trackers=True,
)
def another_rank_stores_nothing(case: Case) -> None:
    """The store has nothing of a process that is not the main one."""
    case.training(state=elsewhere()).live()
    runs = case.runs()
    require(not runs, f"the store holds {len(runs)} runs of a process that is not the main one")


def _asked_for(training: Training) -> list[str]:
    training.begin()
    asked = []
    for _ in range(4):
        training.step({"loss": 0.5})
        training.evaluate()
        asked.append(", ".join(request.flag for request in training.control.requests))
    training.end()
    return asked

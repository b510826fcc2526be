"""Makes all processes call a sharded model equally often in an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from trainer_torch.data.joining import to_cpu
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.wrapping import is_sharded

_END: Final = object()


def in_step(run: TrainingRun, batches: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Yield the `batches` of this process, and whether each counts.

    In each call of a sharded model, all processes gather its weights together, so they must call it
    equally often. A process that runs out of batches yields its last one again; one that has none
    yields the first batch of another process. These batches do not count.
    """
    if run.world.size == 1 or not is_sharded(run.model):
        yield from ((batch, True) for batch in batches)
        return
    iterator, spare, is_first = iter(batches), None, True
    while True:
        batch = next(iterator, _END)
        have = run.world.gather(batch is not _END)
        if not any(have):
            return
        if batch is not _END:
            spare = batch
        if is_first and not all(have):
            giver = have.index(True)
            given = run.world.gather(to_cpu(batch) if run.world.rank == giver else None)[giver]
            spare = given if batch is _END else spare
        is_first = False
        yield spare, batch is not _END

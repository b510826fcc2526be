"""Uploads the files of a training to `remote_output_dir`, and waits for that at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from trainer_torch.addresses import check_address
from trainer_torch.checkpoints.selection import delete_oldest
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.remote import RemoteDirectory, retried
from trainer_torch.storage.upload_warnings import described
from trainer_torch.storage.uploader import Uploader

logger = logging.getLogger(__name__)


@contextmanager
def uploading(run: TrainingRun, checkpoint: Path | None) -> Iterator[None]:
    """Return a context in which the checkpoints of a training are uploaded.

    However the training ends, the context then waits for uploads: until all is uploaded, or for
    `upload_timeout` seconds without progress.

    Args:
        run: The training.
        checkpoint: The checkpoint that it resumes from, which may not be uploaded yet.
    """
    uploader = find_uploader(run)
    if uploader is None:
        yield
        return
    output_dir = Path(run.args.output_dir)
    logger.info(
        "All files are written to %s first, and then uploaded to %s.", output_dir, uploader.remote
    )
    uploader.submit_files()  # warns early if the store cannot be reached
    if checkpoint is not None and checkpoint.parent == output_dir:
        uploader.submit(checkpoint)
    has_best_model = False
    try:
        yield
        has_best_model = run.args.load_best_model_at_end  # which takes the place of the newest
    finally:
        uploader.submit_files()
        if uploader.wait(run.args.upload_timeout):
            _delete_uploaded(run, keeps_newest=not has_best_model)


def upload_checkpoint(run: TrainingRun, checkpoint: Path) -> None:
    """Upload `checkpoint` in the background; after the training, wait for it."""
    if (uploader := find_uploader(run)) is not None:
        uploader.tell_if_stuck(run.args.upload_timeout)
        uploader.submit(checkpoint)
        _wait_after_training(run, uploader)


def submit_files(run: TrainingRun) -> None:
    """Upload the files in `output_dir` in the background; after the training, wait for them."""
    if (uploader := find_uploader(run)) is not None:
        uploader.submit_files()
        _wait_after_training(run, uploader)


def save_at(address: str, uploads: bool, save: Callable[[Path], None]) -> None:
    """Save files at an address, and wait until they are there.

    Args:
        address: The address of a directory.
        uploads: Whether this process uploads them. Others only save, for nothing.
        save: Writes the files to a local directory.

    Raises:
        ConnectionError: They cannot be uploaded, even at the third attempt.
        ModuleNotFoundError: A package for the address is missing.
        ValueError: The address has an unknown protocol.
    """
    check_address("output_dir", address)
    with TemporaryDirectory() as directory:
        save(Path(directory))
        if not uploads:
            return
        remote = RemoteDirectory(address)
        try:
            for file in Path(directory).iterdir():
                retried(partial(remote.upload, file, file.name))
        except Exception as error:  # each store has errors of its own
            raise ConnectionError(
                f"Nothing could be saved at {remote}: {described(error)}. Check the network and "
                "the credentials, or save to a local directory."
            ) from error


def _delete_uploaded(run: TrainingRun, keeps_newest: bool) -> None:
    """Delete the local checkpoints over the limit that were kept until they were uploaded."""
    limit, best = run.args.save_total_limit, run.state.best_model_checkpoint
    if limit is not None:
        kept = [] if best is None else [Path(best).name]
        for failure in delete_oldest(run, limit, kept, keeps_newest or best is None):
            logger.warning(
                "A checkpoint over save_total_limit could not be deleted: %s. Delete it yourself "
                "if you do not need it.",
                failure,
            )


def _wait_after_training(run: TrainingRun, uploader: Uploader) -> None:
    if not run.is_in_train:
        uploader.wait(run.args.upload_timeout)


def find_uploader(run: TrainingRun) -> Uploader | None:
    """Return the uploader of `run`, or `None` without an address or outside of the main process.

    With `save_on_each_node`, the other machines save the same checkpoints, so they upload none.
    """
    args = run.args
    address, output_dir = args.remote_output_dir, Path(args.output_dir)
    if address is None or not run.world.is_main:
        run.uploader = None
    elif run.uploader is None or not run.uploader.is_for(address, output_dir):
        run.uploader = Uploader(address, output_dir, args.save_total_limit)
    return run.uploader

"""Delivers the rest of a run to a tracker, or all of it to another tracker.

python -m callback_core.tracking.replay OUTPUT_DIR [--to TRACKER] [--new-run] [--run RUN]
"""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from callback_core.integrations import NotConfigured, get_reporting_integration_callbacks
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery.process import follow
from callback_core.tracking.delivery.thread import ThreadDelivery
from callback_core.tracking.identity import make_tracker
from callback_core.tracking.lock import FileLock, Held
from callback_core.tracking.observed_process import deliver_for
from callback_core.tracking.run_folder import RunFolder
from callback_core.tracking.tracker import Tracker
from callback_core.tracking.tracker_run import TrackerRun

logger = logging.getLogger(__name__)

POLL: Final = 0.02
"""Seconds between two looks at the progress of a delivery."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, and return the exit code: 0 if everything is delivered."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    folders = [
        folder
        for folder in RunFolder.all(options.output_dir.absolute())
        if options.run in (None, folder.run)
    ]
    if not folders:
        which = "no run" if options.run is None else f"no run {options.run!r}"
        print(f"There is {which} in {options.output_dir / 'tracking'}.", file=sys.stderr)
        return 2
    if options.follow is not None:
        logging.basicConfig(format="%(asctime)s %(message)s")
        deliver_for(options.follow)
        folder = folders[0]
        consumer = Consumer(TrackerRun(_tracker(folder, options.tracker), folder, options.tracker))
        return follow(consumer, options.follow, options.call_limit, options.restarts, arguments)
    codes = []
    for folder in folders:
        names = [options.to] if options.to else folder.trackers()
        codes += [replay(folder, name, options.patience, options.new_run) for name in names]
        if not names:
            print(f"{folder.run} names no tracker: name one with --to.")
    return max(codes, default=1)


def replay(folder: RunFolder, name: str, patience: float, new_run: bool = False) -> int:
    """Deliver the rest of a run to a tracker, show the progress, and print the result.

    Args:
        folder: The folder of the run.
        name: The tracker.
        patience: Seconds without any progress after which this gives up.
        new_run: Whether to deliver everything to a new run.

    Returns:
        0 if everything is delivered, else 1.
    """
    title = f"{folder.run} to {name}"
    try:
        consumer = Consumer(TrackerRun(_tracker(folder, name, new_run), folder, name))
    except (ValueError, NotConfigured, ModuleNotFoundError) as error:
        print(f"{title}: cannot be delivered: {str(error).removesuffix('.')}.")
        return 1
    try:
        training = FileLock(folder.lock)
    except Held:
        print(f"{title}: its training is still running, and delivers by itself.")
        return 1
    try:
        if new_run:
            consumer.forget_run()
        pending = consumer.pending()
        if not pending and consumer.run.progress.status is not None:
            print(f"{title}: has everything already.")
            return 0
        consumer.training_ended()  # its process is gone, so no end will be written
        failure = _deliver(consumer, title, pending, patience)
    finally:
        training.release()
    left, left_out = consumer.pending(), consumer.run.progress.left_out
    print(
        f"{title}: {consumer.delivered} points delivered, {len(left_out)} names cut or left out, "
        f"{left} points failed; closed as {consumer.run.progress.status}."
    )
    for entry, why in left_out.items():
        print(f"  {entry}: {why}")
    if failure is not None:
        print(f"  failed: {failure}")
    return 0 if consumer.done else 1


def _deliver(consumer: Consumer, title: str, pending: int, patience: float) -> str | None:
    """Deliver, and return why the rest is missing, if it is."""
    from tqdm import tqdm

    delivery = ThreadDelivery(consumer, patience)
    changed, seen = monotonic(), (0, 0)
    with tqdm(total=pending, desc=title, unit="point", disable=None) as bar:
        delivery.start()
        over = False
        while not over:
            sleep(POLL)
            in_vain = delivery.hopeless or monotonic() - changed >= patience
            over = consumer.done or in_vain  # read before the bar moves for the last time
            now = (consumer.delivered, consumer.run.progress.offset)
            if now != seen:
                changed, seen = monotonic(), now
            bar.update(consumer.delivered - bar.n)
    delivery.finish(monotonic() + POLL)
    return delivery.failure


def _tracker(folder: RunFolder, name: str, new_run: bool = False) -> Tracker:
    """Return the tracker of that name: as the run had it, or as its package makes it.

    Args:
        folder: The folder of the run.
        name: The tracker.
        new_run: Whether it opens a new run, even if the settings of the training name one.
    """
    identity = folder.read_tracker(name)
    if identity.get("settings") is not None:
        return make_tracker(identity, new_run)
    callback: Any = get_reporting_integration_callbacks(name)[0]()
    tracker = getattr(callback, "tracker", None)
    if not isinstance(tracker, Tracker):
        raise ValueError(f"{name} cannot be replayed to: it is not a TrackerCallback")
    return tracker


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m callback_core.tracking.replay",
        description="Deliver what trackers have not got from the runs in an output directory.",
    )
    parser.add_argument("output_dir", type=Path, help="the output_dir of the training")
    parser.add_argument("--to", metavar="TRACKER", help="deliver everything to this tracker")
    parser.add_argument("--new-run", action="store_true", help="deliver everything to a new run")
    parser.add_argument("--run", help="only this run, a folder in OUTPUT_DIR/tracking")
    parser.add_argument(
        "--patience", type=float, default=60.0, help="seconds without progress to wait (60)"
    )
    for name, kind in (("follow", int), ("tracker", str), ("call-limit", float)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--restarts", type=int, default=0, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    deliver_for(None)
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

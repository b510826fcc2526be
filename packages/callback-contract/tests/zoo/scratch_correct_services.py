"""Trackers without `callback_core.tracking` that are correct and send to a service."""

import os
from pathlib import Path

from zoo.runlogs import JournalLog, JournalSuite
from zoo.specimens import correct
from zoo.spool import SpoolLog, SpoolSuite


@correct(
    "Posts by a thread what is in a file; what a service that is away has not got stays there."
)
class Spooled(SpoolSuite):
    __test__ = False
    secrets = ["zk-91d0c25ab7fe4e38"]

    def log(self, url, **options):
        return SpoolLog(url, "zk-91d0c25ab7fe4e38", **options)


class SyncedLog(JournalLog):
    """A journal that is on the disk when a checkpoint is, also where the power goes."""

    def on_save(self, args, state, control, **kwargs):
        if self.file is not None:
            os.fsync(self.file.fileno())


@correct("A journal that is synced to the disk at each checkpoint.")
class SyncedJournal(JournalSuite):
    __test__ = False
    log = SyncedLog


class StartedLog(JournalLog):
    """Has a line in an index of all runs; the index is made by whoever comes first."""

    def begin(self):
        super().begin()
        index = Path(self.directory) / "index"
        with index.open("a") as file:
            file.write(f"{self.run}\n")


@correct("A journal with an index of the runs.")
class IndexedJournal(JournalSuite):
    __test__ = False
    log = StartedLog

"""Mutants of the rules about ranks, imports, leftovers and output."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mutants import mutant
from reference_tracker import FileTracker, Reference, ReferenceCallback

from callback_contract import CallbackContract
from callback_core import TrainerCallback
from callback_core.tracking import Opening

if TYPE_CHECKING:  # they are imported by name, and Pants takes along what is imported
    import imports_its_sdk  # noqa: F401
    import names_only_the_module  # noqa: F401
    import prints_when_imported  # noqa: F401


class MainProcess(TrainerCallback):
    """Leaves something behind when a training begins, in the main process only."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.leave()

    def leave(self) -> None:
        raise NotImplementedError


@mutant("RNK-001")
class WritesOnEveryRank(TrainerCallback):
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Path(args.output_dir, "written.txt").write_text("by each")


@mutant("RNK-002")
class StartsAThreadOnEveryRank(TrainerCallback):
    thread: threading.Thread | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.ended.wait, args=(60,), daemon=True)
        self.thread.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end()

    def end(self) -> None:
        if self.thread is not None:
            self.ended.set()
            self.thread.join()
            self.thread = None


@mutant("RNK-003", capabilities=["steers"])
class AsksOnTheMainProcessOnly(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            control.should_save = True


@mutant("RNK-004")
class TracksEveryRank(Reference):
    class OfEveryRank(ReferenceCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            super().on_train_begin(args, state, control, **kwargs)
            if not state.is_world_process_zero:
                assert isinstance(self.tracker, FileTracker)
                store = self.tracker.store.parent.with_name("store of others")
                other = FileTracker(str(store))
                other.open(Opening(None, Path(args.output_dir), store))

    callback = OfEveryRank

    def read(self, output_dir: Path) -> Any:
        others = output_dir.with_name("others")
        if output_dir.with_name("store of others").is_dir() and not others.exists():
            others.mkdir()
            output_dir.with_name("store of others").rename(others / "store")
        return [*super().read(output_dir), *super().read(others)]


class OfAModule(CallbackContract):
    """A mutant that is wrong in how its module imports, which is not imported here."""

    __test__ = False
    contract = (1, 0)
    expect = ""

    def make(self, output_dir: Path) -> Any:
        assert self.module is not None
        return import_module(self.module).Imported()


@mutant("IMP-001")
class EagerImport(OfAModule):
    module = "imports_its_sdk"
    # Stands for an SDK: a module that nothing else imports.
    sdk = "colorsys"
    capabilities = frozenset({"sdk"})


@mutant("IMP-002")
class UnclearImport(OfAModule):
    module = "names_only_the_module"
    sdk = "colorsys"
    capabilities = frozenset({"sdk"})


@mutant("IMP-003")
class NoisyImport(OfAModule):
    module = "prints_when_imported"


@mutant("LEF-001")
class LeavesAThread(MainProcess):
    def leave(self) -> None:
        threading.Thread(target=threading.Event().wait, args=(30,), daemon=True).start()


@mutant("LEF-002")
class LeavesAProcess(MainProcess):
    processes: list[subprocess.Popen[bytes]] = []  # noqa: RUF012

    def leave(self) -> None:
        wait = [sys.executable, "-S", "-c", "import time; time.sleep(20)"]
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes[:] = [subprocess.Popen(wait)]


@mutant("LEF-003")
class LeavesAVariable(MainProcess):
    numbers = count()

    def leave(self) -> None:
        os.environ["OF_A_MUTANT"] = str(next(self.numbers))


@mutant("LEF-004")
class LeavesASignalHandler(MainProcess):
    def leave(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)


@mutant("LEF-005")
class LeavesAnExceptHook(MainProcess):
    def leave(self) -> None:
        sys.excepthook = lambda *_: None


@mutant("LEF-006")
class WritesToTheWorkingDirectory(MainProcess):
    def leave(self) -> None:
        Path("left.txt").write_text("here")


@mutant("LEF-007")
class LeavesAFileOpen(MainProcess):
    def leave(self) -> None:
        os.open(os.devnull, os.O_RDONLY)


@mutant("LEF-008")
class LeavesALogHandler(MainProcess):
    def leave(self) -> None:
        logging.getLogger().addHandler(logging.NullHandler())


@mutant("LEF-009")
class LeavesATemporaryFile(MainProcess):
    def leave(self) -> None:
        descriptor, _ = tempfile.mkstemp()
        os.close(descriptor)


@mutant("OUT-001", capabilities=["prints"])
class PrintsOnOtherRanks(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        print("logged")


@mutant("OUT-002", capabilities=["prints"])
class DrawsInAPipe(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            print(f"\r{state.global_step}", end="")


@mutant("OUT-003")
class PrintsInSecret(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            print("logged")


@mutant("OUT-004", capabilities=["prints"])
class PrintsWhatComes(TrainerCallback):
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            print(logs)

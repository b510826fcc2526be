"""Callbacks that are wrong with services, secrets, settings and imports."""

import json
import os
import queue
import socket
import threading
import time
import urllib.request
from pathlib import Path

from callback_contract import CallbackContract, Setting
from callback_core import TrainerCallback
from zoo import service
from zoo.specimens import faulty

TOKEN = "zk-hook-0b77c1f2a95d4e6c"


class Suite(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"unreachable"}

    def make(self, output_dir):
        return self.callback(service.url(output_dir))

    def make_unreachable(self, output_dir):
        with service.Service() as gone:
            return self.callback(gone.url)


def post(url, message, timeout=5):
    request = urllib.request.Request(url, json.dumps(message, default=str).encode())
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        answer.read()


class FailingHookCallback(TrainerCallback):
    """Tells a webhook of each evaluation."""

    def __init__(self, url):
        self.url = url

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if state.is_world_process_zero:
            post(self.url, {"step": state.global_step, "metrics": metrics})


@faulty("A webhook that is not there ends the training.")
class HookEndsTheTraining(Suite):
    __test__ = False
    callback = FailingHookCallback


class PatientHookCallback(TrainerCallback):
    """Tells a webhook of each log, and again where that fails."""

    def __init__(self, url, tries=4):
        self.url, self.tries = url, tries

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        for number in range(self.tries):
            try:
                post(self.url, {"step": state.global_step, "logs": logs})
                return
            except OSError:
                time.sleep(0.1 * 2**number)


@faulty("The training waits at each log for a webhook that is away, for seconds.")
class HookHoldsTheTraining(Suite):
    __test__ = False
    callback = PatientHookCallback


class NoTimeoutCallback(TrainerCallback):
    """Tells a webhook when training has ended."""

    def __init__(self, url):
        self.url = url

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            try:
                request = urllib.request.Request(self.url, b'{"text": "training has ended"}')
                urllib.request.urlopen(request).close()
            except OSError:
                return


@faulty("A webhook that takes the request and never answers is waited for without a limit.")
class HookWithoutTimeout(Suite):
    __test__ = False
    callback = NoTimeoutCallback

    def make_unreachable(self, output_dir):
        silent = socket.socket()
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        self.silent = silent  # it takes connections, and that is all
        return self.callback(f"http://127.0.0.1:{silent.getsockname()[1]}")


class LenientHookCallback(FailingHookCallback):
    """Tells a webhook of each evaluation. Where that fails, a warning does."""

    on_error = "warn"


@faulty("`on_error` is a word that means nothing, and the loop refuses the callback.")
class PolicyThatIsNone(Suite):
    __test__ = False
    callback = LenientHookCallback


class QueueCallback(TrainerCallback):
    """Tells a webhook of evaluations by a thread, which ends when all is told."""

    def __init__(self, url):
        self.url, self.thread = url, None

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if not state.is_world_process_zero:
            return
        if self.thread is None:
            self.queue = queue.Queue()
            self.thread = threading.Thread(target=self.work, daemon=True)
            self.thread.start()
        self.queue.put({"step": state.global_step, "metrics": metrics})

    def work(self):
        while (message := self.queue.get()) is not None:
            try:
                post(self.url, message)
            except OSError:
                continue

    def on_train_end(self, args, state, control, **kwargs):
        if self.thread is not None:
            self.queue.put(None)
            self.thread.join()
            self.thread = None


@faulty("An evaluation after training starts a thread that nothing ends.")
class ThreadOfALateEvaluation(Suite):
    __test__ = False
    callback = QueueCallback


class RememberedHookCallback(TrainerCallback):
    """Tells a webhook when training ends. Its settings are kept beside the training."""

    def __init__(self, url, token, directory):
        self.url, self.token, self.directory = url, token, Path(directory)

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            settings = {"url": self.url, "token": self.token}
            (self.directory / "webhook.json").write_text(json.dumps(settings))

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            try:
                post(self.url, {"text": "training has ended"})
            except OSError:
                return


@faulty("The webhook's token is written to a file in the output directory.")
class TokenInAFile(CallbackContract):
    __test__ = False
    contract = (2, 0)
    secrets = [TOKEN]

    def make(self, output_dir):
        return RememberedHookCallback(service.url(output_dir), TOKEN, output_dir)


class ExportedTokenCallback(TrainerCallback):
    """Counts the evaluations that a webhook was told of."""

    def __init__(self, token):
        self.token, self.told = token, 0

    def state_dict(self):
        return {"token": self.token, "told": self.told}

    def load_state_dict(self, state):
        self.token, self.told = state["token"], state["told"]

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self.told = 0

    def on_evaluate(self, args, state, control, **kwargs):
        self.told += 1


@faulty("The token is part of the state, and so of each checkpoint.")
class TokenInTheCheckpoint(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state"}
    secrets = [TOKEN]

    def make(self, output_dir):
        return ExportedTokenCallback(TOKEN)


def positive(name, given, default=None):
    """Return a whole number from 1 on."""
    try:
        value = default if given is None else int(given)
    except (TypeError, ValueError):
        value = 0
    if value < 1:
        raise ValueError(f"{name} is {given!r}, it must be a whole number, 1 or more")
    return value


class EveryCallback(TrainerCallback):
    """Writes every so many steps to a file that training goes on."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and state.global_step % self.every == 0:
            self.path.write_text(f"{state.global_step}\n")


EVERY = Setting(
    "every",
    "ZOO_EVERY",
    10,
    examples=[("3", 3)],
    given=[(7, 7)],
    wrong=["often", "0"],
    wrong_given=["often", 0],
)


class SettingSuite(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"settings"}
    settings = [EVERY]

    def make(self, output_dir):
        return self.callback(output_dir / "alive.txt")

    def make_with(self, output_dir, **arguments):
        return self.callback(output_dir / "alive.txt", **arguments)


class VariableWinsCallback(EveryCallback):
    def __init__(self, path, every=None):
        self.path = Path(path)
        variable = os.environ.get("ZOO_EVERY", "").strip()
        self.every = positive("ZOO_EVERY", variable) if variable else positive("every", every, 10)


@faulty("The environment variable counts more than the argument.")
class VariableCountsMore(SettingSuite):
    __test__ = False
    callback = VariableWinsCallback


class UncheckedCallback(EveryCallback):
    def __init__(self, path, every=None):
        self.path = Path(path)
        if every is None:
            every = positive("ZOO_EVERY", os.environ.get("ZOO_EVERY", "").strip() or None, 10)
        self.every = every


@faulty("An argument that cannot be is not refused when the callback is made.")
class WrongArgumentIsTaken(SettingSuite):
    __test__ = False
    callback = UncheckedCallback


class LateCallback(EveryCallback):
    DEFAULT = positive("ZOO_EVERY", os.environ.get("ZOO_EVERY") or None, 10)

    def __init__(self, path, every=None):
        self.path = Path(path)
        self.every = positive("every", every, self.DEFAULT)


@faulty("The variable is read when the module is imported, and later changes do not count.")
class VariableAtImport(SettingSuite):
    __test__ = False
    callback = LateCallback


@faulty(
    "Importing it configures the root logger of whoever imports it.",
    source="snowplow/snowplow-python-tracker#373",
)
class ConfiguresLoggingOnImport(CallbackContract):
    __test__ = False
    contract = (2, 0)
    module = "zoo.log_on_import"

    def make(self, output_dir):
        from zoo.log_on_import import LoggedEpochs

        return LoggedEpochs(output_dir / "epochs.txt")


@faulty("Without the package that it sends through it is an AttributeError of None, at the end.")
class MissingPackageIsNone(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"sdk"}
    module = "zoo.needs_sdk"
    sdk = "numpy"

    def make(self, output_dir):
        from zoo.needs_sdk import ArraysCallback

        return ArraysCallback(output_dir / "losses.npy")


@faulty("Without the package that it sends through it raises, and does not say what to install.")
class SaysNothingToInstall(CallbackContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"sdk"}
    module = "zoo.loads_sdk"
    sdk = "numpy"

    def make(self, output_dir):
        from zoo.loads_sdk import LateArraysCallback

        return LateArraysCallback(output_dir / "losses.npy")


class KeptMessageCallback(TrainerCallback):
    """Tells a webhook of each evaluation. What cannot be sent is kept for later."""

    def __init__(self, url):
        self.url = url

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if not state.is_world_process_zero:
            return
        message = {"step": state.global_step, "metrics": metrics}
        try:
            post(self.url, message)
        except OSError:
            folder = Path(args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "unsent.jsonl").open("a") as file:
                file.write(json.dumps({"to": self.url, "message": message}, default=str) + "\n")


@faulty("While the webhook is away, its address with the key is written beside the checkpoints.")
class KeyInAnUnsentMessage(Suite):
    __test__ = False
    callback = KeptMessageCallback
    secrets = [TOKEN]

    def make(self, output_dir):
        return self.callback(f"{service.url(output_dir)}?key={TOKEN}")

    def make_unreachable(self, output_dir):
        with service.Service() as gone:
            return self.callback(f"{gone.url}/?key={TOKEN}")

"""Contract suites for transformers' own callbacks: how to make each one, and what it claims.

Trackers write to a directory or a database, or send to the stand-in servers of our own packages'
tests. The readers of those tests read the results.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final

from callback_contract import CallbackContract, RecordedRun, Rule, TrackerContract
from callback_contract._stored import wait_for
from callback_contract._training import Arguments, Training

VERSION: Final = "5.24.0"
PACKAGES: Final = Path(__file__).resolve().parents[2] / "packages"
INTEGRATIONS: Final = "transformers.integrations.integration_utils"

ARGUMENTS: Final = {
    "full_determinism": False,
    "hub_private_repo": None,
    "project": "contract",
    "save_total_limit": None,
    "trackio_bucket_id": None,
    "trackio_space_id": None,
    "trackio_static_space_id": False,
}
"""Arguments that transformers' callbacks read, and that the contract's trainings lack."""


class Peer(CallbackContract):
    """One of transformers' callbacks.

    Attributes:
        home: The module that defines it.
        packages: The distributions that it needs besides transformers.
        reader: The package of this repository whose tests can read what it stores.
    """

    __test__ = False
    contract = (2, 0)
    time_limit = 240.0
    home: ClassVar[str] = "transformers.trainer_callback"
    packages: ClassVar[tuple[str, ...]] = ()
    reader: ClassVar[str] = ""

    def make(self, output_dir: Path) -> Any:
        """Return a new one, as transformers' Trainer makes it."""
        return getattr(import_module(self.home), type(self).__name__)()

    @classmethod
    def load(cls) -> None:
        """Import, once, what all rules need."""
        getattr(import_module(cls.home), cls.__name__)
        if cls.sdk is not None:
            import_module(cls.sdk)
        if cls.reader:
            package = PACKAGES / cls.reader
            sys.path[:0] = [str(package), str(package / "tests")]

    def prepare(self, output_dir: Path, rule: Rule) -> None:
        """Prepare the environment before a rule is checked, as users do."""


class DefaultFlowCallback(Peer):
    """Decides when to log, to evaluate and to save."""

    capabilities = frozenset({"steers"})


class EarlyStoppingCallback(Peer):
    """Stops a training that no longer improves."""

    capabilities = frozenset({"stops", "state", "patience"})
    arguments = {"eval_strategy": "steps", "load_best_model_at_end": True}  # noqa: RUF012

    def make(self, output_dir: Path) -> Any:
        """Return one with a patience of 2."""
        return import_module(self.home).EarlyStoppingCallback(early_stopping_patience=2)

    def make_patient(self, output_dir: Path, patience: int, threshold: float) -> Any:
        """Return one with this patience and threshold."""
        return import_module(self.home).EarlyStoppingCallback(patience, threshold)


class PrinterCallback(Peer):
    """Prints the logs."""

    capabilities = frozenset({"prints"})


class ProgressCallback(Peer):
    """Draws a bar."""

    capabilities = frozenset({"prints"})


class NotebookProgressCallback(Peer):
    """Draws a bar and a table in a notebook."""

    home = "transformers.utils.notebook"
    packages = ("ipython",)
    capabilities = frozenset({"prints"})


class KubeflowCallback(Peer):
    """Reports the progress of a training to Kubeflow."""

    home = INTEGRATIONS
    capabilities = frozenset({"unreachable"})
    secrets = ("token-of-a-pod",)

    def prepare(self, output_dir: Path, rule: Rule) -> None:
        """Set a token, and the address of a controller that does not exist."""
        token = output_dir.parent / "token"
        token.write_text(self.secrets[0])
        os.environ["KUBEFLOW_TRAINER_SERVER_URL"] = "http://127.0.0.1:9/"
        os.environ["KUBEFLOW_TRAINER_SERVER_TOKEN"] = str(token)

    def make_unreachable(self, output_dir: Path) -> Any:
        """Return a new one. `prepare` has set the address."""
        return self.make(output_dir)


class CodeCarbonCallback(Peer):
    """Estimates the emissions of a training."""

    home = INTEGRATIONS
    packages = ("codecarbon",)
    sdk = "codecarbon"
    capabilities = frozenset({"sdk"})


class FlyteCallback(Peer):
    """Keeps checkpoints with Flyte."""

    home = INTEGRATIONS
    packages = ("flytekit", "flytekitplugins-deck-standard")
    sdk = "flytekit"
    capabilities = frozenset({"sdk"})

    def prepare(self, output_dir: Path, rule: Rule) -> None:
        """Enter a task whose checkpoints go to a directory."""
        contexts = import_module("flytekit.core.context_manager").FlyteContextManager
        keeper = import_module("flytekit.core.checkpointer").SyncCheckpoint
        (kept := output_dir.parent / "kept").mkdir()
        context = contexts.current_context()
        parameters = context.user_space_params.builder()
        parameters.checkpoint = keeper(checkpoint_dest=str(kept))
        execution = context.execution_state.with_params(user_space_params=parameters.build())
        contexts.push_context(context.with_execution_state(execution).build())


class PeerTracker(Peer, TrackerContract):
    """One of transformers' callbacks that writes logs to a store.

    Attributes:
        is_training: Whether a training has begun and not ended. `watch_trainings` keeps it current.
        at_once: Whether the rule asks what is stored as soon as training ends. `prepare` sets it.
    """

    __test__ = False
    home = INTEGRATIONS
    is_training: ClassVar[bool] = False
    at_once: bool | None = None

    def choose_store(self, output_dir: Path) -> None:
        """Let new callbacks send to the store of `output_dir`."""

    def make(self, output_dir: Path) -> Any:
        """Return a new one, as transformers' Trainer makes it."""
        if self.at_once is not None:
            self.choose_store(output_dir)
        return super().make(output_dir)

    def settle(self) -> None:
        """Let the SDK send what is pending, as it does when the process ends."""

    def prepare(self, output_dir: Path, rule: Rule) -> None:
        """Note whether the rule asks what is stored as soon as training ends."""
        self.at_once = rule.id == "DEL-001"

    def read(self, output_dir: Path) -> list[RecordedRun]:
        """Return what is stored, for most rules after the SDK has sent everything.

        The SDK would end the run of a training that continues, so that one is read as it is.
        """
        if not (self.at_once or self.is_training):
            self.settle()
        return self.stored(output_dir)

    def stored(self, output_dir: Path) -> list[RecordedRun]:
        """Return what is stored."""
        raise NotImplementedError


class TensorBoardCallback(PeerTracker):
    """Writes event files."""

    packages = ("tensorboard",)
    sdk = "tensorboard"
    capabilities = frozenset({"sdk", "parameters", "non_finite", "text"})
    precision = "single"

    def stored(self, output_dir: Path) -> list[RecordedRun]:
        """Read the directories with TensorBoard's own reader."""
        runs = {events.parent for events in output_dir.rglob("events.out.tfevents.*")}
        return [self._recorded(run) for run in sorted(runs, key=lambda run: run.stat().st_ctime_ns)]

    @staticmethod
    def _recorded(directory: Path) -> RecordedRun:
        of = import_module("tensorboard.backend.event_processing.event_accumulator")
        found = of.EventAccumulator(str(directory), {"scalars": 0, "tensors": 0}).Reload()
        text: dict[str, list[tuple[int, str]]] = {}
        for tag in (tag for tag in found.Tags()["tensors"] if tag.endswith("/text_summary")):
            values = [(e.step, e.tensor_proto.string_val[0].decode()) for e in found.Tensors(tag)]
            text[tag.removesuffix("/text_summary")] = values
        parameters: dict[str, Any] = {}
        for _, value in text.pop("model_config", []) + text.pop("args", []):
            parameters |= json.loads(value)
        points = {t: [(e.step, e.value) for e in found.Scalars(t)] for t in found.Tags()["scalars"]}
        return RecordedRun(directory.name, parameters, points, text)


class MLflowCallback(PeerTracker):
    """Sends to MLflow."""

    packages = ("mlflow",)
    sdk = "mlflow"
    reader = "callback-mlflow"
    capabilities = frozenset({"sdk", "parameters", "files", "non_finite", "status"})
    made: ClassVar[Path]

    @classmethod
    def load(cls) -> None:
        """Make an empty database once, because that takes MLflow seconds."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["GIT_PYTHON_REFRESH"] = "quiet"
        super().load()
        cls.made = Path("made").absolute()
        cls.made.mkdir()
        made = (
            f"import mlflow; mlflow.MlflowClient('sqlite:///{cls.made}/mlflow.db')"
            f".create_experiment('contract', '{cls.made}')"
        )
        subprocess.run([sys.executable, "-c", made], check=True)

    def prepare(self, output_dir: Path, rule: Rule) -> None:
        """Name the experiment, and enable checkpoints if the rule needs them."""
        super().prepare(output_dir, rule)
        os.environ["MLFLOW_EXPERIMENT_NAME"] = "contract"
        os.environ["HF_MLFLOW_LOG_ARTIFACTS"] = str("files" in rule.needs)
        self.choose_store(output_dir)

    def choose_store(self, output_dir: Path) -> None:
        """Set the database."""
        database = output_dir / "mlflow.db"
        if not database.exists():
            database.write_bytes((self.made / "mlflow.db").read_bytes())
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{database}"

    def settle(self) -> None:
        """Wait for MLflow's threads to write what is pending."""
        import_module("mlflow").flush_async_logging()

    def stored_name(self, name: str) -> str:
        """Return the name unchanged."""
        return name

    def stored(self, output_dir: Path) -> list[RecordedRun]:
        """Read the tables, without MLflow, which returns points in the order of their times."""
        database = output_dir / "mlflow.db"
        if not database.exists():
            return []
        recorded = import_module("test_contract").recorded
        found = import_module("reader").Database(database).runs("contract")
        for run in found:
            run.points.sort(key=itemgetter(3, 1))
        return [recorded(run, self.made) for run in found]  # its models are not in a run's folder


class WandbCallback(PeerTracker):
    """Writes Weights & Biases' offline files."""

    packages = ("wandb",)
    sdk = "wandb"
    reader = "callback-wandb"
    capabilities = frozenset({"sdk", "parameters", "non_finite", "text", "files"})

    @classmethod
    def load(cls) -> None:
        """Let it save the final model without transformers' Trainer.

        The Trainer would need accelerate, and arguments of transformers' own class.
        """
        super().load()
        module: Any = ModuleType("transformers.trainer")
        module.Trainer = _SavesModel
        sys.modules["transformers.trainer"] = module

    def prepare(self, output_dir: Path, rule: Rule) -> None:
        """Set the directory, and enable checkpoints if the rule needs them."""
        super().prepare(output_dir, rule)
        self.folder = output_dir
        self.of_other_stores: dict[Path, set[str]] = {output_dir: set()}
        os.environ |= {"WANDB_MODE": "offline", "WANDB_DIR": str(output_dir)}
        os.environ["WANDB_LOG_MODEL"] = "checkpoint" if "files" in rule.needs else "false"

    def choose_store(self, output_dir: Path) -> None:
        """Note the earlier runs, because W&B does not change its directory within a process."""
        if output_dir not in self.of_other_stores:
            self.of_other_stores[output_dir] = {run.id for run in self._runs()}

    def settle(self) -> None:
        """End the run, as W&B does when the process ends, and wait until it is written."""
        wandb = import_module("wandb")
        if wandb.run is not None:
            ended = wandb.run.id
            wandb.finish()
            wait_for(lambda: any(run.id == ended and run.ended for run in self._runs()), 10.0)

    def stored(self, output_dir: Path) -> list[RecordedRun]:
        """Read the files, without W&B. Its aliases of checkpoints become their names."""
        recorded = import_module("test_contract").recorded
        others = self.of_other_stores.get(output_dir, set())
        runs = [
            recorded(run.id, run.rows, run.config, run.summary, run.exit_code, run.artifacts)
            for run in self._runs()
            if run.id not in others
        ]
        for run in runs:
            run.files = {f.replace("checkpoint_global_step_", "checkpoint-") for f in run.files}
        return runs

    def _runs(self) -> list[Any]:
        runs: list[Any] = import_module("recorded").runs(self.folder)
        return runs


class _SavesModel:
    """The part of transformers' Trainer that `WandbCallback` uses at the end of a training."""

    def __init__(self, **_: Any) -> None:
        """Accept the arguments of transformers' Trainer."""

    def save_model(self, output_dir: str) -> None:
        """Save a file in place of a model."""
        Path(output_dir, "model.safetensors").write_bytes(b"weights")


class CometCallback(PeerTracker):
    """Sends to a stand-in for Comet's server, from our tests."""

    packages = ("comet_ml",)
    sdk = "comet_ml"
    reader = "callback-comet"
    capabilities = frozenset({"sdk", "parameters", "non_finite", "files"})
    secrets = ("k" * 25,)

    @classmethod
    def load(cls) -> None:
        """Make Comet retry rarely and give up early."""
        os.environ |= {
            "COMET_TIMEOUT_HTTP": "5",
            "COMET_HTTP_SESSION_RETRY_TOTAL": "0",
            "COMET_GET_OR_ADD_EXPERIMENT_RETRY_TOTAL": "0",
            "COMET_ERROR_TRACKING_ENABLE": "false",
            "COMET_API_KEY": cls.secrets[0],
        }
        super().load()

    def prepare(self, output_dir: Path, rule: Rule) -> None:
        """Start the server, and enable checkpoints if the rule needs them."""
        super().prepare(output_dir, rule)
        recorded = import_module("recorded").Recorded
        add_point = recorded.add_point

        def add_number(one: Any, metric: dict[str, Any]) -> None:
            with suppress(
                TypeError, ValueError
            ):  # ignore values that are no numbers, instead of refusing them
                add_point(one, metric)

        recorded.add_point = add_number
        self.server = import_module("comet_server").CometServer()
        self.server.keep_alive = False  # an open connection would keep a thread of the server
        self.server.start()
        os.environ["COMET_URL_OVERRIDE"] = self.server.url
        os.environ["COMET_LOG_ASSETS"] = str("files" in rule.needs)
        self.choose_store(output_dir)

    def choose_store(self, output_dir: Path) -> None:
        """Set the project."""
        os.environ["COMET_PROJECT_NAME"] = str(output_dir)

    def make(self, output_dir: Path) -> Any:
        """Return a new one, after a new search for comet_ml.

        The module searches for comet_ml only when it is imported. One rule hides comet_ml later.
        """
        util = import_module("importlib.util")
        home: Any = import_module(self.home)
        home._is_comet_installed = util.find_spec("comet_ml") is not None  # noqa: SLF001
        return super().make(output_dir)

    def settle(self) -> None:
        """End the experiment, as Comet does when the process ends."""
        if (experiment := import_module("comet_ml").get_running_experiment()) is not None:
            experiment.end()

    def stored(self, output_dir: Path) -> list[RecordedRun]:
        """Return what the server received."""
        recorded = import_module("test_contract").recorded
        kept = self.server.experiments.values()
        return [recorded(one) for one in kept if one.project == str(output_dir)]


class ClearMLCallback(PeerTracker):
    """Sends to a stand-in for ClearML's server, from our tests."""

    packages = ("clearml",)
    sdk = "clearml"
    reader = "callback-clearml"
    capabilities = frozenset({"sdk", "parameters", "files", "status"})

    def prepare(self, output_dir: Path, rule: Rule) -> None:
        """Start the server."""
        super().prepare(output_dir, rule)
        self.server = import_module("clearml_server").ClearMLServer()
        self.server.start()
        os.environ["CLEARML_CONFIG_FILE"] = str(output_dir.parent / "none.conf")
        os.environ["CLEARML_CACHE_DIR"] = str(output_dir.parent / "cache")
        os.environ |= self.server.environment()
        self.choose_store(output_dir)

    def choose_store(self, output_dir: Path) -> None:
        """Set the project."""
        os.environ["CLEARML_PROJECT"] = str(output_dir)

    def settle(self) -> None:
        """Let the SDK send what is pending."""
        task = import_module("clearml").Task.current_task()
        if task is not None:
            task.flush(wait_for_uploads=True)

    def stored(self, output_dir: Path) -> list[RecordedRun]:
        """Return what the server received."""
        recorded = import_module("test_contract").recorded
        project = self.server.projects.get(str(output_dir))
        tasks = [task for task in self.server.tasks.values() if task["project"] == project]
        return [recorded(self.server, task) for task in tasks]


class TrackioCallback(PeerTracker):
    """Writes to Trackio's database on this machine."""

    packages = ("trackio",)
    sdk = "trackio"
    capabilities = frozenset({"sdk", "parameters", "non_finite", "text"})

    @classmethod
    def load(cls) -> None:
        """Set the directory of the databases, which Trackio reads when it is imported."""
        os.environ["TRACKIO_DIR"] = str(Path("trackio").absolute())
        super().load()

    def choose_store(self, output_dir: Path) -> None:
        """Set the project. Each project has its own database."""
        extend_arguments(project=output_dir.parent.name)

    def settle(self) -> None:
        """End the run, as Trackio does when the process ends."""
        with suppress(RuntimeError):  # no run is open
            import_module("trackio").finish()

    def stored(self, output_dir: Path) -> list[RecordedRun]:
        """Read the tables, without Trackio."""
        file = Path(os.environ["TRACKIO_DIR"]) / f"{output_dir.parent.name}.db"
        if not file.exists():
            return []
        with sqlite3.connect(file) as database:
            rows = database.execute("select run_id, metrics from metrics order by id").fetchall()
            configs = dict(database.execute("select run_id, config from configs").fetchall())
        found = []
        for run in dict.fromkeys([*configs, *(run for run, _ in rows)]):
            points: dict[str, list[tuple[int, Any]]] = {}
            text: dict[str, list[tuple[int, Any]]] = {}
            for values in (json.loads(values) for of, values in rows if of == run):
                step = values.pop("train/global_step", -1)
                for name, value in values.items():
                    kept = float(value) if value in ("NaN", "Infinity", "-Infinity") else value
                    kind = text if isinstance(kept, str) else points
                    kind.setdefault(name, []).append((step, kept))
            config = json.loads(configs.get(run) or "{}")
            found.append(RecordedRun(run, config, _numbers(points), text))
        return found


def extend_arguments(**values: Any) -> None:
    """Add the attributes that transformers' callbacks read to the contract's training arguments."""
    for name, value in {**ARGUMENTS, **values}.items():
        setattr(Arguments, name, value)


def watch_trainings() -> None:
    """Note in `PeerTracker.is_training` when a training begins and when it ends."""
    fire = Training.fire

    def watched(self: Training, event: str, **passed: Any) -> None:
        fire(self, event, **passed)
        if event in ("on_train_begin", "on_train_end"):
            PeerTracker.is_training = event == "on_train_begin"

    Training.fire = watched  # type: ignore[method-assign]


def _numbers(points: Mapping[str, list[tuple[int, Any]]]) -> dict[str, list[tuple[int, float]]]:
    """Return the points that are numbers."""
    return {n: [p for p in of if isinstance(p[1], (int, float))] for n, of in points.items()}


PEERS: Final[dict[str, type[Peer]]] = {
    peer.__name__: peer
    for peer in (
        DefaultFlowCallback,
        EarlyStoppingCallback,
        PrinterCallback,
        ProgressCallback,
        NotebookProgressCallback,
        TensorBoardCallback,
        MLflowCallback,
        WandbCallback,
        CometCallback,
        ClearMLCallback,
        TrackioCallback,
        CodeCarbonCallback,
        KubeflowCallback,
        FlyteCallback,
    )
}

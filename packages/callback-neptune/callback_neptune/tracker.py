"""`NeptuneTracker`: a run in Neptune."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from threading import Event
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal
from uuid import uuid4
from weakref import ref

from callback_core import NotConfigured
from callback_core.tracking import (
    Limits,
    Opening,
    Point,
    Status,
    Tracker,
    TrainingNumbers,
    Upload,
    config,
    training_process,
)
from callback_neptune import arguments, sdk
from callback_neptune.open_run import OpenRun, as_parameters

logger = logging.getLogger(__name__)

CheckpointKind = Literal["same", "last", "best"]

LIMITS: Final = Limits(
    batch_size=1000,
    parameter_length=16384,
    key_is_path=True,
    non_finite=False,
    text=True,
    text_length=1000,
)
"""Neptune's limits, from its types. Neptune does not support NaN and infinities."""

INTEGRATION_VERSION_KEY: Final = "source_code/integrations/callback-neptune"
"""The path that holds the version of this package. Neptune's own integrations use such paths."""


class NeptuneTracker(Tracker):
    """A run in Neptune. `NeptuneCallback` documents the other arguments.

    Args:
        kept: The key of private arguments that this process keeps; see `store_private`.

    Attributes:
        given: The user's run, or `None`.
        wants_checkpoint: Whether to upload the next checkpoint.

    Raises:
        TypeError: `neptune.init_run` has no such argument.
        ValueError: A setting is invalid.
    """

    name = "neptune"
    named_by = ("with_id", "custom_run_id")
    requires: Mapping[str, str] = MappingProxyType({"neptune": "neptune"})
    limits = LIMITS

    _numbers: ClassVar = TrainingNumbers()
    """Numbers the trainings in each of the user's runs."""

    def __init__(
        self,
        *,
        api_token: str | None = None,
        project: str | None = None,
        name: str | None = None,
        base_namespace: str = "finetuning",
        run: Any = None,
        log_parameters: bool = True,
        log_checkpoints: CheckpointKind | None = None,
        kept: str | None = None,
        **neptune_run_kwargs: Any,
    ) -> None:
        self._kept = kept
        private = arguments.load_private(kept)
        neptune_run_kwargs = {**neptune_run_kwargs, **private.get("run_arguments", {})}
        self.run_arguments = arguments.run_arguments(neptune_run_kwargs)
        self.mode = arguments.mode(self.run_arguments.pop("mode", None))
        given_id = self.run_arguments.pop("custom_run_id", None)
        self.with_id = config.text("with_id", self.run_arguments.pop("with_id", None), None)
        self.custom_run_id = None if self.with_id else arguments.custom_run_id(given_id)
        self.api_token = api_token or private.get("api_token")
        self.project = project
        if self.mode in (None, "async", "sync"):
            arguments.api_token(self.api_token)
            self.project = arguments.project(project)
        self.run_name = config.text("name", name, None)
        self.base_namespace = arguments.namespace(base_namespace)
        self.given = run if run is not None else private.get("given")
        if self.given is not None and not hasattr(self.given, "get_state"):
            raise ValueError(f"run is {run!r}, it must be what neptune.init_run returns.")
        self.keeps_parameters = config.flag("log_parameters", log_parameters, None) is not False
        self.log_checkpoints = config.choice(
            "log_checkpoints", log_checkpoints, None, arguments.CHECKPOINTS
        )
        self.wants_checkpoint = True
        self._run: OpenRun | None = None
        self._is_open = Event()

    @property
    def disabled(self) -> bool:
        """Whether the mode is `debug`, in which Neptune stores nothing."""
        return self.mode == "debug" and self.given is None

    @property
    def keeps_open(self) -> bool:
        """Whether the run is offline, so that it cannot be opened again."""
        return self._run is not None and sdk.is_offline(self._run.run)

    @property
    def takes_checkpoints(self) -> bool:
        """Whether checkpoints are uploaded."""
        return self.log_checkpoints is not None and self.wants_checkpoint

    @property
    def bound_arguments(self) -> list[str]:
        """The names of run arguments that cannot be passed to another process."""
        storable = arguments.storable(self.run_arguments)
        return [name for name in self.run_arguments if name not in storable]

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments of an equal tracker. The environment must hold the token."""
        bound = {name: self.run_arguments[name] for name in self.bound_arguments}
        private = {"api_token": self.api_token, "given": self.given, "run_arguments": bound}
        self._kept = arguments.store_private(private, self._kept)
        project = self.project
        if self.given is not None and not sdk.is_offline(self.given):
            project = sdk.project_of(self.given)
        return {
            "project": project,
            "name": self.run_name,
            "base_namespace": self.base_namespace,
            "log_parameters": self.keeps_parameters,
            "log_checkpoints": self.log_checkpoints,
            "kept": self._kept,
            "mode": self.mode,
            "with_id": self.with_id,
            "custom_run_id": self.custom_run_id,
            **arguments.storable(self.run_arguments),
        }

    def adopt(self) -> str | None:
        """Return the id of the user's run."""
        run = self.given
        if run is None:
            return None
        if not sdk.is_open(run):
            if sdk.is_offline(run):
                logger.warning(
                    "The Neptune run that you passed is stopped, and an offline run cannot be "
                    "reopened. The training gets its own run."
                )
                return None
            logger.warning(
                "The Neptune run %s that you passed is stopped. The training reopens it.",
                sdk.id_of(run),
            )
        return sdk.id_of(run)

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return arguments and model configuration in separate namespaces."""
        if not self.keeps_parameters:
            return {}
        return as_parameters({"trainer_parameters": arguments, "model_parameters": model_config})

    def open(self, opening: Opening) -> str:
        """Use the user's run, continue an earlier one, or begin a new one.

        Raises:
            RunNotFound: Neptune does not have the run to continue.
            Rejected: Neptune denies access, or has neither the project nor the named run.
        """
        given = self.given if opening.adopted else None
        if given is not None and not (sdk.is_open(given) and sdk.id_of(given) == opening.run_id):
            given = None
        run = given or self._init_run(opening)
        namespace = self._namespace_of(opening) if opening.adopted else self.base_namespace
        checkpoints = {None: "", "same": "checkpoints"}.get(
            self.log_checkpoints, f"checkpoints/{self.log_checkpoints}"
        )
        self._run = OpenRun(run, given is None, namespace, checkpoints, opening.folder)
        if opening.run_id is None or opening.adopted or sdk.is_offline(run):
            try:
                self._describe(opening)
            except Exception:  # a retry opens it again
                if given is None:
                    sdk.stop(run)
                raise
        self._is_open.set()
        self.run_url = None if sdk.is_offline(run) else str(run.get_url())
        return sdk.id_of(run)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set parameters. Existing ones get the new value."""
        self._current_run.log_parameters(parameters)

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points."""
        self._current_run.log_series(points)

    def log_text(self, points: Sequence[Point]) -> None:
        """Add texts."""
        self._current_run.log_series(points)

    def log_files(self, upload: Upload) -> None:
        """Upload a checkpoint. With `last` and `best`, delete the previous one."""
        self._current_run.log_files(upload, keeps_one=self.log_checkpoints != "same")

    def close(self, status: Status | None) -> None:
        """Log how the training ended, and stop the run. The user's run stays open."""
        self._current_run.close(status)
        self._is_open.clear()
        self._run = None

    def wait_for_run(self, seconds: float) -> Any:
        """Return the run that another thread opens.

        Raises:
            TimeoutError: The run is not open after that many seconds.
        """
        if not self._is_open.wait(seconds):
            raise TimeoutError(f"The Neptune run is not open after {seconds:g} s.")
        return self._current_run.run

    def connection(self, run_id: str | None) -> Any:
        """Return a run for the user: the one with `run_id`, or a new one.

        Raises:
            RuntimeError: The run is offline, so it cannot be reopened.
        """
        if run_id is not None and (run_id.startswith(sdk.OFFLINE_ID) or self.mode == "offline"):
            raise RuntimeError("A stopped offline run of Neptune cannot be reopened.")
        neptune = sdk.import_neptune()
        return neptune.init_run(
            **{**arguments.QUIET, **({} if run_id else self.run_arguments)},
            mode=self.mode,
            api_token=self.api_token,
            project=self.project,
            **({"name": self.run_name} if run_id is None else {"with_id": run_id}),
        )

    @property
    def _current_run(self) -> OpenRun:
        assert self._run is not None
        return self._run

    def _describe(self, opening: Opening) -> None:
        """Add this package's version and the trial to the run."""
        self._current_run.assign({INTEGRATION_VERSION_KEY: version("callback-neptune")})
        if opening.trial_name is not None:
            trial = {"trial": opening.trial_name, "trial_params": opening.trial_parameters}
            self._current_run.log_parameters(as_parameters(trial))

    def _init_run(self, opening: Opening) -> Any:
        """Open the run to continue, the requested one, or a new one.

        Raises:
            NotConfigured: There is no API token or no project.
        """
        if self.mode != "offline":
            self._check_configured()
        name = " ".join(filter(None, (self.run_name or opening.name, opening.trial_name)))
        which: dict[str, Any] = {"name": name or None}
        before = opening.run_id
        if self.mode == "offline":
            if before is not None:
                logger.info("An offline run cannot be reopened. The training gets a new run.")
        elif before is not None and not before.startswith(sdk.OFFLINE_ID):
            which["with_id"] = before
        elif self.with_id is not None and opening.trial_name is None:
            which = {"name": self.run_name, "with_id": self.with_id}
        elif self.custom_run_id is not None and opening.trial_name is None:
            which["custom_run_id"] = self.custom_run_id
        else:
            # Note an id of our own first. If the process dies while it creates the run, the next
            # one finds the run by this id.
            which["custom_run_id"] = opening.recall("custom_run_id") or opening.note(
                "custom_run_id", str(uuid4())
            )
        if opening.trial_name is not None and (self.with_id or self.custom_run_id):
            logger.warning("The trial %s gets its own Neptune run.", opening.trial_name)
        run_arguments = self.run_arguments
        if training_process() != os.getpid():  # a replay would monitor itself
            run_arguments = {**run_arguments, **dict.fromkeys(arguments.CAPTURES, False)}
        with sdk.final_errors(which.get("with_id") if before is not None else None):
            return sdk.init_run(
                **run_arguments,
                **which,
                mode="offline" if self.mode == "offline" else "sync",
                api_token=self.api_token,
                project=self.project,
            )

    def _check_configured(self) -> None:
        """Check for a token and a project. Neptune's own check first searches for projects.

        Raises:
            NotConfigured: One of them is missing.
        """
        for what, variable, value in (
            ("API token", "NEPTUNE_API_TOKEN", arguments.api_token(self.api_token)),
            ("project", "NEPTUNE_PROJECT", self.project),
        ):
            if value is None:
                raise NotConfigured(
                    f"Neptune has no {what}: set {variable}, or NEPTUNE_MODE=offline"
                )

    def _namespace_of(self, opening: Opening) -> str:
        """Return the namespace of a training. The second one in the user's run ends in `_2`."""
        suffix = ""
        if self.given is not None:
            suffix = self._numbers.suffix(ref(self.given), opening.training)
        known = opening.recall("namespace")
        return known or opening.note("namespace", self.base_namespace + suffix)

"""`NeptuneTracker`: a run in Neptune."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from threading import Event
from typing import Any, ClassVar, Final, Literal
from uuid import uuid4

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
)
from callback_neptune import arguments, sdk
from callback_neptune.open_run import OpenRun, as_parameters

logger = logging.getLogger(__name__)

CheckpointKind = Literal["same", "last", "best"]

LIMITS: Final = Limits(batch_size=1000, parameter_length=16384, non_finite=False, text=True)
"""What Neptune takes. It would leave out NaN and infinities itself."""

INTEGRATION_VERSION_KEY: Final = "source_code/integrations/callback-neptune"
"""Where Neptune shows by which integration, and which version of it, a run was made."""


class NeptuneTracker(Tracker):
    """A run in Neptune. Its arguments are described with `NeptuneCallback`.

    Args:
        kept: Under which key this process keeps what goes to no file.

    Attributes:
        given: The run that the user has opened.
        wants_checkpoint: Whether the checkpoint that is saved next is to be uploaded.

    Raises:
        TypeError: `neptune.init_run` has no such argument.
        ValueError: A setting is wrong.
    """

    name = "neptune"
    limits = LIMITS

    _numbers: ClassVar = TrainingNumbers()
    """The trainings that went to each of the user's runs, of which it may see several."""

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
        private = arguments.kept(kept)
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
        """Whether it is only tried out, and nothing is kept."""
        return self.mode == "debug" and self.given is None

    @property
    def takes_checkpoints(self) -> bool:
        """Whether checkpoints are uploaded."""
        return self.log_checkpoints is not None and self.wants_checkpoint

    @property
    def bound_arguments(self) -> list[str]:
        """Those of the arguments of a new run that another process cannot be told."""
        told = arguments.elsewhere(self.run_arguments)
        return [name for name in self.run_arguments if name not in told]

    def settings(self) -> dict[str, Any] | None:
        """Return what makes an equal tracker elsewhere; the token is in the environment there."""
        bound = {name: self.run_arguments[name] for name in self.bound_arguments}
        private = {"api_token": self.api_token, "given": self.given, "run_arguments": bound}
        self._kept = arguments.keep(private, self._kept)
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
            **arguments.elsewhere(self.run_arguments),
        }

    def adopt(self) -> str | None:
        """Return the id of the run that the user has given."""
        run = self.given
        if run is None:
            return None
        if not sdk.is_open(run):
            if sdk.is_offline(run):
                logger.warning(
                    "The Neptune run that was given is stopped, and offline it cannot be opened "
                    "again: the training gets a run of its own."
                )
                return None
            logger.warning(
                "The Neptune run %s that was given is stopped. The training goes on in it, by a "
                "connection of its own.",
                sdk.id_of(run),
            )
        return sdk.id_of(run)

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return arguments and configuration, each in a namespace of its own."""
        if not self.keeps_parameters:
            return {}
        return as_parameters({"trainer_parameters": arguments, "model_parameters": model_config})

    def open(self, opening: Opening) -> str:
        """Use the user's run, go on in the one of before, or begin a new one."""
        given = self.given if opening.adopted else None
        if given is not None and not (sdk.is_open(given) and sdk.id_of(given) == opening.run_id):
            given = None
        run = given or self._opened(opening)
        namespace = self._namespace_of(opening) if opening.adopted else self.base_namespace
        checkpoints = {None: "", "same": "checkpoints"}.get(
            self.log_checkpoints, f"checkpoints/{self.log_checkpoints}"
        )
        self._run = OpenRun(run, given is None, namespace, checkpoints, opening.folder)
        if opening.run_id is None or opening.adopted or sdk.is_offline(run):
            try:
                self._describe(opening)
            except Exception:  # it is opened again
                if given is None:
                    sdk.stop(run)
                raise
        self._is_open.set()
        return sdk.id_of(run)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Keep parameters; where there is one of that name, it gets the new value."""
        self._opened_run.log_parameters(parameters)

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points."""
        self._opened_run.log_series(points)

    def log_text(self, points: Sequence[Point]) -> None:
        """Add texts."""
        self._opened_run.log_series(points)

    def log_files(self, upload: Upload) -> None:
        """Upload a checkpoint, and for `last` and `best` delete the one before."""
        self._opened_run.log_files(upload, keeps_one=self.log_checkpoints != "same")

    def close(self, status: Status | None) -> None:
        """Say how the training ended, and stop the run; the user's stays open."""
        self._opened_run.close(status)
        self._is_open.clear()
        self._run = None

    def wait_for_run(self, seconds: float) -> Any:
        """Return the run that another thread opens.

        Raises:
            TimeoutError: It is not open by then.
        """
        if not self._is_open.wait(seconds):
            raise TimeoutError(f"The Neptune run is not open after {seconds:g} s.")
        return self._opened_run.run

    def connection(self, run_id: str | None) -> Any:
        """Return a run for the user: the one with `run_id`, or a new one.

        Raises:
            RuntimeError: It is offline, where a run cannot be opened again.
        """
        if run_id is not None and (run_id.startswith(sdk.OFFLINE_ID) or self.mode == "offline"):
            raise RuntimeError("Offline, a Neptune run that is stopped cannot be opened again.")
        neptune = sdk.imported_neptune()
        return neptune.init_run(
            **{**arguments.QUIET, **({} if run_id else self.run_arguments)},
            mode=self.mode,
            api_token=self.api_token,
            project=self.project,
            **({"name": self.run_name} if run_id is None else {"with_id": run_id}),
        )

    @property
    def _opened_run(self) -> OpenRun:
        assert self._run is not None
        return self._run

    def _describe(self, opening: Opening) -> None:
        """Tell a new run, or the user's, what comes here."""
        self._opened_run.assign({INTEGRATION_VERSION_KEY: version("callback-neptune")})
        if opening.trial_name is not None:
            trial = {"trial": opening.trial_name, "trial_params": opening.trial_parameters}
            self._opened_run.log_parameters(as_parameters(trial))

    def _opened(self, opening: Opening) -> Any:
        """Return the run of before, the one that was asked for, or a new one.

        Raises:
            NotConfigured: There is no API token, or no project.
        """
        if self.mode != "offline":
            self._check_configured()
        name = " ".join(filter(None, (self.run_name or opening.name, opening.trial_name)))
        which: dict[str, Any] = {"name": name or None}
        before = opening.run_id
        if self.mode == "offline":
            if before is not None:
                logger.info("Offline, a run cannot be opened again: what follows is another one.")
        elif before is not None and not before.startswith(sdk.OFFLINE_ID):
            which["with_id"] = before
        elif self.with_id is not None and opening.trial_name is None:
            which = {"name": self.run_name, "with_id": self.with_id}
        elif self.custom_run_id is not None and opening.trial_name is None:
            which["custom_run_id"] = self.custom_run_id
        else:
            # By an id of our own a run is found again that was made, and nobody has heard of it.
            which["custom_run_id"] = opening.recall("custom_run_id") or opening.note(
                "custom_run_id", str(uuid4())
            )
        if opening.trial_name is not None and (self.with_id or self.custom_run_id):
            logger.warning("The trial %s gets a Neptune run of its own.", opening.trial_name)
        return sdk.opened(
            **self.run_arguments,
            **which,
            mode="offline" if self.mode == "offline" else "sync",
            api_token=self.api_token,
            project=self.project,
        )

    def _check_configured(self) -> None:
        """Raise where Neptune would, in other words and after it has looked for projects."""
        for what, variable, value in (
            ("API token", "NEPTUNE_API_TOKEN", arguments.api_token(self.api_token)),
            ("project", "NEPTUNE_PROJECT", self.project),
        ):
            if value is None:
                raise NotConfigured(
                    f"Neptune has no {what}: set {variable}, or NEPTUNE_MODE=offline"
                )

    def _namespace_of(self, opening: Opening) -> str:
        """Return the namespace of a training: in a run of the user's, the second's ends in `_2`."""
        suffix = ""
        if self.given is not None:
            suffix = self._numbers.suffix(sdk.id_of(self.given), opening.training)
        known = opening.recall("namespace")
        return known or opening.note("namespace", self.base_namespace + suffix)

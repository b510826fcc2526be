"""`WandbTracker`: a run in Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from callback_core.tracking import (
    Limits,
    Opening,
    Point,
    Rejected,
    Status,
    Tracker,
    Upload,
    summary_name,
)
from callback_wandb import sdk, settings
from callback_wandb.rows import Rows
from callback_wandb.versions import fitting, log_version

AXIS: Final = "train/global_step"
"""The metric on the x axis of all curves."""

_LONGEST_WAIT_OFFLINE: Final = 60.0

_EXIT_CODE: Final[dict[Status, int]] = {"finished": 0, "failed": 1, "interrupted": 255}


class WandbTracker(Tracker):
    """A run in Weights & Biases. `WandbCallback` documents the other arguments.

    Args:
        facts: Facts about the model, for the run's configuration.

    Attributes:
        in_search: Whether the training is a trial of a search, which gets its own run.

    Raises:
        ValueError: A setting is invalid.
    """

    name = "wandb"
    requires: Mapping[str, str] = MappingProxyType({"wandb": "wandb"})
    sdk = "wandb"
    limits = Limits(text=True, reserved=(AXIS,))

    def __init__(
        self,
        *,
        project: str | None = None,
        log_model: str | bool | None = None,
        watch: str | bool | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.project = settings.project(project)
        self._given_project = project
        self.log_model = settings.log_model(log_model)
        self.watch = settings.watch(watch)
        self.facts = dict(facts or {})
        self.in_search = False
        self._disabled = settings.disabled()
        settings.check_tags()
        self._connection: sdk.Connection | None = None
        self._run: Any = None
        self._is_shared = False
        self._opening: Opening
        self._rows: Rows

    @property
    def disabled(self) -> bool:
        """Whether the environment disables W&B."""
        return self._disabled

    @property
    def run(self) -> Any:
        """The run if it is open in this process, else `None`."""
        run = self._run
        return None if run is None or sdk.is_finished(run) else run

    @property
    def keeps_open(self) -> bool:
        """Whether the run is offline. Each opening of an offline run makes a new folder."""
        return self.run is not None and bool(self.run.offline)

    @property
    def prints_url(self) -> bool:
        """Return `True`: the SDK prints the address, unless `WANDB_SILENT` is set."""
        return True

    @property
    def longest_wait(self) -> float:
        """How long the first step waits for the run. Offline, no server makes it wait longer."""
        return _LONGEST_WAIT_OFFLINE if sdk.is_offline() else super().longest_wait

    @property
    def in_order(self) -> bool:
        """Whether the program may log to the open run as well."""
        return self._is_shared and self.run is not None

    @property
    def takes_checkpoints(self) -> bool:
        """Whether each checkpoint becomes a version of the model."""
        return self.log_model == "checkpoint"

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments of an equal tracker, with the project that the program chose."""
        return {
            "project": self._given_project or sdk.chosen_project() or self.project,
            "log_model": self.log_model,
            "watch": self.watch,
            "facts": self.facts,
        }

    def adopt(self) -> str | None:
        """Return the path of the user's open run, if there is one."""
        run = None if self.in_search else sdk.user_run()
        return None if run is None else sdk.path_of(run)

    def begin(self) -> None:
        """Note whether the program may log to the run as well."""
        self._is_shared = sdk.is_imported()

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return facts, model configuration and arguments. Of two equal names, the last counts."""
        return {**self.facts, **model_config, **arguments}

    def open(self, opening: Opening) -> str:
        """Use the user's run, continue an earlier one, or open a new one.

        Raises:
            RunNotFound: The server does not have the run to continue.
            Rejected: The server refuses the run or denies access.
        """
        self._opening = opening
        self._rows = Rows(opening.folder / "rows.jsonl")
        with self._open_run() as run:
            self.run_url = run.url or None
            return sdk.path_of(run)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Update the run's configuration. Other entries stay."""
        with self._open_run() as run:
            run.config.update(dict(parameters), allow_val_change=True)

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points. Those that were logged together become one row of the run's history.

        If the program may log to the run too, they are added to the row that it has begun.
        """
        with self._open_run() as run:
            for (step, time), same in groupby(points, key=lambda point: (point.step, point.time)):
                row = {point.name: point.value for point in same}
                with _rejects_invalid():
                    self._rows.log(
                        run, {**row, AXIS: step, "_timestamp": time}, merge=self._is_shared
                    )

    log_text = log_metrics

    def takes(self, value: Any) -> bool:
        """Return whether `value` is of the SDK's own types, such as a table or a picture."""
        if isinstance(value, (list, tuple)):
            return bool(value) and all(self.takes(part) for part in value)
        return type(value).__module__.partition(".")[0] == "wandb"

    def log_objects(self, points: Sequence[Point]) -> None:
        """Add tables, pictures and the like to the row that is begun."""
        with self._open_run() as run:
            for (step, time), same in groupby(points, key=lambda point: (point.step, point.time)):
                values = {point.name: point.value for point in same}
                with _rejects_invalid():
                    self._rows.add(run, {**values, AXIS: step}, time)

    def log_summary(self, points: Sequence[Point]) -> None:
        """Set values in the run's summary, without the prefix `train/`."""
        values = {summary_name(point.name): point.value for point in points}
        with self._open_run() as run:
            run.summary.update(values)

    def log_files(self, upload: Upload) -> None:
        """Add a version of the model, and wait until the server has it."""
        with self._open_run() as run:
            log_version(run, f"model-{(_run_name(self._opening) and run.name) or run.id}", upload)

    def close(self, status: Status | None) -> None:
        """Send the remaining data, and finish the run. The user's run stays open."""
        with self._open_run() as run:
            if self._connection is not None:
                self._rows.end_begun(run)
                next_number = run.step if run.offline else None  # not available after `finish`
                try:
                    run.finish(exit_code=_EXIT_CODE[status or "finished"])
                finally:
                    self._disconnect()
                self._rows.forget(next_number)
        self._run = None

    def release(self) -> None:
        """Remove the run from `wandb.run`, even if it hangs."""
        if self._connection is not None:
            sdk.hide(self._run)

    @contextmanager
    def _open_run(self) -> Iterator[Any]:
        """Yield the open run. Reopen it if it is finished or its process is gone."""
        try:
            if self.run is None:
                before = self._connection
                self._attach()
                if before is not None:
                    before.leave()  # not earlier: other code may still be finishing the run
            yield self._run
        except Exception as error:
            if sdk.is_lost(error):
                self._disconnect(lost=True)
            raise

    def _disconnect(self, *, lost: bool = False) -> None:
        if lost:
            self.release()  # so that the next run becomes `wandb.run`
        connection, self._connection, self._run = self._connection, None, None
        if connection is not None:
            connection.leave(lost=lost)

    def _attach(self) -> None:
        opening, run = self._opening, sdk.user_run()
        if opening.adopted and run is not None and sdk.path_of(run) == opening.run_id:
            self._run, self._connection = run, None
        else:
            self._connection = sdk.Connection(
                opening.output_dir,
                new=opening.run_id is None,
                adopted=opening.adopted,
                **self._arguments(opening),
            )
            self._run = self._connection.run
            self._rows.log_again(self._run)
        self._run.define_metric(AXIS)
        self._run.define_metric("*", step_metric=AXIS, step_sync=True)

    def _arguments(self, opening: Opening) -> dict[str, Any]:
        """Return the arguments of `wandb.init` that identify the run."""
        if opening.run_id is not None:
            *owner, project, run_id = opening.run_id.split("/")
            return {"entity": owner[0] if owner else None, "project": project, "id": run_id}
        # A fixed id, so that the run is found again if the process dies while it opens the run.
        run_id = opening.folder.parent.name + opening.folder.name.removeprefix(self.name)
        project = self._given_project or sdk.chosen_project() or self.project
        arguments: dict[str, Any] = {"project": project, "id": fitting(run_id)}
        name = _run_name(opening)
        if opening.trial_name is not None:
            arguments |= {"name": opening.trial_name, "group": name or str(opening.output_dir)}
        elif name:
            arguments["name"] = name
        return arguments


def _run_name(opening: Opening) -> str | None:
    """Return the run's name; `None` if it is only the output directory, transformers' default."""
    if not opening.name or Path(opening.name).absolute() == opening.output_dir:
        return None
    return opening.name


@contextmanager
def _rejects_invalid() -> Iterator[None]:
    """Raise `Rejected` for values that no row can hold, such as half a surrogate pair."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise Rejected(str(error)) from error

"""`WandbTracker`: a run in Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Limits, Opening, Point, Rejected, Status, Tracker, Upload
from callback_wandb import sdk, settings
from callback_wandb.rows import Rows
from callback_wandb.versions import fitting, log_version

AXIS: Final = "train/global_step"
"""The metric that all curves are drawn over."""

_EXIT_CODE: Final[dict[Status, int]] = {"finished": 0, "failed": 1, "interrupted": 255}


class WandbTracker(Tracker):
    """A run in Weights & Biases. Its arguments are described with `WandbCallback`.

    Args:
        project: See there.
        log_model: See there.
        watch: See there.
        facts: What is known of the model, for the run's configuration.

    Attributes:
        in_search: Whether the training is a trial of a search, which has a run of its own.

    Raises:
        ValueError: A setting is wrong.
    """

    name = "wandb"
    needs = "wandb"
    limits = Limits(text=True)

    def __init__(
        self,
        *,
        project: str | None = None,
        log_model: str | bool | None = None,
        watch: str | bool | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.project = settings.project(project)
        self.log_model = settings.log_model(log_model)
        self.watch = settings.watch(watch)
        self.facts = dict(facts or {})
        self.in_search = False
        self._run: Any = None
        self._is_ours = True
        self._opening: Opening
        self._rows: Rows

    @property
    def run(self) -> Any:
        """The run, if it is open in this process."""
        run = self._run
        return None if run is None or sdk.is_finished(run) else run

    @property
    def takes_checkpoints(self) -> bool:
        """Whether each checkpoint becomes a version of the model."""
        return self.log_model == "checkpoint"

    def settings(self) -> dict[str, Any] | None:
        """Return what makes an equal tracker elsewhere."""
        return {
            "project": self.project,
            "log_model": self.log_model,
            "watch": self.watch,
            "facts": self.facts,
        }

    def adopt(self) -> str | None:
        """Return the path of the run that the user has opened, if there is one."""
        run = None if self.in_search else sdk.run_of_user()
        return None if run is None else sdk.path_of(run)

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return all of them, those of the arguments where both have one of a name."""
        return {**self.facts, **model_config, **arguments}

    def open(self, opening: Opening) -> str:
        """Open the run of before or a new one, or go on in that of the user."""
        self._opening = opening
        self._rows = Rows(opening.folder / "rows.jsonl")
        return sdk.path_of(self._attached())

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set the run's configuration."""
        self._usable().config.update(dict(parameters), allow_val_change=True)

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add the points of one moment as one row of the run's history."""
        run = self._usable()
        for (step, time), same in groupby(points, key=lambda point: (point.step, point.time)):
            row = {point.name: point.value for point in same}
            with _rejecting():
                self._rows.log(run, {**row, AXIS: step, "_timestamp": time})

    log_text = log_metrics

    def log_summary(self, points: Sequence[Point]) -> None:
        """Put values that a training has one of into the run's summary, under their own names."""
        values = {point.name.removeprefix("train/"): point.value for point in points}
        self._usable().summary.update(values)

    def log_files(self, upload: Upload) -> None:
        """Add a version of the model, and wait until the server has it."""
        run = self._usable()
        log_version(run, f"model-{(_name(self._opening) and run.name) or run.id}", upload)

    def close(self, status: Status | None) -> None:
        """Have the server take what is left, and end the run; leave one of the user's open."""
        run = self._usable()
        if status is not None or self._is_ours:
            going_on_at = run.step if run.offline else None  # which it does not say once finished
            run.finish(exit_code=_EXIT_CODE[status or "finished"])
            self._rows.forget(going_on_at)
            sdk.leave()
        self._run = None

    def release(self) -> None:
        """Leave nothing of the run in the process, even where it hangs."""
        if self._is_ours:
            sdk.hide(self._run)

    def _usable(self) -> Any:
        """Return the run, opened again where it was finished: by the user, or in vain by us."""
        return self.run or self._attached()

    def _attached(self) -> Any:
        opening, run = self._opening, sdk.run_of_user()
        if opening.adopted and run is not None and sdk.path_of(run) == opening.run_id:
            self._run, self._is_ours = run, False
        else:
            self._is_ours = True  # the connection; the run may be the user's still
            self._run = sdk.open_run(
                opening.output_dir, others=opening.adopted, **self._arguments(opening)
            )
            self._rows.log_again(self._run)
        self._run.define_metric(AXIS)
        self._run.define_metric("*", step_metric=AXIS, step_sync=True)
        return self._run

    def _arguments(self, opening: Opening) -> dict[str, Any]:
        """Return the arguments of `wandb.init` that say which run, new or not, it is."""
        if opening.run_id is not None:
            *owner, project, run_id = opening.run_id.split("/")
            return {"entity": owner[0] if owner else None, "project": project, "id": run_id}
        # By this it is found again if the training is killed while it is opened.
        made = opening.folder.parent.name + opening.folder.name.removeprefix(self.name)
        arguments: dict[str, Any] = {"project": self.project, "id": fitting(made), "new": True}
        name = _name(opening)
        if opening.trial_name is not None:
            arguments |= {"name": opening.trial_name, "group": name or str(opening.output_dir)}
        elif name:
            arguments["name"] = name
        return arguments


def _name(opening: Opening) -> str | None:
    """Return the run's name; `None` where it is but the directory, as transformers had it."""
    if not opening.name or Path(opening.name).absolute() == opening.output_dir:
        return None
    return opening.name


@contextmanager
def _rejecting() -> Iterator[None]:
    """Tell what no row can hold, such as half a surrogate pair, from what fails for now."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise Rejected(str(error)) from error

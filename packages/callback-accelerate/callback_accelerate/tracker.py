"""`CallbackTracker`: a tracker of Accelerate that records through a callback."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from callback_accelerate.media import pictures, table
from callback_accelerate.run import Run
from callback_core import TrainerCallback


class CallbackTracker(GeneralTracker):
    """A tracker of Accelerate that records through a callback, with the others of its run.

    Nothing that it does makes the training wait or fail. `make_trackers` and `register_trackers`
    make these.

    Args:
        name: The name by which `accelerator.get_tracker` finds it.
        callback: The callback.
        run: The run that it records.

    Attributes:
        name: The name. It differs from the argument if another tracker of the run has that name.
        run: The run.
    """

    name: str
    requires_logging_directory = True
    main_process_only = True

    def __init__(self, name: str, callback: TrainerCallback, run: Run) -> None:
        self.run = run
        self._callback = callback
        self.name = run.add(name, callback, self)
        super().__init__()

    @property
    def tracker(self) -> Any:
        """The callback, which knows the run in the tracker: `run_id`, `run_url`."""
        return self._callback

    @on_main_process
    def start(self) -> None:
        """Prepare for a training. Its run begins with the first log."""
        self.run.start()

    @on_main_process
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Keep the parameters of the run."""
        self.run.configure(values)

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record values. All trackers of the run get them, each once.

        Args:
            values: Numbers and texts, by name.
            step: The step; by default that of the log before. If no log had a step, it is the
                number of the log.
            kwargs: Ignored. A warning names them.
        """
        if kwargs:
            self.run.tell(f"{self.name} does not use the log_kwargs {', '.join(kwargs)}.")
        self.run.log(self, values, step)

    @on_main_process
    def log_images(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record pictures if the tracker takes them. Otherwise, a warning says that it does not.

        Args:
            values: By name, a picture, a list of pictures, or an array with 4 axes, whose first
                counts the pictures. A picture is what `wandb.Image` or `mlflow.Image` takes.
            step: As in `log`.
            kwargs: Passed to the SDK's type.
        """
        made = pictures(self._sdk, values, kwargs)
        if made is None:
            self.run.tell(f"{self.name} takes no pictures, so it does not get {', '.join(values)}.")
        else:
            self.run.log(self, made, step)

    @on_main_process
    def log_table(
        self,
        table_name: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Record a table if the tracker takes tables. Otherwise, a warning says that it does not.

        Args:
            table_name: The name.
            columns: The names of the columns.
            data: The rows.
            dataframe: A data frame, instead of `columns` and `data`.
            step: As in `log`.
            kwargs: Passed to the SDK's type.
        """
        made = table(self._sdk, columns, data, dataframe, kwargs)
        if made is None:
            self.run.tell(f"{self.name} takes no tables, so it does not get {table_name}.")
        else:
            self.run.log(self, {table_name: made}, step)

    @on_main_process
    def finish(self) -> None:
        """End the run for all its trackers.

        In a `finally` or `except` clause after an error, the run ends as failed.
        """
        error = sys.exception()
        is_error = not isinstance(error, SystemExit) or bool(error.code)
        self.run.end(error if is_error else None)

    @property
    def _sdk(self) -> str | None:
        """The name of the tracker that the callback sends to."""
        return getattr(getattr(self._callback, "tracker", None), "name", None)

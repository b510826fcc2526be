"""`CodeCarbonCallback`: measures a training, and logs the measurements to its trackers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from callback_codecarbon.meter import Meter, Reading
from callback_codecarbon.settings import MeterSettings
from callback_core import (
    CallbackArguments,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    output_directory,
)
from callback_core.tracking import Session, check_sdk, session_of

logger = logging.getLogger(__name__)


class CodeCarbonCallback(TrainerCallback):
    """Measures the energy and emissions of a training with CodeCarbon, once on each machine.

    A meter runs in its own thread while the training runs. CodeCarbon writes its file to
    `output_dir`. After each measurement, the training's trackers receive `emissions_kg`,
    `energy_kwh` and `power_watts`; at the end, `total_emissions_kg` and `total_energy_kwh`. This
    applies to trackers that are built on `callback_core.tracking`, and to the machine of the main
    process. A resumed training adds to the totals of its checkpoint.

    Each setting defaults to the environment variable named with it, or to CodeCarbon's own files.

    Args:
        offline: Whether to avoid the network; `CODECARBON_OFFLINE`. The default is `True` if a
            country is set.
        country_iso_code: The machine's country, such as `SWE`; `CODECARBON_COUNTRY_ISO_CODE`.
        measure_power_secs: Seconds between two measurements; `CODECARBON_MEASURE_POWER_SECS`.
        tracking_mode: What to measure: `machine` or `process`; `CODECARBON_TRACKING_MODE`.
        settings: Further arguments of CodeCarbon's `EmissionsTracker`.
        stop_limit: Seconds that the end of training waits for the last measurement.

    Raises:
        ModuleNotFoundError: CodeCarbon is not installed.
        ValueError: A setting is invalid.
    """

    on_error = "isolate"

    def __init__(
        self,
        *,
        offline: bool | None = None,
        country_iso_code: str | None = None,
        measure_power_secs: float | None = None,
        tracking_mode: str | None = None,
        settings: Mapping[str, Any] | None = None,
        stop_limit: float = 10.0,
    ) -> None:
        if not stop_limit >= 0:
            raise ValueError(f"stop_limit is {stop_limit!r}, it must be seconds, 0 or more.")
        check_sdk("codecarbon", install="codecarbon", needed_by=type(self).__name__)
        self.settings = MeterSettings.read(
            offline, country_iso_code, measure_power_secs, tracking_mode, settings or {}
        )
        self.stop_limit = stop_limit
        self._meter: Meter | None = None
        self._logged: Reading | None = None
        self._session: Session | None = None
        self._before = self._resumed = Reading()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which measures nothing before a training begins with it."""
        return {**self.__dict__, "_meter": None, "_session": None}

    def state_dict(self) -> dict[str, float]:
        """Return the totals so far. A resumed training adds to them."""
        emissions, energy = self._totals()
        return {"emissions_kg": emissions, "energy_kwh": energy}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the totals of `state_dict`. The next training adds to them."""
        totals = (float(state.get(name, 0.0)) for name in ("emissions_kg", "energy_kwh"))
        self._before = self._resumed = Reading(*totals)
        self._logged = None

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to measure."""
        if self._meter is not None:  # the previous loop raised without an event
            self._meter.stop(self.stop_limit)
            self._meter = None
        self._before, self._resumed, self._logged = self._resumed, Reading(), None
        if state.is_local_process_zero:
            self._meter = Meter(self.settings, Path(output_directory(args)), args.run_name)

    def on_epoch_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Arrange to stop before the trackers close their runs, in any order of the callbacks."""
        session = session_of(state)
        if self._meter is not None and session is not None and self._session is not session:
            self._session = session
            session.before_end(lambda status: self._stop(state))

    def on_step_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log a new measurement, if there is one."""
        if self._meter is not None and self._meter.latest is not self._logged:
            self._logged = self._meter.latest
            emissions, energy = self._totals()
            values = {"emissions_kg": emissions, "energy_kwh": energy}
            if self._logged is not None:
                values["power_watts"] = self._logged.power_watts
            _log(state, values)

    def on_exception(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop measuring while the trackers' runs are still open."""
        self._stop(state)

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop measuring."""
        self._stop(state)

    def _stop(self, state: TrainerState) -> None:
        """Stop the meter, and log the totals."""
        if self._meter is None:
            return
        meter, self._meter = self._meter, None
        self._logged = meter.stop(self.stop_limit)
        if self._logged is None:
            return
        emissions, energy = self._totals()
        logger.info("Training used %.3g kWh: %.3g kg of CO2 equivalents.", energy, emissions)
        values = {"total_emissions_kg": emissions, "total_energy_kwh": energy}
        _log(state, values, summary=True)

    def _totals(self) -> tuple[float, float]:
        """Return emissions and energy, including those before the training was resumed."""
        before, now = self._before, self._logged
        if self._meter is not None:
            now = self._meter.latest
        now = now or Reading()
        return before.emissions_kg + now.emissions_kg, before.energy_kwh + now.energy_kwh


def _log(state: TrainerState, values: dict[str, Any], summary: bool = False) -> None:
    """Log `values` to all trackers of the training."""
    session = session_of(state) if state.is_world_process_zero else None
    if session is not None:
        session.log(values, epoch=state.epoch, summary=summary)

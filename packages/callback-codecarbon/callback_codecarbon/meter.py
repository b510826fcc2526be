"""`Meter`: runs CodeCarbon's tracker in its own thread, so that the training does not wait."""

from __future__ import annotations

import atexit
import logging
import os
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, Final, NamedTuple

from callback_codecarbon.settings import MeterSettings
from callback_core.tracking import import_sdk

logger = logging.getLogger(__name__)

_LIVE_OUTPUT: Final = frozenset(
    {"api_call_interval", "emissions_endpoint", "output_methods"}
    | {f"save_to_{where}" for where in ("api", "logger", "prometheus", "logfire")}
)
"""Settings of live outputs. The reporting interval applies to them too, so it stays the user's."""


class Reading(NamedTuple):
    """A measurement, counted from the start of the meter.

    Attributes:
        emissions_kg: Emissions in kilograms of CO2 equivalents.
        energy_kwh: Energy in kilowatt-hours.
        power_watts: The mean power of CPU, GPU and memory together, in watts.
    """

    emissions_kg: float = 0.0
    energy_kwh: float = 0.0
    power_watts: float = 0.0


class Meter:
    """Measures from its construction until `stop`.

    CodeCarbon takes seconds to inspect the machine, and may wait for the network. Both happen in
    the meter's thread.

    Args:
        settings: How to measure.
        output_dir: The directory of CodeCarbon's file, unless CodeCarbon's settings name another.
        run_name: The project's name in that file, unless CodeCarbon's settings name another.

    Attributes:
        latest: The last measurement; `None` before the first.
    """

    def __init__(self, settings: MeterSettings, output_dir: Path, run_name: str | None) -> None:
        self.latest: Reading | None = None
        self._settings, self._output_dir, self._run_name = settings, output_dir, run_name
        self._end = Event()
        self._thread = Thread(target=self._run, name="CodeCarbon's meter", daemon=True)
        atexit.register(self.stop)  # in case the loop raises without an event
        self._thread.start()

    def stop(self, limit: float = 10.0) -> Reading | None:
        """Measure a last time, stop, and return the last measurement, or `None`.

        Args:
            limit: Seconds to wait. After that, the meter's thread is abandoned.
        """
        atexit.unregister(self.stop)
        self._end.set()
        deadline = monotonic() + limit
        while self._thread.is_alive() and monotonic() < deadline:
            self._thread.join(min(0.5, max(0.0, deadline - monotonic())))
        if self._thread.is_alive():
            logger.warning("CodeCarbon did not stop within %g s. Its thread is abandoned.", limit)
        return self.latest

    def _run(self) -> None:
        try:
            tracker = self._make_tracker()
            tracker.start()
            self._end.wait()
            tracker.stop()
            if self.latest is None:  # CodeCarbon only logs its errors
                logger.warning("CodeCarbon measured nothing; see its log for the reason.")
        except Exception as error:
            logger.warning("CodeCarbon failed. Training continues.", exc_info=error)

    def _make_tracker(self) -> Any:
        """Return a tracker of CodeCarbon that reports to this meter."""
        codecarbon = import_sdk("codecarbon", install="codecarbon", needed_by="CodeCarbonCallback")
        config = import_module("codecarbon.core.config").get_hierarchical_config()
        arguments = dict(self._settings.arguments)
        user_set = config.keys() | arguments.keys()
        defaults: dict[str, Any] = {"output_dir": str(self._output_dir)}
        if self._run_name:
            defaults["project_name"] = self._run_name
        if user_set.isdisjoint(_LIVE_OUTPUT):
            defaults["api_call_interval"] = 1  # report each measurement, to this meter only
        if "log_level" not in user_set:
            defaults["log_level"] = "error"
            logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it logs before it is set up
        arguments |= {name: value for name, value in defaults.items() if name not in user_set}
        if "output_dir" not in user_set:
            self._output_dir.mkdir(parents=True, exist_ok=True)
        elif given := arguments.get("output_dir", config.get("output_dir")):
            arguments["output_dir"] = os.path.expanduser(given)  # CodeCarbon does not do that
        arguments["output_handlers"] = [*arguments.get("output_handlers", ()), self._handler()]
        offline = self._settings.offline
        kind = codecarbon.OfflineEmissionsTracker if offline else codecarbon.EmissionsTracker
        return kind(**arguments)

    def _handler(self) -> Any:
        """Return an output handler that stores CodeCarbon's reports in `latest`."""
        meter = self
        base: Any = import_module("codecarbon.output").BaseOutput

        class MeterOutput(base):
            def out(self, total: Any, delta: Any) -> None:
                power = total.cpu_power + total.gpu_power + total.ram_power
                meter.latest = Reading(total.emissions, total.energy_consumed, power)

            live_out = out

        return MeterOutput()

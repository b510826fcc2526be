"""`Meter`: CodeCarbon's tracker in a thread of its own, which the training does not wait for."""

from __future__ import annotations

import atexit
import logging
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, Final, NamedTuple

from callback_codecarbon.settings import MeterSettings
from callback_core.tracking import import_sdk

logger = logging.getLogger(__name__)

_SENDS_LIVE: Final = frozenset(
    {"api_call_interval", "emissions_endpoint", "output_methods"}
    | {f"save_to_{where}" for where in ("api", "logger", "prometheus", "logfire")}
)
"""Settings with which the interval of what is reported is the user's: others are told in it too."""


class Reading(NamedTuple):
    """What was measured since a meter began.

    Attributes:
        emissions_kg: Kilograms of CO2 equivalents.
        energy_kwh: Kilowatt hours.
        power_watts: The mean power of CPU, GPU and memory together.
    """

    emissions_kg: float = 0.0
    energy_kwh: float = 0.0
    power_watts: float = 0.0


class Meter:
    """Measures from when it is made until it is stopped.

    CodeCarbon takes seconds to look at the machine, and may wait for the network: it does so
    beside the training. It writes its own results where the user's settings of it say so.

    Args:
        settings: How to measure.
        output_dir: Where CodeCarbon writes its file, unless it is told otherwise.
        run_name: The name of the project in that file, unless it is told otherwise.
    """

    def __init__(self, settings: MeterSettings, output_dir: Path, run_name: str | None) -> None:
        self.latest: Reading | None = None
        self._settings, self._output_dir, self._run_name = settings, output_dir, run_name
        self._end = Event()
        self._thread = Thread(target=self._run, name="CodeCarbon's meter", daemon=True)
        atexit.register(self.stop)  # where the loop raises and does not say that training ended
        self._thread.start()

    def stop(self, limit: float = 10.0) -> Reading | None:
        """Measure a last time and stop; return what was measured, `None` where nothing was.

        Args:
            limit: Seconds to wait for that. A meter that does not come back is left alone.
        """
        atexit.unregister(self.stop)
        self._end.set()
        deadline = monotonic() + limit
        while self._thread.is_alive() and monotonic() < deadline:
            self._thread.join(min(0.5, max(0.0, deadline - monotonic())))
        if self._thread.is_alive():
            logger.warning("CodeCarbon has not come back in %g s and is left alone.", limit)
        return self.latest

    def _run(self) -> None:
        try:
            tracker = self._made()
            tracker.start()
            self._end.wait()
            tracker.stop()
            if self.latest is None:  # it keeps its errors to itself, but for its own log
                logger.warning("CodeCarbon has measured nothing; its log says why.")
        except Exception as error:
            logger.warning("CodeCarbon does not measure. Training goes on.", exc_info=error)

    def _made(self) -> Any:
        """Return CodeCarbon's tracker, which reports to this."""
        codecarbon = import_sdk("codecarbon", install="codecarbon", needed_by="CodeCarbonCallback")
        config = import_module("codecarbon.core.config").get_hierarchical_config()
        arguments = dict(self._settings.arguments)
        known = config.keys() | arguments.keys()
        defaults: dict[str, Any] = {"output_dir": str(self._output_dir)}
        if self._run_name:
            defaults["project_name"] = self._run_name
        if known.isdisjoint(_SENDS_LIVE):
            defaults["api_call_interval"] = 1  # each measurement is reported, here alone
        if "log_level" not in known:
            defaults["log_level"] = "error"
            logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it talks before it is told
        arguments |= {name: value for name, value in defaults.items() if name not in known}
        if "output_dir" not in known:
            self._output_dir.mkdir(parents=True, exist_ok=True)
        arguments["output_handlers"] = [*arguments.get("output_handlers", ()), self._outlet()]
        offline = self._settings.offline
        kind = codecarbon.OfflineEmissionsTracker if offline else codecarbon.EmissionsTracker
        return kind(**arguments)

    def _outlet(self) -> Any:
        """Return what CodeCarbon reports to."""
        meter = self
        base: Any = import_module("codecarbon.output").BaseOutput

        class Outlet(base):
            def out(self, total: Any, delta: Any) -> None:
                power = total.cpu_power + total.gpu_power + total.ram_power
                meter.latest = Reading(total.emissions, total.energy_consumed, power)

            live_out = out

        return Outlet()

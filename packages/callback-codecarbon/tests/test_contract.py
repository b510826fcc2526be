"""The callback passes the contract of training callbacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from callback_codecarbon import CodeCarbonCallback
from callback_contract import CallbackContract, Deviation, Setting


class TestContract(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset({"sdk", "state", "settings"})
    settings = (
        Setting.flag("offline", "CODECARBON_OFFLINE"),
        Setting(
            "country_iso_code",
            "CODECARBON_COUNTRY_ISO_CODE",
            None,
            [("FRA", "FRA"), ("fra", "FRA")],
            [("swe", "SWE")],
            ("Sweden", "46"),
            (46, ""),
            ("three letters",),
        ),
        Setting(
            "measure_power_secs",
            "CODECARBON_MEASURE_POWER_SECS",
            None,
            [("30", 30.0), ("0.5", 0.5)],
            [(2, 2.0)],
            ("often", "0"),
            (-1, "x"),
            ("seconds",),
        ),
        Setting(
            "tracking_mode",
            "CODECARBON_TRACKING_MODE",
            None,
            [("machine", "machine"), ("PROCESS", "process")],
            [("process", "process")],
            ("gpu",),
            ("gpu", 1),
            ("machine", "process"),
        ),
    )
    deviations = {  # noqa: RUF012
        "RNK-001": Deviation("each machine is measured and adds its own row"),
    }
    module = "callback_codecarbon"
    sdk = "codecarbon"

    def make(self, output_dir: Path) -> Any:
        return CodeCarbonCallback(country_iso_code="SWE", stop_limit=60)

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        """Return the settings of a callback in a cloud, which needs no country."""
        made = CodeCarbonCallback(settings={"cloud_provider": "gcp"}, **arguments).settings
        read = {one.argument: made.arguments.get(one.argument) for one in self.settings}
        return SimpleNamespace(**{**read, "offline": made.offline})

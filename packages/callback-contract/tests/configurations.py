"""The reference tracker as others are: how it is delivered to, and what it can take."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from reference_tracker import FileTracker, Reference, ReferenceCallback

from callback_contract import CallbackContract, Setting
from callback_core import TrainerCallback
from callback_core.tracking import Limits, import_sdk, settings


class InlineCallback(ReferenceCallback):
    """Is delivered to by the training's own thread."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, delivery="inline", **settings)


class Inline(Reference):
    """The reference, delivered to by the training's own thread."""

    __test__ = False
    callback = InlineCallback


class PlainTracker(FileTracker):
    """Forgets nothing, and takes neither text nor what is not finite, a few points at a time."""

    name: ClassVar[str] = "plain"
    limits = Limits(
        batch_size=3,
        parameter_length=120,
        parameter_count=60,
        key_characters=r"\w/",
        key_length=40,
        non_finite=False,
    )
    rewinds: ClassVar[bool] = False
    takes_checkpoints = False


class Plain(Reference):
    """A tracker that can do little."""

    __test__ = False
    tracker = PlainTracker
    capabilities = Reference.capabilities - {"rewinds", "non_finite", "text", "files"}

    def stored_name(self, name: str) -> str:
        return super().stored_name(name)[:40]


class Settled(TrainerCallback):
    """Has a setting of each kind."""

    def __init__(self, **given: Any) -> None:
        known = {name: given.pop(name, None) for name, *_ in SETTINGS}
        self.word = settings.text("word", known["word"], "CONTRACT_WORD")
        self.color = settings.matching(
            "color", known["color"], "CONTRACT_COLOR", "#[0-9a-f]{6}", "a color such as #00ff00"
        )
        self.mode = settings.choice("mode", known["mode"], "CONTRACT_MODE", ("Online", "off"))
        self.asked = settings.flag("asked", known["asked"], "CONTRACT_ASKED")
        self.most = settings.count("most", known["most"], "CONTRACT_MOST")
        self.limit = settings.seconds("limit", known["limit"], "CONTRACT_LIMIT")
        self.folder = settings.directory("folder", known["folder"], "CONTRACT_FOLDER")
        self.more = settings.mapping("more", known["more"], "CONTRACT_MORE")


def setting(
    name: str,
    default: Any,
    examples: Sequence[tuple[str, Any]],
    given: Sequence[tuple[Any, Any]],
    wrong: Sequence[str] = (),
    wrong_given: Sequence[Any] = (),
    choices: Sequence[str] = (),
) -> Setting:
    """Return a setting of `Settled`."""
    variable = f"CONTRACT_{name.upper()}"
    return Setting(name, variable, default, examples, given, wrong, wrong_given, choices)


HOME = os.path.expanduser("~")

SETTINGS = (
    setting("word", None, [("a word", "a word")], [("another", "another")], (), ("", "  ", 3)),
    setting(
        "color",
        None,
        [("#00ff00", "#00ff00")],
        [("#ffffff", "#ffffff")],
        ("green", "x#00ff00", "#00ff001"),
        ("", 3, "#00FF00"),
        ("a color such as #00ff00",),
    ),
    setting(
        "mode",
        None,
        [("online", "Online"), ("OFF", "off")],
        [("Online", "Online"), ("ONLINE", "Online")],
        ("on", "onlin"),
        ("", 3, True),
        ("Online", "off"),
    ),
    Setting.flag("asked", "CONTRACT_ASKED", None),
    setting(
        "most",
        None,
        [("7", 7), ("0", 0)],
        [(0, 0), (3, 3)],
        ("-1", "1.5", "x"),
        (-1, 1.5, True, "3"),
    ),
    setting(
        "limit",
        None,
        [("1.5", 1.5), ("2", 2.0)],
        [(1, 1.0), (0.25, 0.25)],
        ("0", "-1", "inf", "nan", "x"),
        (0, -1.0, "x", float("inf"), []),
    ),
    setting(
        "folder",
        None,
        [("/a/b", "/a/b"), ("~/c", f"{HOME}/c")],
        [(Path("/a/../b"), "/b")],
        (),
        ("", 3),
    ),
    setting(
        "more",
        {},
        [('{"a": {"b": 1}}', {"a": {"b": 1}}), ("{}", {})],
        [({"a": 1}, {"a": 1}), ({2: 1}, {"2": 1})],
        ("[1]", "{", "3"),
        ("a", [1]),
        ("a JSON object",),
    ),
)


class Configured(CallbackContract):
    """A callback that reads a setting of each kind."""

    __test__ = False
    contract = (1, 1)
    expect = ""
    capabilities = frozenset({"settings"})
    settings = SETTINGS

    def make(self, output_dir: Path) -> Any:
        return Settled()

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        return Settled(**arguments)


class NeedsItsSdk(TrainerCallback):
    """Imports its SDK when a training begins."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        import_sdk("tqdm", install="tqdm", needed_by=type(self).__name__)


class Importing(CallbackContract):
    """A callback that needs an SDK."""

    __test__ = False
    contract = (1, 1)
    expect = ""
    capabilities = frozenset({"sdk"})
    sdk = "tqdm"

    def make(self, output_dir: Path) -> Any:
        return NeedsItsSdk()

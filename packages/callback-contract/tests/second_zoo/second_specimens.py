"""A zoo of callbacks that was written without knowing the rules: what is right, and what is not.

`load()` returns them. The modules beside this one hold them, each a suite with its callback.
"""

from dataclasses import dataclass
from importlib import import_module

MODULES = (
    "second_callbacks_1",
    "second_callbacks_2",
    "second_callbacks_3",
    "second_scratch_1",
    "second_scratch_2",
    "second_scratch_3",
    "second_tracking_1",
    "second_tracking_2",
    "second_tracking_3",
)


@dataclass(frozen=True)
class Specimen:
    """One callback or tracker, and what is known of it."""

    name: str
    kind: str  # "callback", "tracking" or "scratch"
    is_faulty: bool
    about: str
    source: str
    suite: type


SPECIMENS = []


def _register(suite, is_faulty, about, source):
    kind = suite.__module__.split("_")[1].removesuffix("s")
    SPECIMENS.append(Specimen(suite.__name__, kind, is_faulty, about, source, suite))
    return suite


def faulty(about, source=""):
    """Register a suite whose callback is wrong in one way."""
    return lambda suite: _register(suite, True, about, source)


def correct(about):
    """Register a suite whose callback is right."""
    return lambda suite: _register(suite, False, about, "")


def load():
    """Return all specimens."""
    for module in MODULES:
        import_module(module)
    return SPECIMENS

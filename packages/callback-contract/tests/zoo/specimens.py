"""What a specimen of the zoo is, and the list of all."""

from dataclasses import dataclass
from importlib import import_module

MODULES = (
    "plain_stopping",
    "plain_control",
    "plain_state",
    "plain_values",
    "plain_model",
    "plain_leftovers",
    "plain_process",
    "plain_services",
    "plain_correct",
    "plain_correct_model",
    "plain_correct_process",
    "tracking_values",
    "tracking_runs",
    "tracking_services",
    "tracking_correct",
    "scratch_values",
    "scratch_runs",
    "scratch_services",
    "scratch_correct",
    "scratch_correct_services",
)

SPECIMENS = []


@dataclass(frozen=True)
class Specimen:
    """A callback of the zoo.

    Attributes:
        name: The name of its suite.
        kind: `callback`, `tracking` (a tracker on `callback_core.tracking`) or `scratch` (a tracker
            without it).
        is_faulty: Whether it is wrong, in one way.
        about: The fault in a sentence, or what it is.
        source: The thread that reports such a fault, as `owner/repository#number`, where known.
        suite: The class that says how to make it and what it does.
    """

    name: str
    kind: str
    is_faulty: bool
    about: str
    source: str
    suite: type


def faulty(fault, source=""):
    """Enter a suite whose callback is wrong in one way."""
    return _entered(fault, source, is_faulty=True)


def correct(about):
    """Enter a suite whose callback is as it should be."""
    return _entered(about, "", is_faulty=False)


def _entered(about, source, is_faulty):
    def enter(suite):
        kind = suite.__module__.rpartition(".")[2].partition("_")[0]
        kind = "callback" if kind == "plain" else kind
        SPECIMENS.append(Specimen(suite.__name__, kind, is_faulty, about, source, suite))
        return suite

    return enter


def load():
    """Return all specimens; the service that some send to is up from here on."""
    for name in MODULES:
        import_module(f"zoo.{name}")
    import_module("zoo.service").url()
    return SPECIMENS

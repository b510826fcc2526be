"""The reference tracker keeps every rule."""

from __future__ import annotations

from reference_tracker import Whole


class TestReference(Whole):
    __test__ = True
    expect = "211 run, 48 not claimed, 0 deviates"

"""The reference tracker keeps every rule."""

from __future__ import annotations

from reference_tracker import Reference


class TestReference(Reference):
    __test__ = True

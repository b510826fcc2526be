"""The reference tracker keeps the rules as others are, too: whatever it can do, and however."""

from __future__ import annotations

from configurations import Configured, Inline, Plain


class TestInline(Inline):
    __test__ = True
    expect = "127 run, 132 not claimed, 0 deviates"


class TestPlain(Plain):
    __test__ = True
    expect = "123 run, 136 not claimed, 0 deviates"


class TestConfigured(Configured):
    __test__ = True
    expect = "54 run, 134 not claimed, 0 deviates"

"""The second share of the mutants fails what it is to fail."""

from __future__ import annotations

from shares import ChecksAShare, shares


class TestMutants(ChecksAShare):
    share = shares()[1]

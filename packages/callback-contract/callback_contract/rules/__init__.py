"""The rules, one module for each group of ids. Importing this registers them."""

from callback_contract.rules import callbacks, trackers

__all__ = ["callbacks", "trackers"]

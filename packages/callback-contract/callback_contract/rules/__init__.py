"""The rules, with one module for each group of ids. Importing this package registers them."""

from callback_contract.rules import callbacks, trackers

__all__ = ["callbacks", "trackers"]

"""A module that prints when it is imported."""

from __future__ import annotations

from callback_core import TrainerCallback

print("Thank you for importing this.")


class Imported(TrainerCallback):
    pass

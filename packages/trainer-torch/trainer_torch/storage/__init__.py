"""Checkpoints as files, on a disk or in a store. These modules know nothing of a training."""

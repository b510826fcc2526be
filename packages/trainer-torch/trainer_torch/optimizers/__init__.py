"""Optimizers and schedules that torch lacks, the names of all of them, and gradients."""

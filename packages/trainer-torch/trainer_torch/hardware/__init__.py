"""The machine: its devices, memory, disk, numerics and random number generators."""

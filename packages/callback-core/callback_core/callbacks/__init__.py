"""The callbacks of this package: the default flow, output, early stopping and a limit of time."""

"""The callbacks of this package, and `LoopCallback`, which they extend."""

"""`Loop`, which drives callbacks from a training loop of one's own, and what it consists of."""

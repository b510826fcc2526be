"""The arguments of a training: their forms, checks and combinations, and where they come from."""

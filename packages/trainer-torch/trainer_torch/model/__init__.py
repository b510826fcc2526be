"""A model: its weights, structure, precision and shards."""

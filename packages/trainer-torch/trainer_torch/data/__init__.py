"""From datasets to batches, and from the outputs for batches to metrics."""

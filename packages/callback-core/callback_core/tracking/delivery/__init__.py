"""The ways in which a journal is delivered beside a training."""

"""`TrainingRun`, and the parts that it holds while a training runs."""

"""What a training saves in its checkpoints, and what it resumes from."""

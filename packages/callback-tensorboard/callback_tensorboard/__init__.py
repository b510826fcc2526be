"""callback-tensorboard"""

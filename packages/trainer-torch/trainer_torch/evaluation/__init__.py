"""Evaluates a model, without training it."""

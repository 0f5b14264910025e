"""Hyperparameter search: a space, a study that remembers, and Ray Tune to run its trials."""

"""Hyperparameter search: a space, a study that remembers, and Ray Tune to run its trials."""

__all__ = [
    "importance",
    "node_cache",
    "objectives",
    "pictures",
    "population",
    "proposals",
    "ray_cluster",
    "ray_space",
    "report",
    "running",
    "samplers",
    "schedulers",
    "session",
    "settings",
    "space",
    "study",
    "trial",
    "tuning",
]

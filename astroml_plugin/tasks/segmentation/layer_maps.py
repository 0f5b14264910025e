"""Channels of the network's maps, and their values as probabilities and log odds."""

from __future__ import annotations

from typing import Any

import numpy as np

from astroml_plugin.tasks.segmentation.truth import LAYERS

FOREGROUND, CENTRE, NEAR, OFFSET_X, OFFSET_Y, STAR, SHARE = range(len(LAYERS))
"""Number of each layer of truth, which is the channel of the map that learns it."""

MAPS = {
    "foreground": "Probability that the light of all objects exceeds one sigma of the noise",
    "centre": "Height of a Gaussian about the nearest centre, 1 on it",
    "near": "Probability that a centre lies within 2.5 pixels",
    "offset_x": "Pixels along x from here to the centre of the object that gives most light",
    "offset_y": "Pixels along y from here to the centre of the object that gives most light",
    "star": "Probability that this object is a point source",
    "share": "Its part of the light here",
}
"""Map -> description."""


def log_odds(probability: Any) -> Any:
    """Natural logarithm of the odds, of a number or an array."""
    return np.log(probability / (1 - probability))


def logit(probability: float) -> float:
    """Log odds of one number."""
    return float(log_odds(np.float64(probability)))


def logistic(logits: np.ndarray) -> np.ndarray:
    """Probabilities from log odds; NaN stays NaN."""
    values: np.ndarray = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    return values

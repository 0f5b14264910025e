"""Signs of oddity, and how much each counts in the score."""

SIGNS = {
    "foreign": "light that the network takes for painted in",
    "critic": "distance from its reconstruction in a critic's features",
    "reconstruction": "reconstruction error in the noise, at the object's S/N and size",
    "latent": "improbable latent vector",
    "asymmetry": "asymmetry under half a turn, noise taken off",
    "second_source": "a second source near the object",
    "residual": "compact light without a partner across the centre",
    "line": "a straight line across the stamp",
}
"""Sign of oddity -> what it is; those that a network gives have a column anomaly_<sign>."""

WEIGHTS = {
    "foreign": 1.0,
    "critic": 0.03,
    "reconstruction": 0.03,
    "latent": 0.03,
    "asymmetry": 0.1,
    "second_source": 0.03,
    "residual": 0.03,
    "line": 0.1,
}
"""Chosen on simulated anomalies (docs/anomaly.md)."""

PICTURE_WEIGHTS = {
    "foreign": 0.1,
    "critic": 0.0,
    "reconstruction": 0.0,
    "latent": 0.0,
    "asymmetry": 1.0,
    "second_source": 0.0,
    "residual": 0.0,
    "line": 0.0,
}
"""For 8-bit pictures, whose stretch hides the noise: chosen by a rule on half of the mergers of Galaxy Zoo; figures are
those of the other half (docs/anomaly.md)."""

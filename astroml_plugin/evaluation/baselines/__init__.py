"""Classical measurements on the same pixels, for comparison: arrays in, arrays out."""

__all__ = [
    "challenge_features",
    "classical",
    "extractor",
    "feature_table",
    "features",
    "fitting",
    "moment_features",
    "radial_profile",
    "regressors",
    "shape_features",
    "shapes",
]

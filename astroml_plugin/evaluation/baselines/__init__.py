"""Classical measurements on the same pixels, for comparison: arrays in, arrays out."""

__all__ = [
    "challenge_features",
    "classical",
    "extractor",
    "feature_table",
    "features",
    "radial_profile",
    "shape_features",
    "shapes",
]

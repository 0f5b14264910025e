"""Objects in fields."""

__all__ = [
    "deblending",
    "gaussian_fluxes",
    "peaks",
    "photometry",
    "task",
    "truth",
]

"""Objects in fields: found, separated from their neighbours, measured."""

__all__ = [
    "deblending",
    "detection",
    "gaussian_fluxes",
    "layer_maps",
    "loss",
    "measurement",
    "peaks",
    "photometry",
    "point_sources",
    "settings",
    "signal",
    "task",
    "truth",
    "whole_tile",
]

"""Ordinary galaxies with chance neighbours, and what is not ordinary: mergers, lenses, rings, trails (extra `sim`)."""

from astroml_plugin.simulation.anomalies.scenes import KINDS
from astroml_plugin.simulation.anomalies.stamps import AnomalySet

__all__ = ["KINDS", "AnomalySet"]

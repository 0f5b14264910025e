"""Every set of stamps that can be simulated."""

from __future__ import annotations

from astroml_plugin.simulation.anomalies import AnomalySet
from astroml_plugin.simulation.fields import FieldSet
from astroml_plugin.simulation.lenses import LensSet
from astroml_plugin.simulation.postage import StampSet
from astroml_plugin.simulation.redshifts import RedshiftSet

Stamped = StampSet | LensSet | FieldSet | AnomalySet | RedshiftSet
"""A set of stamps, of any kind."""

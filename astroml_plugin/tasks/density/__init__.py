"""One number with its whole probability density, such as a photometric redshift."""

from astroml_plugin.tasks.density.settings import DensitySettings
from astroml_plugin.tasks.density.task import DensityTask

__all__ = ["DensitySettings", "DensityTask"]

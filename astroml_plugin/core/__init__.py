"""Errors, flags, settings, storage, registry: what every room stands on."""

from astroml_plugin.core.errors import AstromlError, CorruptError, InputError
from astroml_plugin.core.flags import MaskBit, ObjectFlag

__all__ = ["AstromlError", "CorruptError", "InputError", "MaskBit", "ObjectFlag"]

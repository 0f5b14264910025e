"""Refusals of data that a model must not see: kind, size and scale of pixels, few stamps; each says the remedy."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.settings import TaskSettings


def check_pixels(settings: TaskSettings, dtype: str, has_psf: bool) -> None:
    """Refuse pixels of another kind than the model was trained on, and a PSF that is missing."""
    kind = "uint8" if dtype == "uint8" else "float32"
    if kind != settings.dtype and not settings.any_dtype:
        raise InputError(
            f"the source has {dtype} pixels and the model was trained on {settings.dtype}: "
            f"their units differ; convert the images or use a bundle whose any_dtype is true"
        )
    if settings.psf == "required" and not has_psf and not settings.assumed_psf_fwhm:
        raise InputError(
            "the model needs the PSF of each object and the source has none: ingest it with a PSF, assume a "
            "Gaussian (--assume-psf-fwhm ARCSEC), or use a bundle trained with psf = 'none' or 'optional'"
        )


def check_size(settings: TaskSettings, size: tuple[int, int]) -> None:
    """Refuse stamps (h, w) of another size where the model takes only its own."""
    side = settings.stamp_size
    if settings.resize == "refuse" and tuple(size) != (side, side):
        raise InputError(
            f"stamps of {size[1]} x {size[0]} px, and the model takes only {side} x {side}: "
            f"cut the stamps to that size or use a bundle with resize = 'fit'"
        )


def refuse_few(targets: Mapping[str, Tensor], least: int, what: str) -> None:
    """Raise InputError where the train split has fewer than `least` stamps, which `what` needs."""
    if len(targets["train"]) < least:
        raise InputError(f"the train split has {len(targets['train'])} stamps and {what} needs {least}: give more data")

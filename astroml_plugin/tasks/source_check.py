"""Refusals of data that a model must not see: kind, size and scale of pixels, few stamps; each says the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.pictures import shows
from astroml_plugin.tasks.settings import TaskSettings


def chosen_bands(
    settings: TaskSettings, available: Sequence[str], band: str | None, *, takes_any: bool
) -> tuple[str, ...]:
    """Bands to read from a source, as of `Task.choose_bands`; those of a picture for a model that is shown such."""
    if band is not None and not takes_any:
        raise InputError(f"this bundle needs bands {', '.join(settings.bands)}: no band can be chosen for it")
    added = tuple(name for name in settings.coadd if name in available)
    if band is None and added:
        return added
    wanted = tuple(settings.bands) if band is None else (band,)
    if all(name in available for name in wanted):
        return wanted
    if band is None and settings.any_band and len(available) == 1:
        return tuple(available)
    if band is None and shows(settings, available):
        return tuple(settings.picture.bands)
    remedy = "choose one of them (--band)" if settings.any_band else "use a bundle trained on those bands"
    raise InputError(f"band {', '.join(wanted)} is missing: the source has {', '.join(available)}; {remedy}")


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

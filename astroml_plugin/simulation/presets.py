"""Named simulations: the populations and cameras that figures are quoted for, to be made again exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from astroml_plugin.core.errors import InputError
from astroml_plugin.simulation.anomalies import AnomalySet
from astroml_plugin.simulation.camera import Camera
from astroml_plugin.simulation.designs import Design, PsfPairs, ShearSets, Single
from astroml_plugin.simulation.detections import DetectionSet
from astroml_plugin.simulation.fields import FieldSet
from astroml_plugin.simulation.hst import HstGalaxies
from astroml_plugin.simulation.kinds import Composite, Irregular, RealGalaxies
from astroml_plugin.simulation.lenses import LensSet
from astroml_plugin.simulation.light import LightSet
from astroml_plugin.simulation.population import Population
from astroml_plugin.simulation.postage import StampSet
from astroml_plugin.simulation.redshifts import RedshiftSet
from astroml_plugin.simulation.stamped import Stamped

_FIXED = Camera(bands=("r",), gain=0.0)
_VARYING = replace(_FIXED, psf_fwhm=(0.55, 0.95), psf_ellipticity=0.05)
_GALAXIES = Population(star_fraction=0.0)
_SHIFTED = Population(
    star_fraction=0.0,
    sersic_n=(1.0, 6.0),
    half_light_radius=(0.2, 0.8),
    ellipticity="rayleigh",
    ellipticity_scale=0.25,
)
_RICH = Population(
    star_fraction=0.1,
    sersic_n=(0.5, 6.0),
    bulge_probability=0.3,
    kinds=(Irregular(0.1), Composite(0.1)),
)


def _of(population: Population, camera: Camera, **settings: float) -> Callable[[str | None], StampSet]:
    return lambda hst: StampSet(1, population=population, camera=camera, **settings)  # type: ignore[arg-type]


def _light(hst: str | None) -> LightSet:
    """Noiseless galaxies; a third of them real where their catalog is given."""
    kinds = (RealGalaxies(HstGalaxies.open(hst).path, 1 / 3, resized=True),) if hst else ()
    return LightSet(1, population=replace(_GALAXIES, kinds=kinds), camera=_FIXED, noise=False)


def _detections(hst: str | None) -> DetectionSet:
    return DetectionSet(1, hst=HstGalaxies.open(hst).path if hst else None)


def _real(part: str, rotations: int, resized: bool = False) -> Callable[[str | None], StampSet]:
    def make(hst: str | None) -> StampSet:
        if not hst:
            raise InputError("real galaxies need their catalog: give the path of a RealGalaxyCatalog (--hst PATH)")
        HstGalaxies.open(hst)  # refused now, not by every unit
        kinds = (RealGalaxies(hst, part=part, rotations=rotations, resized=resized),)
        return StampSet(1, population=replace(_GALAXIES, kinds=kinds), camera=_VARYING)

    return make


PRESETS: dict[str, tuple[str, Callable[[str | None], Stamped]]] = {
    "field-fixed": (
        "isolated Sersic galaxies, n 0.5-4, half-light radius 0.3-1.0 arcsec, S/N log-uniform 10-200, Moffat PSF of "
        "FWHM 0.7 arcsec, constant noise",
        _of(_GALAXIES, _FIXED),
    ),
    "field-varying": (
        "the same under PSFs of FWHM 0.55-0.95 arcsec and ellipticities up to 0.05",
        _of(_GALAXIES, _VARYING),
    ),
    "shifted": (
        "field-varying with other galaxies: n 1-6, half-light radius 0.2-0.8 arcsec, Rayleigh ellipticities of rms "
        "0.25 per component",
        _of(_SHIFTED, _VARYING),
    ),
    "blended": (
        "field-varying with 40 neighbours per square arcminute",
        _of(_GALAXIES, _VARYING, neighbours=40.0),
    ),
    "rich": (
        "Sersic n 0.5-6, bulge + disk, irregulars, stars; Poisson and correlated noise, neighbours, masked pixels, "
        "Kolmogorov PSFs of FWHM 0.55-0.95 arcsec and ellipticities up to 0.1",
        _of(
            _RICH,
            Camera(
                bands=("r",),
                psf_profile="kolmogorov",
                psf_fwhm=(0.55, 0.95),
                psf_ellipticity=0.1,
                noise_correlation=0.1,
            ),
            neighbours=30.0,
            masked=0.005,
        ),
    ),
    "hst-train": ("60 % of the real galaxies at any angle, under the PSFs of field-varying", _real("train", 0)),
    "lenses": (
        "strong lenses and what is mistaken for them (docs/lenses.md): g, r, i of LSST's ten years, 64 pixels",
        lambda hst: LensSet(1),
    ),
    "anomalies": (
        "ordinary galaxies of r 19-22.5 with neighbours and stars, one in a hundred an anomaly (docs/anomaly.md): "
        "merger, lens, ring or trail; g, r, i of LSST's ten years, 64 pixels",
        lambda hst: AnomalySet(1),
    ),
    "redshifts": (
        "galaxies with redshifts up to 1.5 and i below 22.5 (docs/photoz.md): old and young stars through g, r, i, z, "
        "y, noise of two years of LSST, 32 pixels",
        lambda hst: RedshiftSet(1),
    ),
    "detections": (
        "what a survey detects in one band (docs/simulation.md): stars, early, late, edge-on and irregular galaxies, "
        "artefacts, under PSFs of FWHM 2.3-6 pixels, with neighbours; one galaxy in three a real one where --hst gives "
        "their catalog",
        _detections,
    ),
    "hst-test": ("the held-out 40 %, each at 12 angles", _real("test", 12)),
    "fields": (
        "pieces of crowded sky, 256 pixels, with the truth of every pixel (docs/segmentation.md): galaxies of 20-25.3 "
        "mag and a tail to 26, stars of 17-25.3, 35-60 objects per square arcminute, PSFs of FWHM 0.5-1.0 arcsec",
        lambda hst: FieldSet(1),
    ),
    "light": (
        "the galaxies of field-fixed without noise, one in three a real one where --hst gives their catalog: what "
        "generators learn from (docs/generation.md)",
        _light,
    ),
    "restoration": (
        "field-varying at PSFs of 0.55-0.95 arcsec, and each galaxy without noise under 0.4 arcsec as the truth of "
        "pixels (docs/generation.md)",
        lambda hst: LightSet(1, population=_GALAXIES, camera=_VARYING, sharp_fwhm=0.4),
    ),
    "hst-test-resized": (
        "the same morphologies at the half-light radii of field-varying, enlarged at most threefold",
        _real("test", 12, resized=True),
    ),
}
"""Name -> (what it is, a function of the HST catalog's path that makes it with a count of 1)."""

PAIRS: tuple[str, ...] = ("shear", "psf")
"""Designs by name, for `make_design`."""


def preset(name: str, hst: str | None = None) -> Stamped:
    """The stamps of a preset, to be completed with `dataclasses.replace(..., count=, seed=)`.

    Args:
        name: one of `PRESETS`.
        hst: path of a RealGalaxyCatalog, for the presets of real galaxies.

    Raises:
        InputError: no such preset, or no catalog.
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}: use one of {', '.join(PRESETS)}")
    return PRESETS[name][1](hst)


def make_design(pairs: str | None, *, shear: float = 0.02, psf_ellipticity: float = 0.05) -> Design:
    """One stamp of every galaxy, or sets of them.

    Args:
        pairs: None; "shear": sets of four with +-`shear` at 0 and 90 degrees; "psf": pairs with PSFs of opposite
            ellipticity.
        shear: |g| of shear sets.
        psf_ellipticity: |e_PSF| of PSF pairs.

    Raises:
        InputError: another name.
    """
    if pairs is None:
        return Single()
    if pairs not in PAIRS:
        raise InputError(f"no pairs {pairs!r}: use {' or '.join(PAIRS)}")
    return ShearSets(shear) if pairs == "shear" else PsfPairs(psf_ellipticity)

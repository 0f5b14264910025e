"""Objects of the universe: the parts that their light is made of, and their truth."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from astroml_plugin.core.typing import F64, I64
from astroml_plugin.simulation.camera import Camera, flux_of
from astroml_plugin.simulation.profiles import Matrix, Profile, ellipse, rotation

CLASSES = ("star", "spheroid", "disk", "irregular", "real")
"""Class names; spheroids have a Sersic index of 2 and more (the main component's), disks less."""

STAR = 0


class Part(NamedTuple):
    """One profile of an object, around the object's centre."""

    profile: Profile
    matrix: Matrix
    """From the profile's plane to arcsec."""
    share: F64
    """(band,) share of the object's light."""


@dataclass
class Objects:
    """A few objects, one array each; all (n,) but `mag` and `bulge`, which are (n, band)."""

    kind: I64
    """Index into CLASSES."""
    mag: F64
    """Magnitudes per band."""
    bulge: F64
    """Bulge-to-total light per band; 0 without a bulge."""
    sersic_n: F64
    """Sersic index of the main component; NaN where there is none."""
    half_light_radius: F64
    """Arcsec, of the main component or the whole real galaxy, before any shear; NaN for stars."""
    e1: F64
    """Image ellipticity without the PSF, shear included; NaN unless all parts are one shear of round profiles."""
    e2: F64
    """Second component, like `e1`."""
    g1: F64
    """Applied shear; 0 for stars."""
    g2: F64
    """Applied shear; 0 for stars."""
    parts: NDArray[np.object_]
    """Tuples of `Part`, shear included."""

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, index: Any) -> Objects:
        """The objects at `index` (integers, slice or mask)."""
        return Objects(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def turned(self) -> Objects:
        """Objects with images turned by 90 degrees from +x towards +y."""
        return replace(self, e1=-self.e1, e2=-self.e2, parts=_mapped(self, [_QUARTER] * len(self)))

    def sheared(self, g1: F64, g2: F64) -> Objects:
        """Objects after a shear (n,), (n,) of their galaxies; stars stay as they are."""
        galaxy = np.where(self.kind == STAR, 0.0, 1.0)
        g1, g2 = g1 * galaxy, g2 * galaxy
        e1, e2 = sheared_ellipticity(self.e1, self.e2, g1, g2)
        parts = _mapped(self, [ellipse(*g) for g in zip(g1.tolist(), g2.tolist(), strict=True)])
        return replace(self, e1=e1, e2=e2, g1=g1, g2=g2, parts=parts)


_QUARTER = rotation(np.pi / 2)


def _mapped(objects: Objects, matrices: list[Matrix]) -> NDArray[np.object_]:
    """Every part of every object followed by that object's matrix."""
    pairs = zip(objects.parts, matrices, strict=True)
    return as_parts([tuple(part._replace(matrix=m.after(part.matrix)) for part in parts) for parts, m in pairs])


def as_parts(values: list[tuple[Part, ...]]) -> NDArray[np.object_]:
    """(n,) array of tuples, for `Objects.parts`."""
    parts = np.empty(len(values), object)
    for i, value in enumerate(values):
        parts[i] = value
    return parts


def sheared_ellipticity(e1: F64, e2: F64, g1: F64, g2: F64) -> tuple[F64, F64]:
    """(e + g) / (1 + g* e): the ellipticity of round profiles of (e1, e2) after a shear (Seitz & Schneider 1997)."""
    e, g = e1 + 1j * e2, g1 + 1j * g2
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        sheared = (e + g) / (1 + np.conj(g) * e)
    return sheared.real, sheared.imag


def truth_columns(objects: Objects, camera: Camera) -> dict[str, pa.Array]:
    """Label columns that stamps and skies share: class, magnitudes, fluxes, shapes and shear."""
    reference = camera.reference
    flux = flux_of(objects.mag, camera)
    columns: dict[str, pa.Array] = {
        "class": pa.array([CLASSES[kind] for kind in objects.kind], pa.string()),
        "mag": pa.array(objects.mag[:, reference]),
        "flux": pa.array(flux[:, reference]),
    }
    if len(camera.bands) > 1:
        columns |= {f"mag_{band}": pa.array(objects.mag[:, i]) for i, band in enumerate(camera.bands)}
    columns["bulge_fraction"] = pa.array(objects.bulge[:, reference])
    for name in ("e1", "e2", "sersic_n", "half_light_radius", "g1", "g2"):
        columns[name] = pa.array(getattr(objects, name))
    return columns

"""Which stamps are made of one galaxy: one, or a set that differs in shear, orientation or PSF alone.

Sets measure biases without their noise: the galaxies' shapes and the noise cancel between branches (Pujol et al. 2019,
A&A 621, A2; Massey et al. 2007 for the 90 degree partner).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import F64, I64
from astroml_plugin.simulation.profiles import Psf


class Branch(NamedTuple):
    """One stamp of each of n sets."""

    names: list[str]
    g1: F64
    """(n,) shear applied after any turn."""
    g2: F64
    turned: bool
    """Galaxy, offset, neighbours and noise turned by 90 degrees from +x towards +y, the PSF not."""
    psfs: list[Psf]


@dataclass(frozen=True)
class Single:
    """One stamp of every galaxy."""

    kind: str = "single"
    size: ClassVar[int] = 1
    turned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self, "single")

    def branches(self, numbers: I64, psfs: list[Psf], rng: np.random.Generator) -> list[Branch]:
        """The one branch: the galaxy as it is."""
        return []

    def reference(self, psf: Psf) -> Psf:
        """The PSF under which flux and noise are set."""
        return psf


@dataclass(frozen=True)
class ShearSets:
    """Sets of four: +g and -g, each at 0 and 90 degrees; one component of the shear in a set, in turn.

    The noise is the same for +g and -g. Flux and noise level are set from the unsheared galaxy at 0 degrees.
    """

    shear: float = 0.02
    """|g|."""
    components: tuple[str, ...] = ("g1", "g2")
    """Set i is sheared along component i modulo their number."""
    kind: str = "shear"
    size: ClassVar[int] = 4
    """Stamps of a set."""
    turned: ClassVar[bool] = True
    """Whether some branch is turned."""

    def __post_init__(self) -> None:
        _check(self, "shear")
        if not 0 < self.shear < 0.2:
            raise InputError(f"a shear of {self.shear} for sets is not small: give 0 to 0.2")
        if not self.components or not set(self.components) <= {"g1", "g2"}:
            raise InputError(f"components of the shear are g1, g2, not {self.components}")

    def branches(self, numbers: I64, psfs: list[Psf], rng: np.random.Generator) -> list[Branch]:
        """+g/0, -g/0, +g/90, -g/90 of the sets `numbers`."""
        component = [self.components[i % len(self.components)] for i in numbers.tolist()]
        first = np.array([name == "g1" for name in component])
        made = []
        for degrees in (0, 90):
            for mark, sign in (("+", 1.0), ("-", -1.0)):
                g = sign * self.shear
                names = [f"{mark}{name}/{degrees}" for name in component]
                made.append(Branch(names, np.where(first, g, 0.0), np.where(first, 0.0, g), degrees == 90, psfs))
        return made

    def reference(self, psf: Psf) -> Psf:
        """The PSF under which flux and noise are set."""
        return psf


@dataclass(frozen=True)
class PsfPairs:
    """Pairs of the same galaxy and noise under PSFs of opposite ellipticity; flux and noise set under a round one."""

    psf_ellipticity: float = 0.05
    """|e| of the PSF; its angle is random."""
    kind: str = "psf"
    size: ClassVar[int] = 2
    """Stamps of a pair."""
    turned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self, "psf")
        if not 0 < self.psf_ellipticity < 0.5:
            raise InputError(f"a PSF ellipticity of {self.psf_ellipticity} for pairs: give 0 to 0.5")

    def branches(self, numbers: I64, psfs: list[Psf], rng: np.random.Generator) -> list[Branch]:
        """+psf and -psf of the pairs `numbers`."""
        angle, none = rng.uniform(0, 2 * math.pi, len(numbers)), np.zeros(len(numbers))
        made = []
        for mark, sign in (("+", 1.0), ("-", -1.0)):
            e1, e2 = (sign * self.psf_ellipticity * wave(angle) for wave in (np.cos, np.sin))
            turned = [p._replace(e1=a, e2=b) for p, a, b in zip(psfs, e1.tolist(), e2.tolist(), strict=True)]
            made.append(Branch([f"{mark}psf"] * len(numbers), none, none, False, turned))
        return made

    def reference(self, psf: Psf) -> Psf:
        """The PSF under which flux and noise are set."""
        return psf._replace(e1=0.0, e2=0.0)


Design = Single | ShearSets | PsfPairs


def _check(settings: Design, kind: str) -> None:
    if settings.kind != kind:  # how settings read from a file tell the designs apart
        raise InputError(f"kind is {kind!r}, not {settings.kind!r}")

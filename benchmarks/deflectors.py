"""Lens stamps whose deflectors are pictures: scenes without their deflector, pictures of deflectors, both together.

One way of putting them together serves all pictures, simulated or drawn, and both classes, so that nothing but the arcs
tells a lens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from astroml_plugin.core.typing import F32, F64, Bool
from astroml_plugin.networks.framing import Shape, shape_of
from astroml_plugin.simulation.lenses.bodies import PAINTERS
from astroml_plugin.simulation.lenses.galaxies import Deflector, draw_deflector, draw_field
from astroml_plugin.simulation.lenses.light import positions
from astroml_plugin.simulation.lenses.painting import Canvas
from astroml_plugin.simulation.lenses.stamps import LensCamera, LensSet, accepted_lens, chosen
from astroml_plugin.simulation.profiles import Psf

PICTURE, STAMP = 64, 48
"""Sides in pixels: a picture stays filled wherever it is turned to, but for the last two pixels of a corner."""
CAMERA = LensCamera(psf_fwhm=(0.75, 0.75), psf_ellipticity=0.0)
PSFS = (Psf("moffat", 0.75, 0.0, 0.0),) * len(CAMERA.bands)
"""Round, so that a picture may be turned."""
NEGATIVES = {"unlensed": 0.3, "companions": 0.3, "ring": 0.2, "plain": 0.2}
"""Kind -> its share of the stamps that are no lens; none of them changes the light of the deflector."""
LENSES = LensSet(
    1,
    size=STAMP,
    camera=CAMERA,
    theta_e=(0.5, 1.5),
    source_mag=(22.5, 25.5),
    **{name: NEGATIVES.get(name, 0.0) for name in PAINTERS if name != "lens"},
)
"""Arcs that are faint and near their deflector, where its light matters."""


@dataclass(frozen=True)
class Scenes:
    """What stamps show beside their deflectors."""

    light: F32
    """(n, band, STAMP, STAMP) arcs, or what is there in their place, and other galaxies and stars; without noise."""
    noise: F32
    """Of the same shape, of variance 1."""
    lens: Bool
    """(n,) whether there are arcs."""
    deflectors: list[Deflector]
    """Masses that made the arcs; a picture takes the place of their light."""
    shift: F64
    """(n, 2) x, y in pixels from the centre of pixel `STAMP // 2` to the deflector."""

    def part(self, rows: slice) -> Scenes:
        """Some of them."""
        deflectors, shift = self.deflectors[rows], self.shift[rows]
        return Scenes(self.light[rows], self.noise[rows], self.lens[rows], deflectors, shift)


def scenes(count: int, seed: int) -> Scenes:
    """Simulate scenes, every other one of a lens."""
    rng = np.random.default_rng([seed, 0])
    light, deflectors, shifts = [], [], []
    for row in range(count):
        shift = rng.uniform(-LENSES.offset, LENSES.offset, 2)
        canvas = Canvas(PSFS, STAMP, CAMERA.pixel_scale, (float(shift[0]), float(shift[1])))
        around = draw_field(rng, canvas.side, LENSES.galaxies, LENSES.stars, CAMERA.zero_point)
        lens = accepted_lens(LENSES, rng, canvas)
        kind = chosen(NEGATIVES, rng.random()) if row % 2 else "lens"
        body = PAINTERS[kind](lens, rng, CAMERA.zero_point, positions(CAMERA.pixel_scale))
        light.append(canvas.light(around, body.layers))
        deflectors.append(lens.deflector)
        shifts.append(shift)
    seen = np.stack(light)
    noise = rng.standard_normal(seen.shape, dtype=np.float32)
    return Scenes(seen, noise, np.arange(count) % 2 == 0, deflectors, np.stack(shifts))


def pictures(deflectors: list[Deflector], seed: int) -> F32:
    """(n, band, PICTURE, PICTURE) light of deflectors without noise, off the middle by half a pixel at most."""
    rng = np.random.default_rng([seed, 1])
    made = []
    for one in deflectors:
        x, y = rng.uniform(-LENSES.offset, LENSES.offset, 2).tolist()
        canvas = Canvas(PSFS, PICTURE, CAMERA.pixel_scale, (x, y))
        made.append(canvas.light(one.components(CAMERA.zero_point), []))
    return np.stack(made)


def population(count: int, seed: int) -> list[Deflector]:
    """Deflectors of random Einstein radii."""
    rng = np.random.default_rng([seed, 2])
    return [draw_deflector(rng, LENSES.theta_e) for _ in range(count)]


def shows_a_deflector(picture: F32) -> Bool:
    """(n,) whether the light of pictures fits a galaxy, so that it can be centred and turned."""
    return np.asarray((_shapes(picture).size > 0).numpy())


def composed(scene: Scenes, picture: F32, seed: int) -> F32:
    """Stamps with noise: each scene with a picture in the place of its deflector.

    The brightest picture goes to the brightest deflector, and so on, so that arcs and light belong together. It is
    turned until its long axis lies as that of the deflector, and mirrored at random.

    Args:
        scene: n scenes.
        picture: (n, band, PICTURE, PICTURE) in any order; one may be there many times.
        seed: of the mirroring.

    Returns:
        (n, band, STAMP, STAMP) in nJy.
    """
    rng = np.random.default_rng([seed, 3])
    shape = _shapes(picture)
    angles = 0.5 * np.arctan2(shape.e[:, 1].numpy(), shape.e[:, 0].numpy()).astype(np.float64)
    centres = shape.centre.numpy().astype(np.float64)
    brightest_first = picture[:, 1].sum((1, 2)).argsort(kind="stable")[::-1]
    wanted = np.argsort([deflector.mag[1] for deflector in scene.deflectors], kind="stable")
    image = np.empty_like(scene.light)
    for place, row in zip(wanted.tolist(), brightest_first.tolist(), strict=True):
        deflector = scene.deflectors[place]
        mirrored = _turn(angles[row]) * rng.choice([-1.0, 1.0], 2)
        turn = mirrored @ _turn(0.5 * math.atan2(deflector.e2, deflector.e1)).T
        light = scene.light[place] + _moved(picture[row], turn, centres[row], scene.shift[place])
        image[place] = light + scene.noise[place] * np.sqrt(CAMERA.variance(light))
    return image


def _shapes(picture: F32) -> Shape:
    parts = [shape_of(torch.from_numpy(picture[start : start + 512].sum(1))) for start in range(0, len(picture), 512)]
    return Shape(*(torch.cat([getattr(part, name) for part in parts]) for name in Shape._fields))


def _turn(angle: float) -> F64:
    """(2, 2) turn from +x towards +y."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


def _moved(picture: F32, turn: F64, centre: F64, shift: F64) -> F32:
    """A picture on the pixels of a stamp.

    Args:
        picture: (band, PICTURE, PICTURE).
        turn: (2, 2) from x, y on the stamp to x, y on the picture.
        centre: x, y of the galaxy from pixel `PICTURE // 2`.
        shift: x, y of it on the stamp from pixel `STAMP // 2`.
    """
    matrix, size = turn[::-1, ::-1], (STAMP, STAMP)
    offset = PICTURE // 2 + centre[::-1] - matrix @ (STAMP // 2 + shift[::-1])
    planes = [ndimage.affine_transform(band, matrix, offset, size, mode="nearest") for band in picture]
    return np.stack(planes).astype(np.float32)

"""What a mean shear is worth where the objects were found: detection depends on shear itself, most of all in blends.

python -m benchmarks.segmentation --shear [--quick]      # prints this part of the section `segmentation`, and keeps it

Skies are made twice, all of each sheared by +g and by -g, places and galaxies, under the same PSF and noise (Pujol et
al. 2019, A&A 621, A2; Sheldon et al. 2020, ApJ 902, 138, for why detection must be part of it).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from astroml_plugin.catalog import shear_sums
from astroml_plugin.core import storage
from astroml_plugin.cutouts import around, batches, to_device
from astroml_plugin.evaluation import shear
from astroml_plugin.evaluation.bootstrap import resampled_sums
from astroml_plugin.evaluation.detection_metrics import DetectionSet, match
from astroml_plugin.evaluation.shear import Estimate
from astroml_plugin.pixels import Tile
from astroml_plugin.simulation.fields import FIELD_POPULATION, field_sky
from astroml_plugin.simulation.profiles import ellipse
from astroml_plugin.simulation.skies import Sky, SkyObjects
from astroml_plugin.sky.wcs import Box
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from benchmarks.harness import kept_arrays
from tests.pages import table

Method = Callable[[Tile], DetectionSet]
"""Objects of a tile."""
Shapes = Callable[[Tile, np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""Ellipticities and responses, each (n,), at n places of a tile."""
Sums = dict[tuple[str, str], np.ndarray]
"""(method, selection) -> sums (block, sign, field)."""

SHEAR = 0.02
"""Of both components, in both signs."""
SEED = 1000
_BLOCK = 128
"""Side in pixels of the squares that are resampled."""
_BORDER = 48
_LEAST_SNR = 10.0
"""Of galaxies that are counted by what they truly are; alone, without shear, without noise."""
_NEIGHBOUR = 5.0
"""S/N of what makes a blend."""
_CLOSE, _FAR = 2.0, 4.0
"""PSF widths to the nearest neighbour: of blended galaxies at most, of isolated ones at least."""
_VERSION = 1
"""Of what is kept: another simulation or way of measuring gets another number."""

TRUE_PLACES = "true places"


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    fields: tuple[int, ...] = (16, 16)
    """Pairs of skies of each density."""
    density: tuple[float, ...] = (35.0, 105.0)
    """Galaxies of 20-25.3 mag per arcmin²."""
    side: int = 768


QUICK = Scale((2, 2), (35.0, 105.0), 384)


@dataclass(frozen=True)
class ShearedSky(Sky):
    """A sky that is sheared as a whole about the image's centre: places, sizes and shapes; PSF and noise stay."""

    shear: tuple[float, float] = (0.0, 0.0)

    def cell(self, row: int, column: int) -> SkyObjects:
        """As in `Sky`; objects keep their ids."""
        plain = Sky.cell(replace(self, shear=(0.0, 0.0)), row, column)
        count = len(plain.x)
        x, y = self.moved(plain.x, plain.y)
        objects = plain.objects.sheared(*(np.full(count, g) for g in self.shear))
        return replace(plain, x=x, y=y, objects=objects)

    def moved(self, x: np.ndarray, y: np.ndarray, back: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Where places of the sky without shear are now, or `back` to where they were."""
        sign = -1.0 if back else 1.0
        across, up = (self.width - 1) / 2, (self.height - 1) / 2
        dx, dy = ellipse(*(sign * g for g in self.shear)).apply(x - across, y - up)
        return across + dx, up + dy


def sheared_sky(seed: int, side: int, seeing: float, galaxies: float) -> ShearedSky:
    """A sky of `fields.field_sky` without stars: they are not sheared, and no catalog of shear has them."""
    plain = field_sky(seed, side, seeing, galaxies, replace(FIELD_POPULATION, star_fraction=0.0))
    return ShearedSky(side, side, seed, plain.density, plain.population, plain.camera)


# ---- what there is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Galaxies:
    """What there truly is in a sky that was made under both shears, k galaxies; places are those without shear."""

    x: np.ndarray
    y: np.ndarray
    snr: np.ndarray
    """Mean of both."""
    isolated: np.ndarray
    """(k,) bool: bright enough, and nothing that can be seen within `_FAR` PSF widths."""
    blended: np.ndarray
    """(k,) bool: bright enough, and something that can be seen within `_CLOSE` PSF widths."""


def galaxies(sky: ShearedSky, tables: list[Any]) -> Galaxies:
    """From the truth tables of both shears, the first +."""
    ids = [one["object_id"].to_numpy() for one in tables]
    _, *rows = np.intersect1d(*ids, assume_unique=True, return_indices=True)
    x, y = (tables[0][axis].to_numpy()[rows[0]] for axis in "xy")
    x, y = replace(sky, shear=(SHEAR, SHEAR)).moved(x, y, back=True)
    snr = np.mean([one["snr"].to_numpy()[row] for one, row in zip(tables, rows)], axis=0)
    seen = snr >= _NEIGHBOUR
    tree = KDTree(np.stack([x, y], 1)[seen])
    distance, nearest = tree.query(np.stack([x, y], 1), 2)
    own = nearest[:, 0] == np.where(seen, np.cumsum(seen) - 1, -1)
    apart = np.where(own, distance[:, 1], distance[:, 0]) / (sky.psf_at(0, 0).fwhm / sky.camera.pixel_scale)
    bright = snr >= _LEAST_SNR
    return Galaxies(x, y, snr, bright & (apart > _FAR), bright & (apart <= _CLOSE))


# ---- what is measured --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What one method has in a sky under one shear, n objects."""

    terms: np.ndarray
    """(n, field) of `shear_sums.weighted`."""
    block: np.ndarray
    """(n,) square of the sky without shear; -1 near its border and where there is no ellipticity."""
    number: np.ndarray
    """(n,) of the true galaxy; -1 for none."""
    shared: np.ndarray
    """(n,) bool: another object in the same patch of light."""


def shapes_of(model: ModelBundle) -> Shapes:
    """The bundle's ellipticities, as a run measures found objects with it."""
    task, network = model.task(), model.network(fused=True)

    def shapes(tile: Tile, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        placed = to_device(tile, ("r",), pixel_scale=0.2)
        nowhere = np.full((len(x), 2, 2), np.nan)
        stamps = around(placed, x, y, task.stamp_size, origin=(0, 0), jacobian=nowhere, padded=True)
        parts = [columns(task, network, part) for part in batches(stamps, 512)]
        return {name: np.concatenate([part[name] for part in parts]) for name in _NEEDED}

    return shapes


_NEEDED = ("e1", "e2", "r11", "r12", "r21", "r22")


def measured(sky: ShearedSky, tile: Tile, found: DetectionSet, truth: Galaxies, shapes: Shapes) -> Measured:
    """The objects found in a sky under its shear."""
    values = shapes(tile, found.x, found.y)
    home = sky.moved(found.x, found.y, back=True)
    kept = np.isfinite(values["e1"]) & np.isfinite(values["e2"])
    for at, side in zip(home, (sky.width, sky.height)):
        kept &= (at >= _BORDER) & (at < side - _BORDER)
    column, row = (np.clip(at // _BLOCK, 0, None).astype(np.int64) for at in home)
    block = np.where(kept, row * -(-sky.width // _BLOCK) + column, -1)
    given = {name: values[name] for name in _NEEDED}
    given |= {name: np.full(len(kept), g) for name, g in zip(("g1", "g2"), sky.shear)}
    seen = np.flatnonzero(truth.snr >= _NEIGHBOUR)
    number = match(found.x, found.y, *sky.moved(truth.x[seen], truth.y[seen]))
    return Measured(shear_sums.weighted(given), block, np.where(number >= 0, seen[number], -1), _shared(found))


def _shared(found: DetectionSet) -> np.ndarray:
    """(n,) whether an object's patch of light has another object."""
    patches, count = ndimage.label(found.labels > 0, np.ones((3, 3)))
    lit = found.labels > 0
    patch = np.zeros(len(found.x) + 1, np.int64)
    patch[found.labels[lit]] = patches[lit]
    patch = patch[1:]
    return np.bincount(patch, minlength=count + 1)[patch] > 1


EVERY, APART, SHARED = "every detection", "alone in its patch of light", "patch of light shared"
ISOLATED, BLENDED = "truly isolated", "truly blended"
IN_BOTH = ", found under both shears"


def selections(pair: tuple[Measured, Measured], truth: Galaxies) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Name of a selection, and which of the objects (n,) under + and - are in it."""
    number = np.intersect1d(*(one.number[one.block >= 0] for one in pair))
    for name, chosen in ((ISOLATED, truth.isolated), (BLENDED, truth.blended)):
        mine = [(one.number >= 0) & chosen[one.number] for one in pair]
        yield name, mine
        yield name + IN_BOTH, [yes & np.isin(one.number, number) for yes, one in zip(mine, pair)]
    yield EVERY, [np.ones(len(one.number), bool) for one in pair]
    yield APART, [~one.shared for one in pair]
    yield SHARED, [one.shared for one in pair]


def sums_of(sky: ShearedSky, methods: Mapping[str, Method], shapes: Shapes) -> Sums:
    """Of one sky."""
    branches = [replace(sky, shear=(sign * SHEAR, sign * SHEAR)) for sign in (1.0, -1.0)]
    box = Box(0, 0, sky.width, sky.height)
    made = [branch.render(box, 25) for branch in branches]
    truth = galaxies(sky, [found for _, found in made])
    bright = truth.snr >= _LEAST_SNR

    def places(branch: ShearedSky) -> DetectionSet:
        x, y = branch.moved(truth.x[bright], truth.y[bright])
        return DetectionSet(x, y, np.zeros((1, 1), np.int32), {})

    result = {}
    blocks = -(-sky.width // _BLOCK) * -(-sky.height // _BLOCK)
    for name in (TRUE_PLACES, *methods):
        found = [places(b) if name == TRUE_PLACES else methods[name](tile) for b, (tile, _) in zip(branches, made)]
        first, second = (measured(b, t, f, truth, shapes) for b, (t, _), f in zip(branches, made, found))
        for selection, chosen in selections((first, second), truth):
            sums = np.zeros((blocks, 2, len(shear_sums.FIELDS)))
            for sign, (one, mine) in enumerate(zip((first, second), chosen)):
                used = mine & (one.block >= 0)
                np.add.at(sums[:, sign], one.block[used], one.terms[used])
            result[name, selection] = sums
    return result


# ---- what it is worth --------------------------------------------------------------------------------------------


def biases(sums: np.ndarray, repeats: int = 500) -> np.ndarray:
    """m (1 + repeats, 2) of both components, from sums (block, sign, field): first of all blocks, then resampled."""
    drawn = resampled_sums(sums, repeats)
    return shear.biases(np.repeat(drawn[:, None], 2, axis=1))[0]


def _figures(sums: Sums) -> dict[str, Any]:
    """Plain numbers: method -> selection -> objects under + and -, m of each component, of both, and what detection
    adds to it."""
    figures: dict[str, Any] = {}
    for (method, selection), values in sums.items():
        if method == TRUE_PLACES and selection not in (ISOLATED, BLENDED):
            continue
        m = biases(values)
        mean = m.mean(1)
        entry = {
            "objects": values[..., 0].sum(0).tolist(),
            "response": float(np.trace(shear.mean_response(values.sum((0, 1)))) / 2),
            "m": [_plain(m[:, 0]), _plain(m[:, 1])],
            "both": _plain(mean),
        }
        if (method, selection + IN_BOTH) in sums and method != TRUE_PLACES:
            same = sums[method, selection + IN_BOTH]
            entry["same"] = _plain(biases(same).mean(1))
            entry["detection"] = _plain(mean - biases(same).mean(1))
            entry["in one only"] = float(1 - same[..., 0].sum() / max(1, values[..., 0].sum()))
        figures.setdefault(method, {})[selection] = entry
    return figures


def _plain(values: np.ndarray) -> list[float]:
    found = Estimate.of(values)
    return [found.value, found.error]


def figures(methods: Mapping[str, Method], scale: Scale, identity: Any) -> dict[str, Any]:
    """Density -> figures; the sums of each sky are kept below the scratch folder: what was interrupted goes on."""
    result = {}
    model = ModelBundle.load("ellipticity")
    shapes = shapes_of(model)
    for count, density in zip(scale.fields, scale.density):
        parts = []
        for i in range(count):
            sky = sheared_sky(SEED + i, scale.side, 0.6 + 0.3 * (i + 0.5) / count, density)
            what = [_VERSION, identity, model.sha256, asdict(sky), sorted(methods)]
            key = f"segmentation-shear-{storage.digest(json.dumps(what, sort_keys=True))[:16]}"
            found = kept_arrays(key, lambda sky=sky: _flat(sums_of(sky, methods, shapes)))  # type: ignore[misc]
            parts.append({(name.partition("|")[0], name.partition("|")[2]): found[name] for name in found})
        result[f"{density:g}"] = _figures({key: np.concatenate([part[key] for part in parts]) for key in parts[0]})
    return result


def _flat(sums: Sums) -> dict[str, np.ndarray]:
    return {"|".join(key): values for key, values in sums.items()}


def section(methods: Mapping[str, Method], scale: Scale, identity: Any) -> tuple[str, dict[str, Any]]:
    """Markdown and numbers.

    Args:
        methods: name -> what finds the objects of a tile.
        scale: how much.
        identity: plain values that say which bundle and settings the methods are.
    """
    found = figures(methods, scale, identity)
    rows = []
    for density, of_methods in found.items():
        for selection in (ISOLATED, BLENDED, EVERY, APART, SHARED):
            for method, entries in of_methods.items():
                if selection in entries:
                    rows.append([density, selection, method, *_cells(entries[selection])])
    head = ["galaxies per arcmin²", "objects", "found by", "number", "in one only", "m1", "m2", "m", "m, same objects"]
    pairs = " and ".join(str(count) for count in scale.fields)
    text = (
        f"### Shear of what is found\n\nSkies sheared as a whole by ±{SHEAR:g} in both components, places and "
        f"galaxies, under the same noise and PSF ({pairs} pairs of {scale.side}² pixels, seeds {SEED} and up, no "
        "stars); ellipticities by the shipped bundle at the places found; g = <e> / <R>, nothing corrected for "
        "selection, no object left out by flags. *Truly isolated, truly blended*: detections that are galaxies of S/N "
        f"{_LEAST_SNR:g} and more (alone, without shear) with no other of S/N {_NEIGHBOUR:g} within {_FAR:g} PSF "
        f"widths, or with one within {_CLOSE:g}. *Same objects*: only galaxies found under both shears; what m has "
        "beyond that is detection's part. *True places*: all such galaxies where they are, found or not. Errors: "
        f"standard deviations, squares of {_BLOCK} pixels resampled. Galaxies move over the noise, which does not "
        "cancel between the two shears: with so few of them m is no calibration of the ellipticities, whose own "
        "is in the section Ellipticities. Where m is the same at the true places, detection has no part in it.\n\n"
    )
    return text + table([*head, "detection's part"], rows), {"shear": found}


def _cells(entry: dict[str, Any]) -> list[str]:
    number = f"{np.mean(entry['objects']):.0f}"
    one = f"{entry['in one only']:.1%}" if "in one only" in entry else ""
    texts = [_text(values) for values in (*entry["m"], entry["both"])]
    return [number, one, *texts, *(_text(entry[name]) if name in entry else "" for name in ("same", "detection"))]


def _text(values: list[float]) -> str:
    return f"{values[0]:+.3f} ± {values[1]:.3f}"

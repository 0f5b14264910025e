"""How the bundle `segmentation` is made: simulate fields, train, choose thresholds on fields of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from astroml_plugin.core.storage import finite
from astroml_plugin.evaluation.detection_metrics import DetectionSet, Truth, counts, pooled
from astroml_plugin.simulation.fields import field_sky, truth_of
from astroml_plugin.tasks.segmentation.detection import accepted_peaks
from astroml_plugin.tasks.segmentation.task import SegmentTask
from astroml_plugin.tasks.segmentation.truth import LAYERS
from astroml_plugin.tasks.segmentation.whole_tile import maps_of
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from bundles.training_sets import TrainingSet
from workflows.recipe import read_recipe
from workflows.train import Progress, train

_WIDE = {
    "population": {
        **{"magnitude": [18.5, 25.3], "sersic_n": [0.5, 6.0], "half_light_radius": [0.2, 1.3]},
        **{"bulge_probability": 0.3, "ellipticity_scale": 0.15},
        "kinds": [{"kind": "irregular", "fraction": 0.1}, {"kind": "composite", "fraction": 0.1}],
    },
    "camera": {"psf_profile": "kolmogorov"},
}

TRAINING = (
    TrainingSet("field", "fields", 1792, 201),
    TrainingSet("wide", "fields", 512, 202, {"changes": _WIDE}),
    TrainingSet("dense", "fields", 768, 203, {"changes": {"stamps": {"density": [100.0, 250.0]}}}),
)
"""Training sets: 201 Mpix, 2,240 square arcminutes, some 180,000 objects.

Close pairs are rare in fields like the real ones (3 % of the objects), and most of those cannot be told apart: trained
on such fields alone, a network hardly learns what two objects look like. `dense` has most of the pairs.
"""

_DESCRIPTION = (
    "Finds, outlines and takes apart everything in a field, on one image in units of its noise: any one band, or "
    "several together. No background is taken off. Trained on simulated fields of 35-60 objects per square arcminute "
    "at 0.2 arcsec per pixel: galaxies to 26 mag and stars of 17-25.3 mag where one sigma of a pixel is 29.0 mag, PSFs "
    "of FWHM 2.5-5 pixels, uncorrelated noise."
)


def segmentation_recipe() -> Recipe:
    """The recipe `segment`, for ten epochs."""
    recipe = replace(read_recipe("segment"), description=_DESCRIPTION)
    return replace(
        recipe,
        settings={**recipe.settings, "bands": ["r"]},
        training=replace(recipe.training, epochs=10),
        split=replace(recipe.split, check_pixels=False),
    )


def make(
    *, out: str, scratch: str, scale: float = 1.0, recipe: Recipe | None = None, progress: Progress | None = None
) -> ModelBundle:
    """Make the bundle `segmentation`.

    Args:
        out: folder of the bundle.
        scratch: folder for some 1 GB of simulated stamps.
        scale: factor on the size of the training set; tests take a small part.
        recipe: another than `segmentation_recipe`.
        progress: told of each unit and epoch.
    """
    urls = [data.made(scratch, scale, least=16, progress=progress) for data in TRAINING]
    train(recipe or segmentation_recipe(), data=urls, out=out, progress=progress)
    bundle = ModelBundle.load(out)
    return bundle if "thresholds" in bundle.card.training else with_thresholds(bundle, out, scale)


PURITY = 0.97
"""Purity of all detections at the thresholds that ship."""

_SEEING = tuple(round(0.6 + 0.3 * (i + 0.5) / 8, 4) for i in range(8))
"""Arcsec, of the fields that thresholds are chosen on."""

_FIRST_SEED = 500


def with_thresholds(bundle: ModelBundle, out: str, scale: float = 1.0) -> ModelBundle:
    """The bundle with thresholds chosen on fields of seeds 500 to 507, written to `out`.

    Light is told from sky where the intersection over union with the truth is largest; peaks are objects where the
    completeness at 24-25 mag is largest among the thresholds with a purity of `PURITY`.
    """
    task, network = bundle.task(), bundle.network(fused=True)
    assert isinstance(task, SegmentTask)
    side = 1024 if scale >= 1 else 256
    fields = [truth_of(field_sky(_FIRST_SEED + i, side, seeing)) for i, seeing in enumerate(_SEEING)]
    seen = [(maps_of(task, network, tile), truth) for tile, truth in fields]
    foreground = max(_STEPS, key=lambda p: sum(_overlap(maps, truth, p) for maps, truth in seen))
    figures = {near: _figures(task, seen, near) for near in _STEPS}
    pure = [near for near in _STEPS if figures[near]["purity"][0] >= PURITY]
    near = max(pure or _STEPS, key=lambda level: figures[level]["completeness 24-25" if pure else "purity"][0])
    chosen = task.with_settings(foreground=foreground, near=near)
    kept = {name: figures[near][name][0] for name in ("purity", "completeness 23-24", "completeness 24-25", "pairs")}
    record = {"seeds": [_FIRST_SEED, _FIRST_SEED + 7], "foreground": foreground, "near": near, **kept}
    card = replace(
        bundle.card, settings=chosen.to_settings(), training={**bundle.card.training, "thresholds": finite(record)}
    )
    return ModelBundle.save(out, bundle.network(), card, bundle.known_objects(), bundle.typicality_file())


_STEPS = tuple(round(0.2 + 0.025 * i, 3) for i in range(25))


def _overlap(maps: np.ndarray, truth: Truth, probability: float) -> float:
    light = maps[LAYERS.index("foreground")] > np.log(probability / (1 - probability))
    return float((light & truth.foreground).sum() / max(1, (light | truth.foreground).sum()))


def _figures(task: SegmentTask, seen: list[Any], near: float) -> dict[str, list[float]]:
    """Figures of merit of centres alone, at a threshold."""
    settings = task.with_settings(near=near).settings
    sums = []
    for maps, truth in seen:
        peaks = accepted_peaks(maps, None, settings)
        sums.append(counts(DetectionSet(peaks.x, peaks.y, np.zeros(truth.foreground.shape, np.int32), {}), truth))
    return pooled(sums, repeats=1)

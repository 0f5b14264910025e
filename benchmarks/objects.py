"""The bundle `objects`: kinds of detections, stars and galaxies by S/N, magnitude and bands, another telescope.

python -m benchmarks --only objects     # finished pieces are not repeated
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from astroml_plugin.catalog.query import query
from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.evaluation import ranking_metrics
from astroml_plugin.evaluation.bootstrap import draws, interval
from astroml_plugin.simulation import Camera, DetectionSet, Population
from astroml_plugin.simulation.hst import STRUCTURES
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.recipe import Recipe
from astroml_plugin.training.run import TrainExecution
from benchmarks.harness import Section, scratch, shared_data, words_of
from benchmarks.small_data import FOLDS, SETS, balanced, stamps
from bundles.detected import DetectedSet
from bundles.objects import SNR
from tests.pages import table
from workflows.adapt import adapt
from workflows.infer import infer
from workflows.recipe import read_recipe
from workflows.simulate import simulate
from workflows.train import train

TITLE = "What a survey detects: the bundle `objects`"
BUNDLE = "objects"
SEED, COUNT, HST = 901, 8192, 4096
BINS = (6.0, 10.0, 20.0, 50.0, 100.0, 400.0, 2000.0)
MAGNITUDES = (20.0, 22.0, 23.0, 24.0, 25.0)
SKIES = (911, 912, 913)
DETECTED = DetectedSet(seed=931, skies=6)
CHOICES: tuple[tuple[str, str | None], ...] = (("g, r, i added up", None), ("r", "r"), ("g", "g"), ("i", "i"))
_KINDS = DetectionSet.CLASSES
_GALAXIES = [f"p_{name}" for name in _KINDS if name not in ("star", "artefact")]


def run() -> Section:
    """All parts."""
    torch.set_num_threads(1)
    kinds, by_snr, words = detections()
    parts = [
        f"{words_of(detections)} {words}",
        table(["kind", "objects", "called so"], kinds),
        table(["S/N", "stars and galaxies", "whole stamps", "clipped stamps"], by_snr),
        words_of(skies),
        table(["bands", *(f"{low:g}–{high:g} mag" for low, high in pairwise(MAGNITUDES))], skies()),
        words_of(found),
        table(["true kind", "detections", *_KINDS], found()),
    ]
    if (catalog := shared_data("cosmos_real26")) is not None:
        parts += [words_of(hubble), table(["structure", "stamps", *_KINDS], hubble(str(catalog)))]
    archive = shared_data(SETS["stargalaxy"][0])
    if archive is not None:
        head = ["how", "AUROC", "balanced accuracy", "groups of fields"]
        parts += [words_of(telescope), table(head, telescope(archive))]
    return Section(TITLE, "\n\n".join(parts))


def detections() -> tuple[list[list[Any]], list[list[Any]], str]:
    """Simulated detections of a seed that nothing was trained on, one band with its PSF, S/N log-uniform. Balanced
    accuracy of star against galaxy, with 95 % by bootstrap over objects; a quarter of the stamps end at a level
    (clipped)."""
    folder = scratch() / "objects"
    source = simulate(out=str(folder / "detections"), preset="detections", count=COUNT, seed=SEED, snr=SNR).source
    found = _catalog(source, folder / "catalog")
    truth = Stamps.open(source).labels(["object_id", "kind", "snr", "clip"]).sort_by("object_id").to_pandas()
    kind, clipped, snr = truth["kind"].to_numpy(object), truth["clip"].notna().to_numpy(), truth["snr"].to_numpy()
    called = _called(found)
    each = [(called[kind == name] == name).mean() for name in _KINDS]
    rows = [[name, int((kind == name).sum()), f"{share:.3f}"] for name, share in zip(_KINDS, each)]
    by_snr = []
    for low, high in pairwise(BINS):
        inside = (kind != "artefact") & (snr >= low) & (snr < high)
        cells = [_told(kind == "star", _chance(found) > 0.5, inside & part) for part in (~clipped, clipped)]
        by_snr.append([f"{low:g}–{high:g}", int(inside.sum()), *cells])
    told = f"Six classes: accuracy {(called == kind).mean():.3f}, balanced {np.mean(each):.3f}."
    return rows, by_snr, told


def skies() -> list[list[Any]]:
    """Three simulated skies in g, r and i with 30 objects per square arcminute, three in ten of them stars, measured at
    their true places whatever is beside them: balanced accuracy of star against galaxy by r magnitude."""
    rows = []
    whole = [_sky(seed) for seed in SKIES]
    for name, band in CHOICES:
        parts = []
        for seed, (source, truth) in zip(SKIES, whole):
            out = scratch() / "objects" / f"sky-{seed}-{band or 'all'}"
            found = _catalog(source, out, objects=truth, **({"band": band} if band else {}))
            told = true_values(truth)
            parts.append((told["class"] == "star", _chance(found) > 0.5, told["mag_r"].astype(float)))
        star, called, magnitude = (np.concatenate(values) for values in zip(*parts))
        bins = pairwise(MAGNITUDES)
        rows.append([name, *(_told(star, called, (magnitude >= low) & (magnitude < high)) for low, high in bins)])
    return rows


def found() -> list[list[Any]]:
    """What `segmentation` detects on six simulated skies of other seeds, in r or in g, r and i, S/N 2 to 10,000, with
    trails, ghosts and the like that nothing masks: part of each true kind that is called so. Detections of a sure kind
    (`labelled_detections`): blends, pieces of galaxies, profiles between the kinds and what lies at the edge, some 15
    to 30 %, are left out. The last rows are of stars and galaxies: balanced accuracy by true S/N."""
    truth, called, chance = [], [], []
    for number, source in enumerate(DETECTED.made(str(scratch() / "objects"))):
        values = _catalog(source, scratch() / "objects" / f"found-{number}")
        truth.append(Stamps.open(source).labels(["object_id", "kind", "snr"]).sort_by("object_id").to_pandas())
        called.append(_called(values))
        chance.append(_chance(values))
    kind, snr = (np.concatenate([one[name].to_numpy() for one in truth]) for name in ("kind", "snr"))
    names, star = np.concatenate(called), np.concatenate(chance) > 0.5
    rows: list[list[Any]] = []
    for name in _KINDS:
        chosen = kind == name
        rows.append([name, int(chosen.sum()), *(f"{(names[chosen] == other).mean():.3f}" for other in _KINDS)])
    for low, high in pairwise((2.0, 10.0, 20.0, 50.0, 100.0, 10_000.0)):
        chosen = (kind != "artefact") & (snr >= low) & (snr < high)
        rows.append([f"S/N {low:g}–{high:g}", int(chosen.sum()), _told(kind == "star", star, chosen), *[""] * 5])
    return rows


def hubble(catalog: str) -> list[list[Any]]:
    """Galaxies of HST that the bundle has not seen (the test part of COSMOS's example catalog, 14 galaxies of S/N 30 or
    more, each drawn many times at other angles, sizes, S/N and PSFs), by the structure that Gini, M20 and asymmetry of
    HST's own image tell: part that is called so. The last rows are of all structures, by S/N: the part called a star or
    an artefact, and the part called what its structure is."""
    folder = scratch() / "objects"
    changes = {"stamps": {"part": "test", "real": 1.0}}
    made = simulate(
        out=str(folder / "hst"), preset="detections", count=HST, seed=902, snr=SNR, hst=catalog, changes=changes
    )
    found = _catalog(made.source, folder / "hst-catalog")
    truth = Stamps.open(made.source).labels(["object_id", "kind", "class", "snr"]).sort_by("object_id").to_pandas()
    called = _called(found)
    real, kind = (truth["class"] == "real").to_numpy(), truth["kind"].to_numpy(object)
    rows = []
    for name in STRUCTURES:
        chosen = real & (kind == name)
        rows.append([name, int(chosen.sum()), *(f"{(called[chosen] == other).mean():.3f}" for other in _KINDS)])
    snr = truth["snr"].to_numpy()
    for low, high in ((6.0, 20.0), (20.0, 50.0), (50.0, 2000.0)):
        chosen = real & (snr >= low) & (snr < high)
        star, odd = ((called[chosen] == name).mean() for name in ("star", "artefact"))
        right = (called[chosen] == kind[chosen]).mean()
        told = f"star {star:.3f}, artefact {odd:.3f}, its structure {right:.3f}"
        rows.append([f"S/N {low:g}–{high:g}", int(chosen.sum()), told, *[""] * (len(_KINDS) - 1)])
    return rows


def telescope(archive: Path) -> list[list[Any]]:
    """Stars and galaxies of a 1.3 m telescope (Devasthal, R, 8-bit stamps without a PSF, bright ones cut off). As it
    ships; adapted to these stamps without a label (`adapt`, with 8,192 simulated detections); and trained on other
    fields from its weights, and from the start, each object judged by a network that saw none of its field (five groups
    of fields; 20 epochs), as if both were equally frequent (`balance = 1`). Pooled."""
    source = stamps("stargalaxy", archive, SETS["stargalaxy"][1])
    truth = Stamps.open(source).labels().sort_by("object_id").to_pandas()
    galaxy = truth["label"].to_numpy(object) == "galaxy"
    sides = [truth[f"fold_{fold}"].to_numpy(object) == "test" for fold in range(FOLDS)]
    shipped = 1 - _chance(_catalog(source, scratch() / "objects" / "telescope"))
    rows = [["as it ships", *_scores(galaxy, shipped, shipped > 0.5, sides)]]
    rows.append(["adapted, no label", *_scores(galaxy, chance := _adapted(source), chance > 0.5, sides)])
    for words, start in (("other fields, from its weights", BUNDLE), ("other fields, from the start", None)):
        chance, called = np.full(len(galaxy), np.nan), np.zeros(len(galaxy), bool)
        for fold, side in enumerate(sides):
            out = scratch() / "objects" / f"fields-{'from' if start else 'alone'}" / str(fold)
            train(fields_recipe(fold), data=source, out=str(out), execution=TrainExecution(from_bundle=start))
            name = out.with_name(f"{fold}-catalog")
            chance[side] = np.asarray(_catalog(source, name, bundle=str(out))["p_galaxy"], float)[side]
            called[side] = chance[side] > galaxy[~side].mean()
        rows.append([words, *_scores(galaxy, chance, called, sides)])
    return rows


def _adapted(source: str) -> F64:
    """(n,) probability of a galaxy of a bundle that was adapted to these stamps."""
    folder, catalog = scratch() / "objects", shared_data("cosmos_real26")
    options = {"snr": SNR} | ({"hst": str(catalog)} if catalog else {})
    labelled = simulate(out=str(folder / "adapting"), preset="detections", count=8192, seed=403, **options).source
    bundle = adapt(BUNDLE, data=labelled, unlabelled=source, out=str(folder / "adapted"))
    return 1 - _chance(_catalog(source, folder / "adapted-catalog", bundle=bundle.url))


def fields_recipe(fold: int) -> Recipe:
    """The recipe `objects` for stars and galaxies of all but one group of fields."""
    recipe = read_recipe("objects")
    settings = {**recipe.settings, "label": "label", "classes": ["galaxy", "star"], "class_weights": "balanced"}
    training = replace(recipe.training, epochs=20, learning_rate=0.001, batch_size=64)
    return replace(
        recipe, settings=settings, training=training, split=replace(recipe.split, column=f"fold_{fold}", leaks="drop")
    )


def true_values(truth: str) -> dict[str, np.ndarray]:
    """Columns of a table of true objects, in the order of the ids."""
    found = pq.read_table(truth).sort_by("object_id")
    return {name: found[name].to_numpy(zero_copy_only=False) for name in ("class", "mag_r")}


def _sky(seed: int) -> tuple[str, str]:
    """A sky, and the table of its objects."""
    made = simulate(
        out=str(scratch() / "objects" / f"sky-{seed}"),
        kind="survey",
        seed=seed,
        shape=(1536, 1536),
        density=30.0,
        population=Population(star_fraction=0.3, bulge_probability=0.3),
        camera=Camera(psf_fwhm=(0.6, 1.0)),
    )
    return made.source, str(Path(made.source).with_name("truth.parquet"))


def _catalog(source: str, out: Path, bundle: str = BUNDLE, **options: Any) -> dict[str, np.ndarray]:
    """Columns of the catalog in the order of the ids."""
    infer(source, bundle=bundle, out=str(out), **options)
    found = query(str(out), "SELECT * FROM catalog ORDER BY object_id").to_arrow()
    return {name: found[name].to_numpy(zero_copy_only=False) for name in found.column_names}


def _called(found: dict[str, np.ndarray]) -> np.ndarray:
    """(n,) name of the most probable kind."""
    kinds: np.ndarray = np.array(_KINDS, object)[np.stack([found[f"p_{name}"] for name in _KINDS], 1).argmax(1)]
    return kinds


def _chance(found: dict[str, np.ndarray]) -> F64:
    """(n,) probability of a star among stars and galaxies; 0.5 of what has no values."""
    star, galaxy = found["p_star"].astype(float), sum(found[name].astype(float) for name in _GALAXIES)
    chance: F64 = np.nan_to_num(star / (star + galaxy), nan=0.5)
    return chance


def _told(true: Bool, called: Bool, chosen: Bool) -> str:
    """Balanced accuracy of some objects with its interval."""
    true, called = true[chosen], called[chosen]
    if min(true.sum(), (~true).sum()) < 5:
        return "–"
    drawn = [balanced(true[rows], called[rows]) for rows in draws(len(true), 300, 0)]
    found = interval(balanced(true, called), drawn)
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _scores(galaxy: Bool, chance: F64, called: Bool, sides: Sequence[Bool]) -> list[str]:
    each = [balanced(galaxy[side], called[side]) for side in sides]
    everything = np.ones(len(galaxy), bool)
    return [
        f"{ranking_metrics.auroc(chance, galaxy):.3f}",
        _told(galaxy, called, everything),
        f"{min(each):.3f} to {max(each):.3f}",
    ]

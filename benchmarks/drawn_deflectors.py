"""Do drawn deflectors help to find lenses? Simulated arcs on few deflectors, on drawn ones, and on as many as wanted.

python -m benchmarks --only drawn_deflectors   # writes the section of RESULTS.md; finished trainings are not repeated
python -m benchmarks.drawn_deflectors --quick  # prints it, from one seed and few stamps

A survey knows few deflectors without noise. A generator is trained on these alone, and draws more. All arms train on
the same arcs, neighbours and noise; only the deflectors differ. Deflectors that judge come from a seed of their own.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from astroml_plugin.core.typing import F32, F64, Array, Bool
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation.ranking_metrics import search_figures
from astroml_plugin.evaluation.two_sample_tests import network_auc
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.recipe import Recipe
from benchmarks.deflectors import (
    CAMERA,
    PICTURE,
    STAMP,
    composed,
    pictures,
    population,
    scenes,
    shows_a_deflector,
)
from benchmarks.drawn import difference
from benchmarks.harness import Section, kept, scratch
from bundles.lens import lens_recipe
from tests.pages import table
from workflows.generate import generate
from workflows.ingest import ingest
from workflows.recipe import read_recipe
from workflows.train import train

TITLE = "Drawn galaxies as deflectors of lenses"
JUDGE, FRESH = 900, 100
"""Seed of what judges; what the seed of a training is raised by for deflectors that are as many as wanted."""
FIGURES = {"auroc": "AUROC", "recall": "recall at 1 % false positives"}
ARMS = ("the few", "drawn", "both", "as many as wanted")
"""Deflectors of the training stamps; "both" takes half of them from each of the first two."""


@dataclass(frozen=True)
class Scale:
    """How much is simulated and trained."""

    seeds: int = 3
    """Each has other few deflectors, arcs, noise and first weights, and another generator."""
    few: int = 160
    train: int = 3072
    validation: int = 320
    """Stamps on the few deflectors in all arms; half of them are the test side that a training asks for."""
    judged: int = 3200
    epochs: int = 24
    maker_epochs: int = 300


QUICK = Scale(1, 160, 256, 64, 128, 1, 2)


def run(scale: Scale | None = None) -> Section:
    """All figures; the section says what they were measured on."""
    scale = scale or Scale()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    told = []
    for seed in range(1, scale.seeds + 1):
        measured = kept(_name(seed, scale), lambda seed=seed: _measured(seed, scale))
        for arm in ARMS:
            found[arm].append(measured[arm])
        told.append(measured["told apart"]["auroc"])
    text = (
        f"Half of {scale.train:,} training stamps are lenses: arcs simulated on pictures of deflectors. {scale.few} "
        "deflectors without noise are known. The generator is trained on these alone, and both classes of a line have "
        "deflectors of the same kind, turned and mirrored. Negatives have unlensed sources, companions, rings or "
        f"nothing beside them. {scale.judged:,} stamps judge, half of them lenses, each with a deflector of its own. "
        f"{scale.seeds} seeds: other known deflectors, arcs, noise and first weights, another generator. Arcs and "
        "noise are the same for all lines of a seed. Means and standard errors, and mean differences over seeds with "
        "95 % intervals (Student's t). A small network tells drawn deflectors from others, both with noise, with AUROC "
        f"{np.mean(told):.2f} (0.5: not at all).\n\n"
    )
    return Section(TITLE, text + _table(found), {"arms": found, "told_apart": told, "scale": vars(scale)})


def _name(seed: int, scale: Scale) -> str:
    return f"drawn-deflectors-{seed}" + ("" if scale == Scale() else "-quick")


def _measured(seed: int, scale: Scale) -> dict[str, dict[str, float]]:
    """Figures of all arms of one seed."""
    folder = scratch() / _name(seed, scale)
    folder.mkdir(exist_ok=True)
    scene = scenes(scale.train + scale.validation, seed)
    few = pictures(population(scale.few, seed), seed)
    pools = {
        "the few": few,
        "drawn": _drawn(few, seed, folder, scale),
        "as many as wanted": pictures(population(scale.train, FRESH + seed), FRESH + seed),
    }
    fresh = pools["as many as wanted"]
    found = {"told apart": kept(f"{_name(seed, scale)}-told", lambda: {"auroc": _told_apart(fresh, pools["drawn"])})}
    learn, rest = scene.part(slice(scale.train)), scene.part(slice(scale.train, None))
    validation = composed(rest, pool("the few", pools, scale.validation), seed)
    for place, arm in enumerate(ARMS):

        def measure(arm: str = arm, place: int = place) -> dict[str, float]:
            image = np.concatenate([composed(learn, pool(arm, pools, scale.train), seed), validation])
            bundle = _trained(image, scene.lens, folder / str(place), seed, scale)
            judged, lens = _judges(scale.judged)
            return search_figures(_probability(bundle, judged), lens, 0.01)

        found[arm] = kept(f"{_name(seed, scale)}-{place}", measure)
    return found


def _told_apart(fresh: F32, drawn: F32) -> float:
    """AUROC of a small network that learns to tell drawn pictures from fresh ones, both with noise."""
    rng = np.random.default_rng(0)
    sets = []
    for some in (fresh[:1000], drawn[:1000]):
        noise = np.stack([np.sqrt(CAMERA.variance(one)) for one in some])
        sets.append(torch.from_numpy(some / noise + rng.standard_normal(some.shape, dtype=np.float32)))
    return network_auc(*sets)


def pool(arm: str, pools: Mapping[str, F32], count: int) -> F32:
    """Pictures of deflectors for the stamps of an arm, (count, band, y, x).

    Args:
        arm: one of `ARMS`.
        pools: pictures by name of the other arms; the few are used equally often, of the others the first are.
        count: stamps.
    """
    if arm == "both":
        half = count // 2
        return np.concatenate([pool("the few", pools, half), pool("drawn", pools, count - half)])
    return pools[arm][np.arange(count) % len(pools[arm])]


@lru_cache(maxsize=1)
def _judges(count: int) -> tuple[F32, Bool]:
    """Stamps that judge, and which of them are lenses."""
    scene = scenes(count, JUDGE)
    return composed(scene, pictures(population(count, JUDGE), JUDGE), JUDGE), scene.lens


def _drawn(few: F32, seed: int, folder: Path, scale: Scale) -> F32:
    """Pictures of a generator that learned from the few, as many as there are training stamps."""
    level = np.float32(few.sum((2, 3)).mean(0))[:, None, None]  # else it learns the bright bands better
    source = _stored(few / level * level.mean(), {}, folder / "few")
    recipe = read_recipe("generate")
    maker = train(
        replace(
            recipe,
            settings={"stamp_size": PICTURE, "detail": 300.0},
            network_arguments={"latent": 8, "side": 48, "hidden": [256, 128], "flow": [128, 128], "shapes": [64, 64]},
            training=replace(recipe.training, epochs=scale.maker_epochs, batch_size=32, seed=seed),
            split=replace(recipe.split, fractions=(0.9, 0.05, 0.05)),
        ),
        data=source,
        out=str(folder / "maker"),
    ).bundle
    count = scale.train + scale.train // 20
    store = Stamps.open(generate(maker, out=str(folder / "made"), count=count, seed=seed).source)
    made: F32 = store.read_rows(np.arange(count))[0] / level.mean() * level
    return made[shows_a_deflector(made)]


def _stored(image: F32, labels: Mapping[str, Array], out: Path) -> str:
    """The URL of stamps in nJy with label columns."""
    archive = out.with_suffix(".npz")
    if not archive.exists():  # a file that is written again counts as another
        np.savez(archive, images=image, object_id=np.arange(len(image)), **labels)  # type: ignore[arg-type]
    keys = {key: key for key in ("images", "object_id", *labels)}
    sky = {"pixel_scale": CAMERA.pixel_scale, "zero_point": CAMERA.zero_point}
    out = out.with_suffix(".zarr")
    return ingest([str(archive)], out=str(out), npz_map=keys, layout="ncyx", bands=",".join(CAMERA.bands), **sky).source


def _trained(image: F32, lens: Bool, out: Path, seed: int, scale: Scale) -> ModelBundle:
    """The classifier of an arm; its stamps are thrown away."""
    labels = {
        "class": np.where(lens, "lens", "other"),
        "side": np.array(["validation", "test"])[np.arange(len(image)) // 2 % 2],
    }
    labels["side"] = np.where(np.arange(len(image)) < scale.train, "train", labels["side"])
    data = out / "data"
    data.mkdir(parents=True, exist_ok=True)
    bundle = train(_classifier(seed, scale), data=_stored(image, labels, data / "stamps"), out=str(out / "bundle"))
    shutil.rmtree(data)
    return ModelBundle.load(bundle.bundle)


def _classifier(seed: int, scale: Scale) -> Recipe:
    """The recipe of the bundle `lens` with a smaller network for smaller stamps."""
    recipe = lens_recipe()
    settings = {name: recipe.settings[name] for name in ("label", "classes", "bands", "normalisation")}
    return replace(
        recipe,
        settings={**settings, "stamp_size": STAMP},
        network_arguments={**recipe.network_arguments, "widths": [16, 32, 64]},
        training=replace(recipe.training, epochs=scale.epochs, batch_size=64, ema=0.99, patience=0, seed=seed),
        split=replace(recipe.split, column="side"),
        typicality=replace(recipe.typicality, fit=False),
    )


def _probability(bundle: ModelBundle, image: F32) -> F64:
    """(n,) probability of a lens."""
    task, network = bundle.task(), bundle.network(fused=True)
    sky = {"pixel_scale": CAMERA.pixel_scale, "zero_points": (CAMERA.zero_point,) * len(CAMERA.bands)}
    cutouts = from_stamps(image, None, None, bands=CAMERA.bands, **sky)
    parts = [cutouts.take(slice(start, start + 256)) for start in range(0, len(image), 256)]
    return np.concatenate([columns(task, network, part)["p_lens"] for part in parts]).astype(np.float64)


def _table(found: Mapping[str, list[dict[str, float]]]) -> str:
    rows = []
    for arm, figures in found.items():
        cells = [arm]
        for name in FIGURES:
            values, few = (np.array([one[name] for one in some]) for some in (figures, found[ARMS[0]]))
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
            cells += [f"{values.mean():.4f} ± {error:.4f}", difference(values, few, 4)]
        rows.append(cells)
    head = [cell for name in FIGURES.values() for cell in (name, f"less {ARMS[0]}")]
    return table(["deflectors", *head], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    section = run(QUICK if parser.parse_args().quick else None)
    print(section.text, json.dumps(section.data), sep="\n\n")

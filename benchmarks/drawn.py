"""Do drawn galaxies help a rare class? Edge-on galaxies of Galaxy Zoo with few labels, with and without drawn ones.

python -m benchmarks --only drawn          # writes the section of RESULTS.md; finished trainings are not repeated
python -m benchmarks.drawn --quick         # prints it, from one seed and one epoch

The path is the documented one: `generate` is trained on the rare class's training objects alone, draws labelled stamps,
and `classify` trains on both. Objects of even ids judge; nothing of them is in any store that trains.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats

from astroml_plugin.core.typing import I64, Array
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.evaluation.ranking_metrics import search_figures
from astroml_plugin.networks.framing import shape_of
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.recipe import Recipe
from benchmarks.harness import Section, kept, scratch, shared_data
from benchmarks.picture_weights import deciding
from tests.pages import table
from workflows.generate import generate
from workflows.ingest import ingest
from workflows.recipe import read_recipe
from workflows.train import train

TITLE = "Drawn galaxies for a rare class"
RARE, UNKNOWN = 3, 4
"""Labels of Galaxy Zoo: edge-on; people could not tell."""
BANDS = ("R", "G", "B")
NOISE = 3.5
"""Of the sky of these pictures, where half of the pixels are between 2 and 7."""
FIGURES = {"auroc": "AUROC", "rws": "rank-weighted score", "recall": "recall at 5 % false positives"}


@dataclass(frozen=True)
class Scale:
    """How much is trained."""

    seeds: int = 5
    """Each draws other labels and other first weights."""
    rare: int = 150
    """Labels of the rare class; the generator learns from those whose light fits a galaxy, less a sixth."""
    others: int = 640
    epochs: int = 12
    maker_epochs: int = 120
    judged: int = 2000


QUICK = Scale(1, 150, 160, 1, 2, 200)
ARMS: dict[str, tuple[int, bool]] = {
    "nothing": (0, False),
    "class weights": (0, True),
    "as many drawn": (1, False),
    "four times as many drawn": (4, False),
    "four times as many drawn, class weights": (4, True),
}
"""Name -> drawn stamps for each label of the rare class, and whether classes are weighed by their inverse shares."""


def run(scale: Scale | None = None) -> Section:
    """All figures; the section says what they were measured on."""
    scale = scale or Scale()
    archive = shared_data("gz1_sdss_rgb64_dev.npz")
    if archive is None:
        return Section(TITLE, "Not measured: there are no Galaxy Zoo images here (ASTROML_TEST_DATA).")
    torch.set_num_threads(1)
    with np.load(archive) as whole:
        image, label, ids = whole["x"], whole["y"], whole["objid"].astype(np.int64)
    usable, judge = label != UNKNOWN, deciding(ids)
    rows = np.flatnonzero(usable & judge)[: scale.judged]
    pixels = np.ascontiguousarray(image[rows].transpose(0, 3, 1, 2))
    judged, odd = from_stamps(pixels, None, None, bands=BANDS), label[rows] == RARE
    pool = np.flatnonzero(usable & ~judge)
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(scale.seeds):
        chosen = _chosen(pool, label, seed, scale)
        for arm in ARMS:
            name = f"drawn-{seed}-{list(ARMS).index(arm)}" + ("" if scale == Scale() else "-quick")

            def measure(arm: str = arm, chosen: I64 = chosen, seed: int = seed) -> dict[str, float]:
                bundle = _trained(image, label, chosen, seed, arm, scale)
                return search_figures(_probability(bundle, judged), odd)

            found[arm].append(kept(name, measure))
    text = (
        f"Edge-on galaxies of Galaxy Zoo 1 (`label` {RARE}) cut to {scale.rare} labels beside {scale.others} others; "
        f"{int(odd.sum())} of them among {len(odd):,} objects of even ids judge. {scale.seeds} seeds: other labels, "
        "other first weights, another generator, the same for all lines. Means, and mean differences over seeds with "
        "95 % intervals (Student's t).\n\n"
    )
    return Section(TITLE, text + _table(found), {"arms": found})


def _chosen(pool: I64, label: Array, seed: int, scale: Scale) -> I64:
    """Rows that have labels: the rare class first."""
    rng = np.random.default_rng(seed)
    sides = [(pool[label[pool] == RARE], scale.rare), (pool[label[pool] != RARE], scale.others)]
    return np.concatenate([rng.permutation(rows)[:count] for rows, count in sides])


def _stored(folder: str, image: Array, kind: Array, rows: I64) -> str:
    """The URL of some pictures with the column `kind`."""
    archive = scratch() / f"{folder}.npz"
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not archive.exists():  # a file that is written again counts as another
        np.savez(archive, images=image[rows], kind=kind[rows], object_id=rows)
    keys = {key: key for key in ("images", "kind", "object_id")}
    out = str(scratch() / f"{folder}.zarr")
    return ingest([str(archive)], out=out, npz_map=keys, layout="nyxc", bands=",".join(BANDS)).source


def _trained(image: Array, label: Array, chosen: I64, seed: int, arm: str, scale: Scale) -> ModelBundle:
    """The classifier of an arm."""
    ratio, weighed = ARMS[arm]
    folder = f"drawn/{seed}" + ("" if scale == Scale() else "-quick")
    kind = np.where(label == RARE, "rare", "other")
    sources = [_stored(f"{folder}/all", image, kind, chosen)]
    if ratio:
        shown = chosen[: scale.rare][_shows_a_galaxy(image[chosen[: scale.rare]])]
        maker = _maker(_stored(f"{folder}/rare", image, kind, shown), f"{folder}/maker", seed, scale)
        out = str(scratch() / f"{folder}/made-{ratio}")
        sources.append(
            generate(maker, out=out, count=ratio * scale.rare, seed=seed, noise=NOISE, labels={"kind": "rare"}).source
        )
    recipe = _classifier(seed, weighed, scale)
    out = str(scratch() / f"{folder}/{list(ARMS).index(arm)}")
    return ModelBundle.load(train(recipe, data=sources, out=out).bundle)


def _shows_a_galaxy(image: Array) -> Array:
    """(n,) whether the light of pictures (n, y, x, band) fits a galaxy, as a generator wants it."""
    light = torch.from_numpy(image.sum(3).astype(np.float32))
    sky = light[:, :4].flatten(1).median(1).values
    return (shape_of(light - sky[:, None, None]).size > 0).numpy()


def _maker(source: str, out: str, seed: int, scale: Scale) -> str:
    """The generator of the rare class, from its labels alone."""
    recipe = read_recipe("generate")
    return train(
        replace(
            recipe,
            settings={"stamp_size": 64, "detail": 100.0, "normalisation": {"background": "border", "unit": "scale"}},
            network_arguments={"latent": 8, "side": 48, "hidden": [256, 128], "flow": [128, 128], "shapes": [64, 64]},
            training=replace(recipe.training, epochs=scale.maker_epochs, batch_size=32, seed=seed),
            split=replace(recipe.split, fractions=(0.84, 0.08, 0.08)),
        ),
        data=source,
        out=str(scratch() / out),
    ).bundle


def _classifier(seed: int, weighed: bool, scale: Scale) -> Recipe:
    """The recipe `classify` with a small network; what the generator learned from is judged on by none."""
    recipe = read_recipe("classify")
    settings = {name: value for name, value in recipe.settings.items() if name == "normalisation"}
    return replace(
        recipe,
        settings={**settings, "label": "kind", "class_weights": "balanced" if weighed else "none"},
        network="strided_cnn",
        network_arguments={"widths": [16, 32, 64], "hidden": 64, "dropout": 0.1},
        training=replace(recipe.training, epochs=scale.epochs, batch_size=64, seed=seed),
        split=replace(recipe.split, fractions=(0.8, 0.1, 0.1), leaks="drop"),
    )


def _probability(bundle: ModelBundle, judged: Cutouts) -> Array:
    """(n,) probability of the rare class."""
    task, network = bundle.task(), bundle.network(fused=True)
    parts = [judged.take(slice(start, start + 256)) for start in range(0, len(judged), 256)]
    return np.concatenate([columns(task, network, part)["p_rare"] for part in parts]).astype(np.float64)


def _table(found: Mapping[str, list[dict[str, float]]]) -> str:
    rows = []
    for arm, figures in found.items():
        cells = []
        for name in FIGURES:
            values = np.array([one[name] for one in figures])
            cells.append(f"{values.mean():.3f}")
            cells += [difference(values, np.array([one[name] for one in found[other]])) for other in list(ARMS)[:2]]
        rows.append([arm, *cells])
    head = [cell for name in FIGURES.values() for cell in (name, "less nothing", "less class weights")]
    return table(["added", *head], rows)


def difference(values: Array, others: Array, digits: int = 3) -> str:
    """Mean difference of pairs (n,) with its 95 % interval (Student's t), as text; nothing where there is none."""
    gaps = values - others
    if len(gaps) < 2 or not gaps.any():
        return ""
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
    middle, low, high = (f"{value:+.{digits}f}" for value in (gaps.mean(), gaps.mean() - half, gaps.mean() + half))
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    section = run(QUICK if parser.parse_args().quick else None)
    print(section.text, json.dumps(section.data), sep="\n\n")

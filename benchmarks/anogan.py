"""The lecture's GAN for anomalies: f-AnoGAN on isolated mergers and on real ones, beside an autoencoder and asymmetry.

python -m benchmarks --only anogan         # writes the section of RESULTS.md; finished trainings are not repeated
python -m benchmarks.anogan --quick        # prints it, from a few stamps and epochs

Margalef-Bentabol et al. (2020, MNRAS 496, 2346) trained a Wasserstein GAN on isolated simulated galaxies and found some
90 % of the merging ones. Here two figures are quoted: recall at 5 % false positives, and recall where 5 % of what is
selected from as many mergers as ordinary galaxies are ordinary ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.typing import F64, Bool
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.evaluation import anomaly_report
from astroml_plugin.networks.anogan import AnoGAN
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.training.adversarial import AdversarialSettings
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.recipe import Recipe
from benchmarks import picture_weights
from benchmarks.anomaly import POPULATION, in_words, measured_by_others, one_set, own_columns, real_recipe, stamps_of
from benchmarks.harness import Section, kept, scratch, shared_data
from bundles.morphology import ingested
from tests.pages import table
from workflows.recipe import read_recipe
from workflows.simulate import simulate
from workflows.train import train

TITLE = "A Wasserstein GAN for anomalies"
TRAINING, JUDGED = 371, 1020
"""Seeds: of the isolated training galaxies; of the ordinary ones that judge, mergers have the next."""
ALONE = {"galaxies": 0.0, "stars": 0.0}
NETWORKS = ("anogan", "autoencoder")
CONTAMINATION = 0.05
_NEIGHBOURS, _COMPONENTS = 5, 32


@dataclass(frozen=True)
class Scale:
    """How much is simulated and trained."""

    simulated: int = 24_576
    trained: int = 4096
    """Isolated galaxies of the train split."""
    ordinary: int = 1500
    mergers: int = 400
    population: int = 1000
    """Ordinary galaxies that forests and components are fitted to."""
    adversarial: int = 36
    epochs: int = 8
    picture_epochs: int = 30
    repeats: int = 300


QUICK = Scale(1024, 256, 60, 24, 60, 1, 1, 1, 20)


def run(scale: Scale | None = None) -> Section:
    """All figures; the section says what they were measured on."""
    scale = scale or Scale()
    torch.set_num_threads(1)
    text, data = _isolated(scale)
    real, more = _real(scale)
    return Section(TITLE, f"{text}\n\n{real}", {"isolated": data, "real": more})


# ---- trainings ---------------------------------------------------------------------------------------------------


def isolated_source(scale: Scale) -> str:
    """Stamps of ordinary galaxies without neighbours."""
    out = scratch() / f"isolated-{TRAINING}-{scale.simulated}"
    changes = {"stamps": {**ALONE, "anomaly_fraction": 0.0}}
    return simulate(out=str(out), preset="anomalies", count=scale.simulated, seed=TRAINING, changes=changes).source


def isolated_bundles(scale: Scale) -> dict[str, ModelBundle]:
    """Network -> bundle trained on isolated ordinary galaxies alone, without a judge of painted light."""
    recipe = read_recipe("anomaly")
    recipe = replace(
        recipe,
        settings={**recipe.settings, "bands": ["g", "r", "i"]},
        training=replace(recipe.training, epochs=scale.epochs, batch_size=64),
        split=replace(recipe.split, limit=scale.trained),
    )
    source = isolated_source(scale)
    return {name: _bundle(_with(recipe, name, scale), source, f"isolated-{name}", scale) for name in NETWORKS}


def picture_bundles(scale: Scale, source: str) -> dict[str, ModelBundle]:
    """Network -> bundle trained on the pictures of Galaxy Zoo, unlabelled, without a judge of painted light."""
    recipe = real_recipe(scale.picture_epochs)
    recipe = replace(recipe, training=replace(recipe.training, batch_size=64))
    return {name: _bundle(_with(recipe, name, scale), source, f"pictures-{name}", scale) for name in NETWORKS}


def _with(recipe: Recipe, network: str, scale: Scale) -> Recipe:
    """The recipe with a network and no judge; generator and critic come first where there are some."""
    arguments = {"widths": [8, 16, 32], "judge": []}
    gan = AdversarialSettings(epochs=scale.adversarial, learning_rate=7e-4, critic_steps=2)
    typicality = replace(recipe.typicality, fit=False)
    recipe = replace(recipe, network=network, network_arguments=arguments, typicality=typicality)
    return replace(recipe, adversarial=gan if network == "anogan" else AdversarialSettings())


def _bundle(recipe: Recipe, source: str, name: str, scale: Scale) -> ModelBundle:
    out = f"{scratch()}/anogan/{name}" + ("" if scale == Scale() else "-quick")
    train(recipe, data=source, out=out, progress=print)
    return ModelBundle.load(out)


# ---- isolated mergers --------------------------------------------------------------------------------------------


def _isolated(scale: Scale) -> tuple[str, dict[str, Any]]:
    bundles = isolated_bundles(scale)
    sets = [one_set(JUDGED, scale.ordinary, **ALONE), one_set(JUDGED + 1, scale.mergers, "merger", **ALONE)]
    cutouts = Cutouts.concatenate([stamps_of(one)[0] for one in sets])
    odd = np.repeat([False, True], [scale.ordinary, scale.mergers])
    population, _ = stamps_of(one_set(POPULATION, scale.population, **ALONE))
    key = "-".join([*(bundle.sha256[:8] for bundle in bundles.values()), str(len(odd)), str(scale.repeats)])

    def measure() -> dict[str, Any]:
        others = anomaly_report.searches(
            measured_by_others(cutouts, "anogan"), measured_by_others(population, "anogan")
        )
        ranked = {**_ranked(bundles, cutouts), **others}
        return {
            "methods": _figures(ranked, odd, scale.repeats),
            "drawn": _variety(bundles["anogan"], cutouts.take(slice(0, scale.ordinary))),
        }

    found = kept(f"anogan-isolated-{key}", measure)
    text = (
        f"### Isolated mergers\n\n{scale.mergers} mergers and {scale.ordinary:,} ordinary galaxies without neighbours "
        f"(seeds {JUDGED + 1} and {JUDGED}). f-AnoGAN and the autoencoder: small networks without a judge, trained on "
        f"{scale.trained:,} isolated ordinary galaxies (seed {TRAINING}). "
        + _told(found["drawn"])
        + "\n\n"
        + _table(found["methods"])
    )
    return text, found


def _ranked(bundles: Mapping[str, ModelBundle], cutouts: Cutouts) -> dict[str, F64]:
    """Scores of each bundle: of the network's signs alone, which is f-AnoGAN's, and of all signs; ours first."""
    ranked = {}
    for name, bundle in bundles.items():
        own = own_columns(bundle, cutouts)
        learned = [own[f"anomaly_{sign}"] for sign in ("reconstruction", "critic") if f"anomaly_{sign}" in own]
        ranked[f"{name}: the network's signs"] = np.sqrt(np.sum(np.square(learned), axis=0))
        ranked |= {
            f"{name}: {sign}": own[f"anomaly_{sign}"]
            for sign in ("reconstruction", "critic", "latent")
            if f"anomaly_{sign}" in own
        }
        ranked[f"{name}: whole score"] = own["anomaly_score"]
    shipped = own_columns(ModelBundle.load("anomaly"), replace(cutouts, bands=("g", "r", "i")))
    ranked["shipped bundle"] = shipped["anomaly_score"]
    return ranked


def _figures(ranked: Mapping[str, F64], odd: Bool, repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = anomaly_report.compared(ranked, odd, repeats)
    for name, score in ranked.items():
        found[name]["uncontaminated"] = uncontaminated(score, odd)
    return found


def uncontaminated(score: F64, odd: Bool, contamination: float = CONTAMINATION) -> float:
    """Largest recall of anomalies at which so small a part of what is selected is ordinary, in an equal mixture."""
    levels = np.unique(score[odd])
    recall = 1 - np.searchsorted(np.sort(score[odd]), levels) / odd.sum()
    false = 1 - np.searchsorted(np.sort(score[~odd]), levels) / (~odd).sum()
    pure = false <= contamination * (false + recall)
    return float(recall[pure].max()) if pure.any() else 0.0


# ---- real mergers ------------------------------------------------------------------------------------------------


def _real(scale: Scale) -> tuple[str, dict[str, Any]]:
    title = "### Real mergers (Galaxy Zoo 1)\n\n"
    archive = shared_data("gz1_sdss_rgb64_dev.npz")
    if archive is None:
        return f"{title}Not measured: there are no Galaxy Zoo images here (ASTROML_TEST_DATA).", {}
    source = ingested(str(archive), str(scratch() / "anomaly"))
    bundles = picture_bundles(scale, source)
    stamps = Stamps.open(source)
    labels = stamps.labels()
    label, ids = labels["label"].to_numpy(), labels["object_id"].to_numpy()
    known = np.flatnonzero((label != 4) & ~picture_weights.deciding(ids))
    cutouts, odd = from_stamps(*stamps.read_rows(known), bands=stamps.bands), label[known] == 5
    key = "-".join(bundle.sha256[:8] for bundle in bundles.values())

    def measure() -> dict[str, Any]:
        ranked = {**_ranked(bundles, cutouts), **anomaly_report.searches(measured_by_others(cutouts, "anogan"))}
        return {"methods": _figures(ranked, odd, scale.repeats), "drawn": _variety(bundles["anogan"], cutouts)}

    found = kept(f"anogan-real-{key}-{scale.repeats}", measure)
    text = (
        f"{title}{odd.sum()} mergers among {(~odd).sum():,} others, those of odd ids (even ids chose the weights of "
        "the whole score); networks trained on all pictures, unlabelled. "
        + _told(found["drawn"])
        + "\n\n"
        + _table(found["methods"])
    )
    return text, found


# ---- does the generator vary -------------------------------------------------------------------------------------


def seen_by_critic(bundle: ModelBundle, cutouts: Cutouts) -> tuple[AnoGAN, Tensor]:
    """The GAN of a bundle, and stamps as its critic sees them (n, b, s, s)."""
    learned = bundle.network().network
    assert isinstance(learned, AnoGAN)
    with torch.inference_mode():
        return learned, learned.real(*bundle.task().prepare(cutouts)[0])


def _variety(bundle: ModelBundle, cutouts: Cutouts) -> dict[str, float]:
    """Spread of drawn images over that of real ones, and coverage (Naeem et al. 2020) of real ones by drawn ones,
    beside that by other real ones."""
    network, real = seen_by_critic(bundle, cutouts)
    half = len(real) // 2
    with torch.inference_mode():
        drawn = network.generator(network.drawn(half, torch.Generator().manual_seed(JUDGED)))
    flat = [some.flatten(1) for some in (real[:half], real[half : 2 * half], drawn)]
    _, _, axes = torch.pca_lowrank(flat[0], min(_COMPONENTS, half))
    first, second, made = ((some - flat[0].mean(0)) @ axes for some in flat)
    radius = torch.cdist(first, first).kthvalue(min(_NEIGHBOURS, half - 1) + 1, dim=1).values
    covered = {
        name: float((torch.cdist(first, some).amin(1) <= radius).float().mean())
        for name, some in (("coverage", made), ("coverage_real", second))
    }
    return {"spread": float(drawn.std(0).mean() / real.std(0).mean()), **covered}


def _told(drawn: Mapping[str, float]) -> str:
    return (
        f"Drawn images vary {drawn['spread']:.2f} times as much as real ones; {drawn['coverage']:.0%} of real images "
        "have a drawn one as near as their five nearest neighbours, and a perfect generator would have "
        f"{drawn['coverage_real']:.0%} (that of other real images)."
    )


def _table(found: Mapping[str, Any]) -> str:
    head = ["method", "AUROC", "recall at 5 % false positives", "at 5 % contamination", "recall gain of the first"]
    rows = []
    for name, values in found.items():
        gain = in_words(values["recall_gain"]) if "recall_gain" in values else ""
        rows.append(
            [name, in_words(values["auroc"]), in_words(values["recall"]), f"{values['uncontaminated']:.2f}", gain]
        )
    return table(head, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    print(run(QUICK if parser.parse_args().quick else None).text)

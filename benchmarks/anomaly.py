"""What the anomaly search can do: real mergers, simulated anomalies on fresh seeds, robustness and speed.

python -m benchmarks --only anomaly        # writes the section of RESULTS.md (two cores: half an hour)
python -m benchmarks.anomaly --quick       # prints it, from a few stamps
python -m benchmarks.anomaly --weights     # chooses the weights of the signs for 8-bit pictures anew, and says them

Every method sees the same pixels and learns from no label, but for active learning, which is a part of its own. What is
simulated and measured is kept below ASTROML_BENCH, and finished parts are not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from distributed import Client

from astroml_plugin.compute.cluster import connect
from astroml_plugin.cutouts import Cutouts, from_stamps
from astroml_plugin.evaluation import anomaly_report
from astroml_plugin.evaluation.ranking_metrics import search_figures
from astroml_plugin.inference import prepare
from astroml_plugin.simulation import AnomalySet
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.anomaly.signs import PICTURE_WEIGHTS
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.recipe import Recipe
from benchmarks import anomaly_labels, picture_weights, skies
from benchmarks.anomaly_labels import Sought
from benchmarks.harness import REPEATS, Section, interleave, kept, kept_arrays, median_iqr, scratch, shared_data
from bundles.morphology import ingested
from tests.anomaly_robustness import changes
from tests.pages import table
from workflows.recipe import read_recipe
from workflows.train import train

POPULATION, NORMAL, ISOLATED, SOUGHT = 450, 950, 960, 1000
"""Seeds: what baselines learn from; test stamps (kinds of anomalies have the next ones); isolated ones; robustness;
those of active learning."""
BANDS = ("g", "r", "i")
TARGETS = {"auroc": 0.95, "gain": 1.3, "real_auroc": 0.90, "real_rws": 0.25, "objects_per_second": 3000}
"""What issue 7 asks for."""
_VERSION = 1


@dataclass(frozen=True)
class Scale:
    """How much is simulated and trained."""

    population: int = 2000
    normal: int = 5000
    each: int = 100
    isolated: int = 1000
    robust: int = 300
    epochs: int = 0
    """Of the training on real images; 0: the recipe's."""
    repeats: int = 300
    speed: int = 20_480
    seeds: int = 20
    """Of active learning."""


SHORTER = Scale(population=1000, normal=2000, isolated=300, robust=200, speed=0)
"""With ASTROML_BENCH_SHORTER in the environment."""
QUICK = Scale(120, 320, 16, 60, 24, 1, 50, 1024, 2)


def run(scale: Scale | None = None) -> Section:
    """All figures; the section says what they were measured on."""
    scale = scale or (SHORTER if os.environ.get("ASTROML_BENCH_SHORTER") else Scale())
    torch.set_num_threads(1)
    model = ModelBundle.load(os.environ.get("ASTROML_BENCH_BUNDLE", "anomaly"))
    measures: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
        "real": partial(_real, scale),
        "simulated": partial(_simulated, scale, model, isolated=False),
        "isolated": partial(_simulated, scale, model, isolated=True),
        "active": partial(_active, scale, model),
        "robustness": partial(_robustness, scale, model),
        "speed": partial(_speed, scale, model),
    }
    key = _key(scale, model)
    parts = {name: kept(f"anomaly-{name}-{key}", measure) for name, measure in measures.items()}
    head = (
        f"Bundle `{model.name}` ({model.sha256[:12]}). Scores and searches learn from no label; brackets are 95 % "
        f"intervals of {scale.repeats} bootstrap samples, of differences (`gain`: ours less theirs) on the same ones. "
        f"Recall is quoted at {anomaly_report.FPR:.0%} false positives; RWS is the rank-weighted score."
    )
    if scale != Scale():
        head += f" A shorter run (ASTROML_BENCH_SHORTER): {scale.normal:,} ordinary stamps, not {Scale().normal:,}."
    text = "\n\n".join([head, *(part for part, _ in parts.values())])
    return Section(
        "Anomalies", text, {"targets": TARGETS, "bundle": model.sha256, **{k: d for k, (_, d) in parts.items()}}
    )


# ---- real mergers ------------------------------------------------------------------------------------------------


def _key(scale: Scale, model: ModelBundle) -> str:
    """Of finished parts: what they depend on."""
    return hashlib.sha256(f"{_VERSION} {model.sha256} {scale} {PICTURE_WEIGHTS}".encode()).hexdigest()[:12]


def real_recipe(epochs: int = 0) -> Recipe:
    """The recipe `anomaly` for Galaxy Zoo's pictures; class 4 (don't know) is left out, labels only tell `evaluate`."""
    recipe = read_recipe("anomaly")
    settings = {**recipe.settings, "label": "label", "anomalies": ["5"], "leave_out": {"label": [4]}}
    training = replace(recipe.training, epochs=epochs or recipe.training.epochs)
    return replace(recipe, settings=settings, training=training)


@dataclass(frozen=True)
class Pictures:
    """Those of Galaxy Zoo that people could tell, and a bundle trained on them, unlabelled."""

    cutouts: Cutouts
    odd: np.ndarray
    """(n,) which are mergers."""
    deciding: np.ndarray
    """(n,) which choose: those with even ids. Figures are quoted for the others."""
    model: ModelBundle


def pictures(scale: Scale) -> Pictures | None:
    """None where there are no Galaxy Zoo images."""
    archive = shared_data("gz1_sdss_rgb64_dev.npz")
    if archive is None:
        return None
    folder = str(scratch() / "anomaly")
    source = ingested(str(archive), folder)
    bundle = train(real_recipe(scale.epochs), data=source, out=f"{folder}/galaxyzoo-{scale.epochs}").bundle
    stamps = Stamps.open(source)
    labels = stamps.labels()
    label, ids = labels["label"].to_numpy(), labels["object_id"].to_numpy()
    known = np.flatnonzero(label != 4)
    cutouts = from_stamps(*stamps.read_rows(known), bands=stamps.bands)
    return Pictures(cutouts, label[known] == 5, picture_weights.deciding(ids[known]), ModelBundle.load(bundle))


def _real(scale: Scale) -> tuple[str, dict[str, Any]]:
    title = "### Real mergers (Galaxy Zoo 1)\n\n"
    given = pictures(scale)
    if given is None:
        return title + _NO_PICTURES, {}
    ranked = _ranked(given.model, given.cutouts, None, "real")
    shipped = own_columns(ModelBundle.load("anomaly"), replace(given.cutouts, bands=BANDS))
    ranked["shipped bundle, not trained on these"] = shipped["anomaly_score"]
    judged = ~given.deciding
    found = anomaly_report.compared(
        {name: values[judged] for name, values in ranked.items()}, given.odd[judged], scale.repeats
    )
    whole = anomaly_report.compared({name: ranked[name] for name in _WHOLE}, given.odd, scale.repeats)
    text = (
        f"{given.odd.sum()} mergers among {(~given.odd).sum():,} elliptical, spiral and edge-on galaxies (Lintott et "
        "al. 2011), 8-bit colour pictures; the recipe `anomaly` trained on all of them, unlabelled; asked for: AUROC "
        f"{TARGETS['real_auroc']}, RWS {TARGETS['real_rws']}. The weights of the signs were chosen by a rule "
        f"(`benchmarks/picture_weights.py`) on the {given.odd[given.deciding].sum()} mergers and "
        f"{(~given.odd)[given.deciding].sum():,} others of even ids; the {given.odd[judged].sum()} and "
        f"{(~given.odd)[judged].sum():,} of odd ids judge:\n\n"
        + _rankings(found, ("auroc", "rws"))
        + "\n\nAll of them, those that decided too:\n\n"
        + _rankings(whole, ("auroc", "rws"))
    )
    return title + text, {"held": found, "rankings": whole}


def _weights() -> str:
    """The weights that the rule chooses."""
    given = pictures(Scale())
    if given is None:
        return _NO_PICTURES
    own = own_columns(given.model, given.cutouts)
    tails = {name: own[f"anomaly_{name}"][given.deciding] for name in given.model.task().signs}
    return str(picture_weights.chosen(tails, given.odd[given.deciding]))


_NO_PICTURES = "Not measured: there are no Galaxy Zoo images here (ASTROML_TEST_DATA)."
_WHOLE = ("anomaly_score", "anomaly_asymmetry", "asymmetry", "second_source", "forest_shapes", "pca", "forest_pca")


# ---- simulated ---------------------------------------------------------------------------------------------------


def one_set(seed: int, count: int, kind: str = "", **changes: Any) -> AnomalySet:
    shares = {name: float(name == (kind or "merger")) for name in AnomalySet.anomalies}
    return AnomalySet(count, seed=seed, block=min(250, count), anomaly_fraction=float(bool(kind)), **shares, **changes)


def _sets(
    seed: int, count: int, each: int, kinds: Sequence[str] = AnomalySet.anomalies, **changes: Any
) -> tuple[list[AnomalySet], np.ndarray]:
    """Ordinary ones and those of each kind, with the next seeds; and the kind of each stamp."""
    sets = [one_set(seed, count, **changes)]
    sets += [one_set(seed + 1 + number, each, kind, **changes) for number, kind in enumerate(kinds)]
    return sets, np.repeat(["normal", *kinds], [one.count for one in sets])


def stamps_of(one: AnomalySet) -> tuple[Cutouts, pa.Table]:
    """Pixels and truth of a set, kept for the next run."""
    digest = hashlib.sha256(f"{_VERSION} {one}".encode()).hexdigest()[:16]
    found = kept_arrays(f"anomaly-{one.seed}-{digest}", lambda: _made(one))
    cutouts = from_stamps(found["image"], found["variance"], None, bands=BANDS, pixel_scale=one.camera.pixel_scale)
    return cutouts, pa.ipc.open_file(pa.py_buffer(found["truth"].tobytes())).read_all()


def _made(one: AnomalySet) -> dict[str, np.ndarray]:
    """Pixels and, as bytes of an Arrow file, truth."""
    blocks = [one.make(index) for index in range(one.blocks)]
    planes = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in ("image", "variance")}
    sink = pa.BufferOutputStream()
    truth = pa.concat_tables([block.table for block in blocks])
    with pa.ipc.new_file(sink, truth.schema) as writer:
        writer.write_table(truth)
    return {**planes, "truth": np.frombuffer(sink.getvalue(), np.uint8)}


def _simulated(scale: Scale, model: ModelBundle, *, isolated: bool) -> tuple[str, dict[str, Any]]:
    alone = {"galaxies": 0.0, "stars": 0.0} if isolated else {}
    seed, count = (ISOLATED, scale.isolated) if isolated else (NORMAL, scale.normal)
    kinds = ("merger",) if isolated else AnomalySet.anomalies
    sets, kind = _sets(seed, count, scale.each, kinds, **alone)
    stamps = [stamps_of(one) for one in sets]
    cutouts = Cutouts.concatenate([pixels for pixels, _ in stamps])
    population, _ = stamps_of(one_set(POPULATION, scale.population, **alone))
    ranked = _ranked(model, cutouts, population, "-".join(str(one.seed) for one in sets) + f"-{count}-{scale.each}")
    data: dict[str, Any] = {}
    rows = []
    for which in (*kinds, "all") if len(kinds) > 1 else kinds:
        rowset = np.ones(len(kind), bool) if which == "all" else (kind == "normal") | (kind == which)
        chosen = {name: values[rowset] for name, values in ranked.items() if name not in sign_names(model)}
        data[which] = anomaly_report.compared(chosen, kind[rowset] != "normal", scale.repeats)
        rows += _kind_rows(which, data[which])
    data["signs"] = {
        which: {
            name: search_figures(values[mask], kind[mask] == which)
            for name, values in ranked.items()
            if name in ("anomaly_score", *sign_names(model))
        }
        for which in kinds
        for mask in [(kind == "normal") | (kind == which)]
    }
    score = ranked["anomaly_score"]
    data["ties"], data["finite"] = int(len(score) - len(np.unique(score))), bool(np.isfinite(score).all())
    title = "### Isolated galaxies\n\n" if isolated else "### Simulated anomalies\n\n"
    where = "no neighbours" if isolated else "50 field galaxies and 2 stars per square arcminute around every stamp"
    text = (
        f"Fresh seeds ({seed} and the next {len(kinds)}): {count:,} ordinary ones, {scale.each} of each kind, {where}; "
        f"forests and components learned from {scale.population:,} other ordinary stamps.\n\n"
        + table(["kind", "method", "AUROC", "recall", "ratio of recalls, ours to theirs", "AUROC gain"], rows)
        + "\n\nSigns alone, AUROC / recall:\n\n"
        + table(["sign", *kinds], _sign_rows(data["signs"], kinds))
    )
    if not isolated:
        truths = {name: truth for name, (_, truth) in zip(kinds, stamps[1:])}
        missed, data["limits"] = anomaly_labels.limits(*seen_by_learners(model, cutouts), kind, truths)
        text += "\n\n" + missed
    return title + text, data


def sign_names(model: ModelBundle) -> tuple[str, ...]:
    """Columns of the signs that a bundle gives."""
    return tuple(f"anomaly_{name}" for name in model.task().signs)  # type: ignore[attr-defined]


def _kind_rows(which: str, found: Mapping[str, Any]) -> list[list[str]]:
    best = max((name for name in found if name != "anomaly_score"), key=lambda name: found[name]["recall"]["value"])
    rows = []
    for name, values in found.items():
        ratio, gain = "", ""
        if name != "anomaly_score":
            theirs = values["recall"]["value"]
            ratio = f"{found['anomaly_score']['recall']['value'] / theirs:.2f}" if theirs else "-"
            gain = in_words(values["auroc_gain"])
        label = f"**{name}**" if name == "anomaly_score" else f"{name} (best)" if name == best else name
        rows.append([which, label, in_words(values["auroc"]), in_words(values["recall"]), ratio, gain])
    return rows


def _sign_rows(signs: Mapping[str, Any], kinds: tuple[str, ...]) -> list[list[str]]:
    return [
        [name, *(f"{signs[kind][name]['auroc']:.3f} / {signs[kind][name]['recall']:.2f}" for kind in kinds)]
        for name in signs[kinds[0]]
    ]


def _ranked(model: ModelBundle, cutouts: Cutouts, population: Cutouts | None, key: str) -> dict[str, np.ndarray]:
    """Score, signs and other searches of the same stamps."""
    own = own_columns(model, cutouts)
    found = measured_by_others(cutouts, f"{key}")
    learned = None if population is None else measured_by_others(population, f"population-{key}")
    return {**own, **anomaly_report.searches(found, learned)}


def own_columns(model: ModelBundle, cutouts: Cutouts) -> dict[str, np.ndarray]:
    task, network = model.task(), model.network(fused=True)
    parts = [columns(task, network, cutouts.take(slice(start, start + 256))) for start in range(0, len(cutouts), 256)]
    names = ("anomaly_score", *sign_names(model))
    return {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in names}


def measured_by_others(cutouts: Cutouts, key: str) -> dict[str, dict[str, np.ndarray]]:
    """What baselines see, kept for the next run."""
    pixels = hashlib.sha256(np.ascontiguousarray(cutouts.image.numpy()).tobytes()).hexdigest()[:16]

    def flat() -> dict[str, np.ndarray]:
        found = {name: function(cutouts) for name, function in anomaly_report.BASELINES.items()}
        return {f"{name} {column}": values for name, part in found.items() for column, values in part.items()}

    named: dict[str, dict[str, np.ndarray]] = {}
    for name, values in kept_arrays(f"anomaly-measured-{pixels}", flat).items():
        which, _, column = name.partition(" ")
        named.setdefault(which, {})[column] = values
    return named


# ---- active learning ---------------------------------------------------------------------------------------------


def seen_by_learners(model: ModelBundle, cutouts: Cutouts) -> tuple[np.ndarray, np.ndarray]:
    """(n, k) latent vectors and signs, as `rerank` shows them to learners, and the score (n,)."""
    task, network = model.task().with_settings(keep_latent=True), model.network(fused=True)
    parts = [columns(task, network, cutouts.take(slice(start, start + 256))) for start in range(0, len(cutouts), 256)]
    signs = sign_names(model)
    found = {name: np.concatenate([part[name] for part in parts]) for name in ("latent", "anomaly_score", *signs)}
    return np.column_stack([found["latent"], *(found[name] for name in signs)]), found["anomaly_score"]


def _active(scale: Scale, model: ModelBundle) -> tuple[str, dict[str, Any]]:
    sets: dict[str, Sought] = {}
    given = pictures(scale)
    if given is not None:
        space, score = seen_by_learners(given.model, given.cutouts)
        judged = ~given.deciding
        sets["Galaxy Zoo, odd ids: merger"] = Sought(space[judged], score[judged], given.odd[judged])
    made, kind = _sets(SOUGHT, scale.normal // 2, scale.each)
    space, score = seen_by_learners(model, Cutouts.concatenate([stamps_of(one)[0] for one in made]))
    sets |= {f"simulated, {name}": Sought(space, score, kind == name) for name in ("merger", "lens", "ring")}
    return anomaly_labels.learning(sets, scale.seeds, _key(scale, model))


# ---- robustness --------------------------------------------------------------------------------------------------


def _robustness(scale: Scale, model: ModelBundle) -> tuple[str, dict[str, Any]]:
    found = changes(model, scale.robust)
    rows = [
        [name, f"{one['median']:+.1f}", f"{one['median_size']:.1f}", f"{one['spearman']:.3f}"]
        for name, one in found.items()
    ]
    text = (
        f"### Robustness\n\n{scale.robust} scenes (one in five an anomaly) with the same noise, seen again: change of "
        "the percentile of the score in the training population.\n\n"
    )
    head = ["condition", "median change", "median size of the change", "Spearman"]
    return text + table(head, rows), found


# ---- speed -------------------------------------------------------------------------------------------------------


def _speed(scale: Scale, model: ModelBundle) -> tuple[str, dict[str, Any]]:
    if not scale.speed:
        return "### Speed\n\nNot measured in this run.", {}
    source = _stored(scale)
    stored = f"stored stamps of 64 px, {', '.join(BANDS)} with variance"
    with connect("local") as client:
        found = interleave({stored: partial(_rate, client, model.url, source)}, REPEATS)
    rates, work = ([pair[which] for pair in found[stored]] for which in (0, 1))
    rows = [[stored, median_iqr(rates, 0), median_iqr(work, 0)], ["canary, s", median_iqr(found["canary"]), ""]]
    text = (
        f"### Speed\n\nStored stamps to catalog, {scale.speed:,} objects, Dask's start-up and the loading of the model "
        f"apart, {REPEATS} repeats: median (quartiles); {TARGETS['objects_per_second']:,} objects/s on two cores are "
        "asked for. The last column divides by the processor time instead.\n\n"
    )
    data = {"rates": rates, "work": work, "canary": found["canary"]}
    return text + table(["", "objects/s", "objects per core-second"], rows), data


def _stored(scale: Scale) -> str:
    """The ordinary test stamps, repeated."""
    folder = scratch() / f"anomaly-speed-{scale.speed}.zarr"
    if not folder.exists():
        making = folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        cutouts, _ = stamps_of(one_set(POPULATION, scale.population))
        store = Stamps.create(str(making), bands=BANDS, size=(64, 64), block=1024, pixel_scale=0.2, variance=True)
        first = store.reserve(scale.speed // 1024)
        for number in range(scale.speed // 1024):
            rows = np.arange(number * 1024, (number + 1) * 1024)
            image, variance = (value.numpy()[rows % len(cutouts)] for value in (cutouts.image, cutouts.variance))
            checksum = store.write_block(first + number, image, variance, None)
            store.commit_objects(first + number, pa.table({"object_id": rows}), checksum)
        making.rename(folder)
    return str(folder)


def _rate(client: Client, bundle: str, source: str) -> tuple[float, float]:
    """Objects per second, and per second of processor time, of one run into an empty catalog."""
    out = scratch() / "anomaly-catalog"
    shutil.rmtree(out, ignore_errors=True)
    ready = prepare(source, bundle=bundle, out=str(out), device="cpu")
    wall, spent = skies.timed_run(ready, client)
    count = Stamps.open(source).count
    return count / wall, count / spent


# ---- text --------------------------------------------------------------------------------------------------------


def _rankings(found: Mapping[str, Any], figures: tuple[str, ...]) -> str:
    rows = []
    for name, values in found.items():
        label = f"**{name}**" if name == "anomaly_score" else name
        gains = [in_words(values[f"{key}_gain"]) if f"{key}_gain" in values else "" for key in figures]
        rows.append([label, *(in_words(values[key]) for key in figures), *gains])
    names = {"auroc": "AUROC", "rws": "RWS"}
    return table(["method", *(names[key] for key in figures), *(f"{names[key]} gain" for key in figures)], rows)


def in_words(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--weights", action="store_true")
    options = parser.parse_args()
    print(_weights() if options.weights else run(QUICK if options.quick else None).text)

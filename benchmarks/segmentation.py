"""The shipped bundle `segmentation` on unseen simulated fields and real sky, Source Extractor on the same pixels.

Set ASTROML_BENCH_BUNDLE to measure another bundle. Source Extractor is tuned for each figure on other fields.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from astroml_plugin.evaluation.baselines.extractor import Extracted, ExtractorSettings, extract
from astroml_plugin.evaluation.detection_metrics import (
    BINS,
    DetectionSet,
    Truth,
    blended,
    chance,
    counts,
    flux_errors,
    match,
    matched_filter_ceiling,
    pooled,
)
from astroml_plugin.pixels import Tile
from astroml_plugin.simulation.fields import FIELD_POPULATION, field_sky, truth_of
from astroml_plugin.tasks.segmentation.task import SegmentTask
from astroml_plugin.tasks.segmentation.whole_tile import field_of, maps_of
from astroml_plugin.training.bundle import ModelBundle
from benchmarks import segmentation_real, segmentation_shear
from benchmarks.harness import Section, interleave, kept
from tests.pages import table

TARGETS = {"iou": 0.83, "completeness 24-25": 0.57, "purity": 0.97, "pairs": 1.5, "blend flux": 0.7, "noise": 0.3}
_PER_ARCMIN = (60 / 0.2) ** 2
_MAIN = ("purity", "iou", "instance_pixels", "pairs", *(f"completeness {low:g}-{high:g}" for low, high in BINS))


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    fields: int = 8
    side: int = 1280
    tuning: int = 4
    """Fields that Source Extractor is tuned on."""
    tuning_side: int = 1024
    noise_side: int = 1536
    repeats: int = 5
    shear: segmentation_shear.Scale = field(default_factory=segmentation_shear.Scale)


QUICK = Scale(2, 256, 2, 256, 256, 1, segmentation_shear.QUICK)

FINAL_SEED, TUNING_SEED, NOISE_SEED, STAR_SEED = 900, 510, 950, 960


def seeing(number: int, of: int) -> float:
    """Arcsec: evenly over 0.6-0.9."""
    return 0.6 + 0.3 * (number + 0.5) / of


def run(scale: Scale | None = None) -> Section:
    """All figures."""
    scale = scale or Scale()
    torch.set_num_threads(1)
    model, task, network = _bundle()
    tuned = tuned_extractors(scale)
    methods = _methods(task, network, tuned)
    seen = [
        truth_of(field_sky(FINAL_SEED + i, scale.side, seeing(i, scale.fields), 30 + 10 * (i % 2)))
        for i in range(scale.fields)
    ]
    maps = [maps_of(task, network, tile) for tile, _ in seen]
    found = {name: [method(tile) for tile, _ in seen] for name, method in methods.items() if name != "network"}
    found = {"network": [detected(task, network, tile, one) for (tile, _), one in zip(seen, maps)], **found}
    truths = [truth for _, truth in seen]
    parts = [_main(found, truths, scale), _curve(task, network, seen, maps, found), _fluxes(found, truths)]
    parts += [_empty(methods, scale), _stars(methods, scale), _speed(task, network, seen[0][0], scale)]
    parts += [sheared(scale), segmentation_real.section(task, network)]
    head = (
        f"Bundle `{model.name}` ({model.sha256[:12]}) on {scale.fields} simulated fields of {scale.side}² pixels "
        f"(seeds {FINAL_SEED} and up, seeing 0.6-0.9 arcsec, 30 and 40 galaxies of 20-25.3 mag per arcmin² in turn, a "
        f"tail to 26 mag, stars; zero point 30, 0.2 arcsec per pixel, sigma 2.5 and Poisson noise). Nothing was "
        f"trained or tuned on them. Matches are mutual, within 3 pixels. Source Extractor (`sep`) is tuned for each "
        f"figure on {scale.tuning} other fields over filter, threshold, area and deblending. Intervals: 95 %, fields "
        f"resampled."
    )
    data: dict[str, Any] = {"scale": asdict(scale), "targets": TARGETS, "bundle": model.sha256}
    data["tuned"] = {name: asdict(settings) for name, settings in tuned.items()}
    for _, more in parts:
        data |= more
    return Section("Segmentation", "\n\n".join([head, *(text for text, _ in parts)]), data)


def sheared(scale: Scale) -> tuple[str, dict[str, Any]]:
    """Shear of what the bundle and tuned Source Extractor find; kept for the next run."""
    model, task, network = _bundle()
    tuned = tuned_extractors(scale)["completeness"]
    methods: dict[str, Method] = {
        "network": lambda tile: detected(task, network, tile),
        "sep for completeness": lambda tile: _extracted(tile, tuned, fluxes=False),
    }
    return segmentation_shear.section(methods, scale.shear, [model.sha256, asdict(tuned)])


def _bundle() -> tuple[ModelBundle, SegmentTask, nn.Module]:
    model = ModelBundle.load(os.environ.get("ASTROML_BENCH_BUNDLE", "segmentation"))
    task = model.task()
    assert isinstance(task, SegmentTask)
    return model, task, model.network(fused=True)


# ---- methods -----------------------------------------------------------------------------------------------------


Method = segmentation_shear.Method


def _methods(task: SegmentTask, network: nn.Module, tuned: dict[str, ExtractorSettings]) -> dict[str, Method]:
    methods: dict[str, Method] = {"network": lambda tile: detected(task, network, tile)}
    methods["sep default"] = lambda tile: _extracted(tile, ExtractorSettings())
    for name, settings in tuned.items():
        methods[f"sep for {name}"] = lambda tile, settings=settings: _extracted(tile, settings)  # type: ignore[misc]
    return methods


def detected(task: SegmentTask, network: nn.Module, tile: Tile, maps: np.ndarray | None = None) -> DetectionSet:
    """What the bundle finds in a tile of one band with a zero point of 31.4: fluxes in the tile's units."""
    maps = maps_of(task, network, tile) if maps is None else maps
    result = task.detect(maps, field_of(tile, task.bands, (31.4,)))
    flux = {kind: result.columns[f"flux_{kind}_{task.bands[0]}"].astype(float) for kind in ("iso", "aper", "total")}
    return DetectionSet(result.x, result.y, result.labels, flux)


def _extracted(tile: Tile, settings: ExtractorSettings, fluxes: bool = True) -> DetectionSet:
    found = raw_extracted(tile, settings, fluxes)
    return DetectionSet(found.x, found.y, found.labels, {"iso": found.iso, "aper": found.aperture, "auto": found.auto})


def raw_extracted(tile: Tile, settings: ExtractorSettings, fluxes: bool = True) -> Extracted:
    """Source Extractor on a tile of one band."""
    image, variance = np.nan_to_num(tile.image[0]), np.nan_to_num(tile.variance[0])  # type: ignore[index]
    unusable = None if tile.mask is None else tile.mask[0] != 0
    return extract(image, variance, unusable, settings, fluxes=fluxes)


def tuned_extractors(scale: Scale) -> dict[str, ExtractorSettings]:
    """Figure -> Source Extractor's best settings for it on fields of their own; kept for the next run."""
    best = kept(f"segmentation-tuned-{scale.tuning}-{scale.tuning_side}", lambda: _tuned(scale))
    return {name: ExtractorSettings(**values[0]) for name, values in best.items()}


def _tuned(scale: Scale) -> dict[str, Any]:
    """Figure -> its best settings and all figures with them."""
    fields = [
        truth_of(field_sky(TUNING_SEED + i, scale.tuning_side, seeing(i, scale.tuning))) for i in range(scale.tuning)
    ]
    tried = [(settings, _figures(settings, fields)) for settings in _grid()]
    pure = [one for one in tried if one[1]["purity"] >= TARGETS["purity"]] or tried
    best = {
        "iou": max(tried, key=lambda one: one[1]["iou"]),
        "completeness": max(pure, key=lambda one: one[1]["completeness 24-25"]),
        "pairs": max(pure, key=lambda one: (one[1]["pairs"], one[1]["completeness 24-25"])),
    }
    return {name: [asdict(one[0]), one[1]] for name, one in best.items()}


def _grid() -> list[ExtractorSettings]:
    return [
        ExtractorSettings(width, threshold, area, 32, contrast)
        for width in (2.5, 3.0, 3.5)
        for threshold in (0.6, 0.65, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5)
        for area in (5, 8, 12)
        for contrast in (0.005, 0.0005)
    ]


def _figures(settings: ExtractorSettings, fields: list[tuple[Tile, Truth]]) -> dict[str, float]:
    sums = [counts(_extracted(tile, settings, fluxes=False), truth) for tile, truth in fields]
    return {name: values[0] for name, values in pooled(sums, 1).items()}


# ---- simulated fields --------------------------------------------------------------------------------------------


def _text(values: list[float], digits: int = 3) -> str:
    return f"{values[0]:.{digits}f} ({values[1]:.{digits}f}–{values[2]:.{digits}f})"


def _main(found: dict[str, list[DetectionSet]], truths: list[Truth], scale: Scale) -> tuple[str, dict[str, Any]]:
    """Figures of every method, and of the matched filter."""
    sums = {name: [counts(*pair) for pair in zip(fields, truths)] for name, fields in found.items()}
    figures = {name: pooled(fields) for name, fields in sums.items()}
    moved = [chance(f.x, f.y, t.x, t.y, t.foreground.shape) for f, t in zip(found["network"], truths)]
    ceiling = [
        matched_filter_ceiling(t.snr, t.foreground.size, np.hypot(t.fwhm / 2.355, 1.5), TARGETS["purity"])[1]
        for t in truths
    ]
    limits = {
        f"completeness {low:g}-{high:g}": float(
            np.concatenate([c[(t.mag >= low) & (t.mag < high)] for c, t in zip(ceiling, truths)]).mean()
        )
        for low, high in BINS
    }
    names = list(found)
    rows = [
        [name.replace("_", " "), *(_text(figures[method][name]) for method in names), _number(limits.get(name))]
        for name in _MAIN
    ]
    pairs = int(sum(one["pairs"][1] for one in sums["network"]))
    text = table(["figure", *names, "matched filter at purity 0.97"], rows)
    text += (
        f"\n\nBy chance {np.mean(moved):.3f} of the detections would match. Blended pairs: {pairs}, both of S/N 5 and "
        f"more, one to two PSF widths apart. The matched filter knows every object's profile and place."
    )
    return text, {"figures": figures, "ceiling": limits, "chance": float(np.mean(moved)), "pairs_counted": pairs}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _curve(
    task: SegmentTask,
    network: nn.Module,
    seen: list[tuple[Tile, Truth]],
    maps: list[np.ndarray],
    found: dict[str, list[DetectionSet]],
) -> tuple[str, dict[str, Any]]:
    """Completeness where the network is as pure as Source Extractor: its threshold is moved along, on these fields."""
    name = "completeness 24-25"
    theirs = [counts(*pair) for pair in zip(found["sep for completeness"], [truth for _, truth in seen])]
    wanted = pooled(theirs, 1)["purity"][0]
    tried = []
    for near in np.arange(0.2, 0.8, 0.025):
        other = task.with_settings(near=float(near))
        assert isinstance(other, SegmentTask)
        mine = [
            counts(detected(other, network, tile, one), truth) for one, (tile, truth) in zip(maps, seen, strict=True)
        ]
        tried.append((float(near), pooled(mine, 1)["purity"][0], mine))
    near, purity, mine = min(tried, key=lambda one: abs(one[1] - wanted))
    value, gain = pooled(mine)[name], _difference(mine, theirs, name)
    text = (
        f"At the purity of Source Extractor tuned for completeness ({wanted:.3f}; the network's is {purity:.3f} with a "
        f"threshold of {near:.3f}), completeness at 24-25 mag is {_text(value)} against {_text(pooled(theirs)[name])}: "
        f"{gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f}), same fields."
    )
    curve = [[level, pure, pooled(sums, 1)[name][0]] for level, pure, sums in tried]
    return text, {"matched_purity": {"sep": wanted, "network": purity, "value": value, "gain": gain, "curve": curve}}


def _difference(
    mine: list[dict[str, Any]], theirs: list[dict[str, Any]], name: str, repeats: int = 1000
) -> list[float]:
    """Difference of two ratios over the same fields: [value, low, high]."""
    rng = np.random.default_rng(0)
    ours, others = (np.stack([one[name] for one in sums]) for sums in (mine, theirs))
    index = np.concatenate([np.arange(len(ours))[None], rng.integers(0, len(ours), (repeats, len(ours)))])
    a, b = ours[index].sum(1), others[index].sum(1)
    values = a[:, 0] / a[:, 1] - b[:, 0] / b[:, 1]
    return [float(values[0]), *(float(item) for item in np.quantile(values[1:], [0.025, 0.975]))]


def _fluxes(found: dict[str, list[DetectionSet]], truths: list[Truth]) -> tuple[str, dict[str, Any]]:
    """Errors in blends, after one correction per kind from isolated objects; magnitude bias of faint ones."""
    rows, data = [], {}
    for method, kind in [
        *(("network", kind) for kind in ("iso", "aper", "total")),
        *((f"sep for {name}", kind) for name in ("pairs", "completeness") for kind in ("auto", "aper")),
    ]:
        inside, faint, alone = [], [], []
        for fields, truth in zip(found[method], truths):
            number, error = flux_errors(fields, truth, kind)
            together, bright = blended(truth)[number], truth.snr[number] >= 10
            inside.append(error[together & bright])
            alone.append(error[~together & (truth.snr[number] >= 20) & ~truth.star[number]])
            chosen = (truth.mag[number] >= 24) & (truth.mag[number] < 25)
            faint.append(error[chosen])
        correction = float(np.median(np.concatenate(alone)))
        errors = np.abs((1 + np.concatenate(inside)) / (1 + correction) - 1)
        biases = (1 + np.concatenate(faint)) / (1 + correction)
        bias = float(-2.5 * np.log10(np.median(biases[biases > 0])))
        data[f"{method} {kind}"] = {"blends": float(np.median(errors)), "count": len(errors), "bias": bias}
        data[f"{method} {kind}"] |= {"correction": correction, "within_20": float(np.mean(errors < 0.2))}
        row = [method, kind, f"{np.median(errors):.3f}", f"{np.mean(errors < 0.2):.2f}", len(errors)]
        rows.append([*row, f"{correction:+.3f}", f"{bias:+.3f}"])
    head = [
        "method",
        "flux",
        "median error in blends",
        "within 20 %",
        "objects",
        "isolated: flux - 1",
        "bias 24-25 [mag]",
    ]
    text = table(head, rows) + (
        "\n\nBlends: matched objects of S/N 10 and more with a neighbour of S/N 5 and more one to two PSF widths away. "
        "Errors are relative to the true total flux, after one factor per kind of flux from isolated galaxies of S/N "
        "20 and more (column isolated: flux over truth - 1)."
    )
    return text, {"fluxes": data}


def _empty(methods: dict[str, Method], scale: Scale) -> tuple[str, dict[str, Any]]:
    """Detections where there is nothing but noise."""
    tile, _ = truth_of(replace(field_sky(NOISE_SEED, scale.noise_side, 0.75), density=0.0))
    area = scale.noise_side**2 / _PER_ARCMIN
    rates = {name: len(method(tile).x) / area for name, method in methods.items()}
    told = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
    return f"Detections per arcmin² on pure noise ({area:.0f} arcmin²): {told}.", {"noise": rates}


def _stars(methods: dict[str, Method], scale: Scale) -> tuple[str, dict[str, Any]]:
    """False detections within 60 pixels of bright stars, those expected elsewhere not taken off."""
    population = replace(FIELD_POPULATION, star_fraction=1.0, star_magnitude=(15.5, 18.0), tail=0.0)
    sky = replace(field_sky(STAR_SEED, scale.noise_side, 0.75), density=1.0, population=population)
    tile, truth = truth_of(sky)
    rates = {}
    for name, method in methods.items():
        found = method(tile)
        false = match(found.x, found.y, truth.x, truth.y) < 0
        near = np.zeros(len(found.x), bool)
        for x, y in zip(truth.x, truth.y):
            near |= np.hypot(found.x - x, found.y - y) < 60
        rates[name] = float((false & near).sum() / max(1, len(truth.x)))
    told = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
    text = f"False detections per star of 15.5-18 mag, within 12 arcsec ({len(truth.x)} stars): {told}."
    return text, {"stars": rates}


def _core_seconds(function: Callable[[], Any]) -> Callable[[], float]:
    """A function that calls `function` and returns the processor's seconds: other processes share the machine."""

    def call() -> float:
        started = time.process_time()
        function()
        return time.process_time() - started

    return call


def _speed(task: SegmentTask, network: nn.Module, tile: Tile, scale: Scale) -> tuple[str, dict[str, Any]]:
    """One core each, in turn: input, network, detection and fluxes against extraction and fluxes."""
    seen = field_of(tile, task.bands, (31.4,))
    maps = maps_of(task, network, tile)
    arms = {
        "maps": _core_seconds(lambda: maps_of(task, network, tile)),
        "detect": _core_seconds(lambda: task.detect(maps, seen)),
        "sep": _core_seconds(lambda: _extracted(tile, ExtractorSettings(3.0, 0.65, 12))),
    }
    taken = interleave(arms, scale.repeats)
    mega = tile.image[0].size / 1e6
    maps_s, detect_s, sep_s = (float(np.median(taken[name])) / mega for name in arms)
    text = (
        f"Mpix per core-second, interleaved, medians of {scale.repeats}: network {1 / maps_s:.1f}, detection and "
        f"photometry {1 / detect_s:.1f}, both {1 / (maps_s + detect_s):.1f}; Source Extractor with its fluxes "
        f"{1 / sep_s:.1f}, {(maps_s + detect_s) / sep_s:.1f} times as fast. Windows of 1024 pixels that overlap by 64 "
        "cost a third more than the whole tile at once that is timed here."
    )
    return text, {"speed": {"maps": maps_s, "detect": detect_s, "sep": sep_s, "canary": taken["canary"]}}


def main() -> None:
    """Measure the shear part alone, for the shipped bundle or ASTROML_BENCH_BUNDLE, ahead of the whole section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segmentation")
    parser.add_argument("--shear", action="store_true", required=True, help="measure the shear of what is found")
    parser.add_argument("--quick", action="store_true", help="a few small skies, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(sheared(QUICK if options.quick else Scale())[0], flush=True)


if __name__ == "__main__":
    main()

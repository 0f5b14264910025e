"""Give a trained ellipticity bundle its shear response, and take out what follows the PSF's ellipticity."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.ellipticity.task import EllipticityTask
from astroml_plugin.training.batches import BlockStream
from astroml_plugin.training.bundle import CARD, ModelBundle
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.shear_response import fit_leakage, fit_response, fit_response_from_images

METHODS = ("pairs", "images")
"""What a response is fitted on: simulated sets of sheared stamps, or stamps of any galaxies."""

_LATER = ("response", "leakage", "calibration")
"""What a card's record of the training says of later fits."""


@dataclass(frozen=True)
class CalibrateResponseResult:
    """What a calibration of the response gave."""

    bundle: ModelBundle
    """As written."""
    report: dict[str, Any]
    """How many pairs or images, mean response and error, what was taken out for the PSF's ellipticity (`leakage`)."""
    seconds: float
    """Wall time."""

    @property
    def precision(self) -> float:
        """Standard error of the mean response, relative: no shear calibrated by it is better known."""
        mean, error = (np.reshape(self.report[name], (2, 2)) for name in ("mean", "error"))
        return float(np.hypot(error[0, 0], error[1, 1]) / abs(np.trace(mean)))


def calibrate_response(
    bundle: str | Path,
    *,
    data: str | Sequence[str],
    out: str | Path | None = None,
    band: str | None = None,
    method: str | None = None,
    psf_pairs: str | Sequence[str] = (),
    draws: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> CalibrateResponseResult:
    """Fit the outputs r11, r12, r21, r22 of a bundle and write it again.

    Args:
        bundle: path, URL or shipped name of an ellipticity bundle.
        data: one or several `Stamps`: of `simulate --pairs shear` with a seed that nothing else used, or of any
            galaxies with PSF and white noise of known variance, no truth needed, such as a survey's own.
        out: where to write it; default in place.
        band: the band of the data for a model that takes any.
        method: "pairs" or "images"; default pairs where the data have branches, else images.
        psf_pairs: `Stamps` of `simulate --pairs psf`: first take out of the ellipticities what follows the PSF's.
        draws: of noise per image, for the method "images": more of them make its response less noisy, and slower.
        seed: of that noise.
        progress: told how many images are done.

    Raises:
        InputError: another kind of bundle, data that were trained on, that hold no pairs, too few images, or an `out`
            that holds something else.
    """
    started = time.perf_counter()
    if draws < 1:
        raise InputError(f"{draws} draws of noise per image: give 1 or more")
    if method is not None and method not in METHODS:
        raise InputError(f"a response is fitted from {' or '.join(METHODS)}, not {method!r}")
    model = ModelBundle.load(bundle)
    task = model.task()
    if not isinstance(task, EllipticityTask):
        raise InputError(f"bundle {model.name} measures no ellipticity: it has no shear response")
    url = str(out or model.url)
    _refuse_other(url, model)
    network, record = model.network(), dict(model.card.training)
    report: dict[str, Any] = {}
    if psf_pairs:
        paired = _stamps(model, psf_pairs)
        report["leakage"] = fit_leakage(task, network, _stream(task, paired, band), _labels(paired))
        record["leakage"] = _identity(paired)
    stamps = _stamps(model, data)
    chosen = method or ("pairs" if "branch" in stamps.labels.column_names else "images")
    if chosen == "pairs":
        _refuse_no_pairs(stamps)
        report |= fit_response(task, network, _stream(task, stamps, band), _labels(stamps))
    else:
        stream = _stream(task, stamps, band)
        report |= fit_response_from_images(task, network, stream, draws=draws, seed=seed, progress=progress)
    card = replace(
        model.card,
        settings=task.with_settings(response=True).to_settings(),
        training={**record, "response": {**_identity(stamps), "from": chosen}},
        metrics={**model.card.metrics, "response": report},
    )
    return CalibrateResponseResult(ModelBundle.save(url, network, card), report, time.perf_counter() - started)


def _refuse_other(url: str, model: ModelBundle) -> None:
    """Refuse to write over anything but this model, its response old or new."""
    for name in ("zarr.json", "schema.json"):
        if storage.exists(storage.join(url, name)):
            raise InputError(f"{storage.redact(url)} holds a store or catalog: choose another output for the bundle")
    if storage.exists(storage.join(url, CARD)) and _trained(ModelBundle.load(url)) != _trained(model):
        raise InputError(f"{storage.redact(url)} holds another bundle: choose another output or remove it")


def _trained(model: ModelBundle) -> tuple[str, dict[str, Any]]:
    """Task and training of a bundle, without what was fitted afterwards."""
    record = model.card.training
    return model.card.task, {name: record[name] for name in record if name not in _LATER}


def _stamps(model: ModelBundle, data: str | Sequence[str]) -> LabelledStamps:
    """The stamps, none of them trained on."""
    stamps = LabelledStamps([data] if isinstance(data, str) else list(data))
    seen = {source["id"] for source in model.card.training.get("sources", [])}
    for source in stamps.sources:
        if source.id in seen:
            raise InputError(
                f"{storage.redact(source.url)} was trained on: simulate a calibration set with another seed"
            )
    return stamps


def _refuse_no_pairs(stamps: LabelledStamps) -> None:
    missing = {"set_id", "branch", "g1", "g2"} - set(stamps.labels.column_names)
    if missing:
        told = ", ".join(storage.redact(source.url) for source in stamps.sources)
        raise InputError(f"{told} lacks {', '.join(sorted(missing))}: make it with simulate --pairs shear")


def _stream(task: EllipticityTask, stamps: LabelledStamps, band: str | None) -> BlockStream:
    rows = np.arange(stamps.labels.num_rows)
    bands = task.choose_bands(stamps.first.bands, band)
    return BlockStream(stamps, rows, torch.zeros(len(rows), 2), bands=bands, batch_size=256)


def _labels(stamps: LabelledStamps) -> pa.Table:
    """The labels, the sets of several sources told apart."""
    table = stamps.labels
    if "set_id" not in table.column_names or len(stamps.sources) == 1:
        return table
    source = np.repeat(np.arange(len(stamps.sources)), [item.count for item in stamps.sources])
    numbers = table["set_id"].to_numpy().astype(np.int64) * len(stamps.sources) + source
    return table.set_column(table.column_names.index("set_id"), "set_id", pa.array(numbers))


def _identity(stamps: LabelledStamps) -> dict[str, Any]:
    """What the card keeps of the stamps."""
    return {"ids": [source.id for source in stamps.sources], "digest": stamps.digest}

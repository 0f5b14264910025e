"""A trained bundle gets its shear response, its errors anew, what is typical or what it saw, after its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from astroml_plugin.compute.device import usable_device
from astroml_plugin.compute.exact import exact_float32
from astroml_plugin.core import storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation.drift import FEWEST
from astroml_plugin.sources.labels import generated
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.tasks.response_fit import ResponseFit
from astroml_plugin.tasks.scale import refuse_other
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.bundle import CARD, ModelBundle
from astroml_plugin.training.forward import network_outputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.reference import KEY as REFERENCE
from astroml_plugin.training.reference import reference_record
from astroml_plugin.training.splits import SplitSettings
from astroml_plugin.training.typicality import RECORD as TYPICALITY
from astroml_plugin.training.typicality import Typicality
from astroml_plugin.training.typicality_fields import typicality_of_fields
from astroml_plugin.training.typicality_fit import LEAST, TypicalitySettings, typicality_of, typicality_record
from astroml_plugin.training.unseen import refuse_trained_on

METHODS = ("pairs", "images")
"""Stamps that a response is fitted on: simulated sets of sheared ones, or those of any galaxies."""

_LATER = ("response", "leakage", "calibration", "known_objects", "typicality", REFERENCE)
"""Keys of a card's training record that may be added later."""


@dataclass(frozen=True)
class ResponseOptions:
    """How a shear response is fitted."""

    method: str | None = None
    """One of `METHODS`; default: pairs where the data have branches, else images."""
    psf_pairs: str | tuple[str, ...] = ()
    """One or several `Stamps` of `simulate --pairs psf`: first take out of the ellipticities what follows the PSF's."""
    draws: int = 1
    """Draws of noise per image, for the method "images": more of them make its response less noisy, and slower."""
    seed: int = 0
    """Seed of that noise."""
    band: str | None = None
    """Band of the data for a model that takes any."""
    device: str | None = None
    """Torch device; default CUDA where there is one."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise InputError(f"{self.draws} draws of noise per image: give 1 or more")
        if self.method is not None and self.method not in METHODS:
            raise InputError(f"a response is fitted from {' or '.join(METHODS)}, not {self.method!r}")


@exact_float32()
def fit_bundle_response(
    model: ModelBundle,
    data: str | Sequence[str],
    url: str,
    options: ResponseOptions,
    progress: Callable[[int], None] | None = None,
) -> tuple[ModelBundle, dict[str, Any]]:
    """Fit the response outputs of a bundle and write it again; the bundle as written, and the report.

    Args:
        model: a bundle of a task that `has_response`.
        data: one or several `Stamps` that nothing else used.
        url: folder or URL of the bundle to be written.
        options: how.
        progress: told how many images are done.

    Raises:
        InputError: another kind of bundle, data that were trained on, that hold no pairs, too few images, a `url`
            that holds something else, or a device that is not there.
    """
    task = model.task()
    if not task.has_response:
        raise InputError(f"bundle {model.called} measures no ellipticity: it has no shear response")
    _refuse_other(url, model)
    device = usable_device(options.device)
    network, record = model.network().to(device), dict(model.card.training)
    report: dict[str, Any] = {}
    if options.psf_pairs:
        paired = _stamps(model, options.psf_pairs, options.band)
        asked = ResponseFit("leakage", _labels(paired))
        task, report["leakage"] = task.fit_response(network, _batches(task, paired, options.band, device), asked)
        record["leakage"] = _identity(paired)
    stamps = _stamps(model, data, options.band)
    kind = options.method or ("pairs" if "branch" in stamps.labels.column_names else "images")
    if kind == "pairs":
        _refuse_no_pairs(stamps)
    labels = _labels(stamps) if kind == "pairs" else pa.table({})
    asked = ResponseFit(kind, labels, options.draws, options.seed, progress)
    task, fitted = task.fit_response(network, _batches(task, stamps, options.band, device), asked)
    report |= fitted
    card = replace(
        model.card,
        settings=task.to_settings(),
        training={**record, "response": {**_identity(stamps), "from": kind}},
        metrics={**model.card.metrics, "response": report},
    )
    return ModelBundle.save(url, network, card, model.known_objects(), model.typicality_file()), report


def recalibrate_bundle(model: ModelBundle, data: str | Sequence[str], url: str, band: str | None = None) -> ModelBundle:
    """Set what a task learns from validation outputs (widths of intervals, temperature) on other labelled stamps.

    Args:
        model: the bundle.
        data: one or several `Stamps` with the labels of its task, none of them trained on.
        url: folder or URL of the bundle to be written.
        band: the band of the data for a model that takes any.

    Raises:
        InputError: data that were trained on, or without the labels, or a `url` that holds something else.
    """
    _refuse_other(url, model)
    task, labelled = model.task(), LabelledStamps(data)
    bands = task.choose_bands(labelled.first.bands, band)
    refuse_trained_on(model, labelled, bands, "give stamps of another seed")
    refuse_other(task.settings, labelled.first.pixel_scale)
    rows = np.flatnonzero(task.usable(labelled.labels) & ~generated(labelled.labels))
    targets = task.targets(labelled.labels.take(pa.array(rows)))
    stream = StampBatches(labelled, rows, targets, bands=bands, batch_size=256)
    network = model.network()
    outputs, truth, _ = network_outputs(task, network, stream)
    fitted = task.calibrate(outputs, truth)
    record = {"digest": labelled.digest, "objects": len(truth)}
    card = replace(model.card, settings=fitted.to_settings(), training={**model.card.training, "calibration": record})
    return ModelBundle.save(url, network, card, model.known_objects(), model.typicality_file())


def fit_bundle_typicality(
    model: ModelBundle,
    data: str | Sequence[str],
    url: str,
    settings: TypicalitySettings,
    band: str | None = None,
    *,
    unlabelled: bool = False,
) -> ModelBundle:
    """Learn what is typical of a bundle's training population, and write the bundle again; its weights stay.

    Args:
        model: the bundle.
        data: one or several `Stamps`: those that it was trained on, which are divided as they were, or others of the
            same population.
        url: folder or URL of the bundle to be written.
        settings: rate of false flags, stamps at most.
        band: the band of the data for a model that takes any.
        unlabelled: the stamps are of a survey that the bundle was adapted to, without labels and of any scale.

    Raises:
        InputError: a bundle that measures no stamps, stamps of another scale, too few of them, or a `url` that holds
            something else.
    """
    task, labelled, _ = _population(model, data, url, band, any_scale=unlabelled)
    rows = _divided(model, labelled, unlabelled)
    network = model.network()
    if isinstance(task, DetectingTask):
        fitted: Typicality | None = typicality_of_fields(task, network, labelled, rows, settings)
    else:
        fitted = typicality_of(task, network, labelled, rows, settings, band=band)
    if fitted is None:
        raise InputError(
            f"what is typical cannot be learned for bundle {model.called} from {sum(map(len, rows.values()))} stamps: "
            f"give {LEAST} or more that are not OUT_OF_DOMAIN for it anyway, and a bundle that measures stamps"
        )
    record = typicality_record(fitted, labelled)
    card = replace(model.card, training={**model.card.training, TYPICALITY: record})
    return ModelBundle.save(url, network, card, model.known_objects(), fitted.to_bytes())


def fit_bundle_reference(
    model: ModelBundle, data: str | Sequence[str], url: str, band: str | None = None
) -> ModelBundle:
    """Keep what the inputs and outputs of a bundle's training look like, and write the bundle again; its weights stay.

    Args:
        model: the bundle.
        data: one or several `Stamps`: those that it was trained on, which are divided as they were, or others of the
            same population.
        url: folder or URL of the bundle to be written.
        band: the band of the data for a model that takes any.

    Raises:
        InputError: stamps of another scale, too few, none that the task can use, or a `url` that holds something else.
    """
    task, labelled, bands = _population(model, data, url, band)
    rows = _divided(model, labelled)
    few = min(len(rows["train"]), len(rows["validation"]))
    if few < FEWEST:
        raise InputError(
            f"what the training of bundle {model.called} looks like cannot be told from {few} stamps: give 40 or more "
            "that have the labels of its task"
        )
    network = model.network()
    record = reference_record(task, network, labelled, rows, bands=bands)
    card = replace(model.card, training={**model.card.training, REFERENCE: record})
    return ModelBundle.save(url, network, card, model.known_objects(), model.typicality_file())


def _population(
    model: ModelBundle, data: str | Sequence[str], url: str, band: str | None, *, any_scale: bool = False
) -> tuple[Task, LabelledStamps, tuple[str, ...]]:
    """Task of a bundle, stamps like those that it was trained on, and their bands in the task's order.

    Raises:
        InputError: stamps of other bands or another scale, or a `url` that holds something else.
    """
    task, labelled = model.task(), LabelledStamps(data)
    _refuse_other(url, model)
    bands = task.choose_bands(labelled.first.bands, band)
    if not any_scale:
        refuse_other(task.settings, labelled.first.pixel_scale)
    return task, labelled, bands


def _divided(model: ModelBundle, labelled: LabelledStamps, unlabelled: bool = False) -> dict[str, np.ndarray]:
    """Rows as the bundle's training divided them, without what a generator drew; of other stamps seven tenths and the
    rest, by chance."""
    drawn = generated(labelled.labels)
    usable = np.ones(len(drawn), bool) if unlabelled else model.task().usable(labelled.labels)
    training = model.card.training
    if labelled.digest == training.get("digest"):
        split = from_mapping(SplitSettings, training["split"], f"the split of bundle {model.called}")
        divided = labelled.split(split, usable)
        return {name: divided[name][~drawn[divided[name]]] for name in ("train", "validation")}
    rows = np.random.default_rng(0).permutation(np.flatnonzero(usable & ~drawn))
    cut = len(rows) * 7 // 10
    return {"train": np.sort(rows[:cut]), "validation": np.sort(rows[cut:])}


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


def _stamps(model: ModelBundle, data: str | Sequence[str], band: str | None) -> LabelledStamps:
    """The stamps, none of them trained on."""
    stamps = LabelledStamps(data)
    bands = model.task().choose_bands(stamps.first.bands, band)
    refuse_trained_on(model, stamps, bands, "simulate a calibration set with another seed")
    return stamps


def _refuse_no_pairs(stamps: LabelledStamps) -> None:
    missing = {"set_id", "branch", "g1", "g2"} - set(stamps.labels.column_names)
    if missing:
        told = ", ".join(storage.redact(source.url) for source in stamps.sources)
        raise InputError(f"{told} lacks {', '.join(sorted(missing))}: make it with simulate --pairs shear")


def _batches(task: Task, stamps: LabelledStamps, band: str | None, device: str) -> Iterator[Cutouts]:
    rows = np.arange(stamps.labels.num_rows)
    bands = task.choose_bands(stamps.first.bands, band)
    stream = StampBatches(stamps, rows, torch.zeros(len(rows), 2), bands=bands, batch_size=256)
    return (batch.cutouts.to(device) for batch in stream.ordered())


def _labels(stamps: LabelledStamps) -> pa.Table:
    """The labels, the sets of several sources told apart."""
    table = stamps.labels
    if "set_id" not in table.column_names or len(stamps.sources) == 1:
        return table
    source = np.repeat(np.arange(len(stamps.sources)), [item.count for item in stamps.sources])
    numbers = table["set_id"].to_numpy().astype(np.int64) * len(stamps.sources) + source
    return table.set_column(table.column_names.index("set_id"), "set_id", pa.array(numbers))


def _identity(stamps: LabelledStamps) -> dict[str, Any]:
    """Record of the stamps in the card."""
    return {"ids": [source.id for source in stamps.sources], "digest": stamps.digest}

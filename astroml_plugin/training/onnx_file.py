"""One ONNX file of a bundle, from raw pixels to columns: written only where ONNX Runtime gives what we measure."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from astroml_plugin.compute.onnx_graph import opened, translated
from astroml_plugin.core import foreign, registry, storage
from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.detection import DetectingTask
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.portable import (
    TOLERANCE,
    TYPICALITY_TOLERANCE,
    Description,
    PortableModel,
    described,
    differences,
    measured,
    portable,
    probes,
)
from astroml_plugin.training.typicality import COLUMN as TYPICALITY

METADATA = "astroml_plugin"
"""Key of the file's metadata: the `Description` as JSON."""

_MISSING = 'exporting to ONNX needs the packages onnx, onnxscript and onnxruntime: pip install "astroml-plugin[onnx]"'
_SIDES = ("y", "x")


@dataclass(frozen=True)
class OnnxFile:
    """A model in the format ONNX, compared with our own measurement."""

    content: bytes
    """The file."""
    description: Description
    """Facts that users need; they are in the file's metadata too."""
    differences: dict[str, float]
    """Output -> largest difference from our own measurement of drawn stamps, relative above 1."""

    def write(self, url: str) -> None:
        """Write the file whole or not at all, to a path or URL."""
        storage.write_atomic(url, self.content)


def onnx_file(bundle: ModelBundle, *, variance: bool = True) -> OnnxFile:
    """Export a bundle.

    Args:
        bundle: whose task and network.
        variance: whether the file's model reads a variance, where the task can do without.

    Raises:
        InputError: packages are missing, or the bundle holds what ONNX has no words for or what then answers otherwise.
    """
    onnx, _, runtime = (registry.optional(name, _MISSING) for name in ("onnx", "onnxscript", "onnxruntime"))
    model = portable(bundle, variance=variance).eval()
    stamps = probes(model)
    inputs = model.given(stamps)  # compared in a batch of another size than that which is translated
    try:
        first, proto = _translated(bundle, model, inputs)
    except InputError:
        if model.typicality is None:
            raise
        model = portable(bundle, variance=variance, typicality=False).eval()
        first, proto = _translated(bundle, model, inputs)
    shapes = {
        name: ("n", *(_length(model, name, values.shape, axis) for axis in range(1, values.ndim)))
        for name, values in zip((*model.reads, *first), (*inputs, *first.values()))
    }
    description = described(bundle, model, shapes)
    _describe(onnx, proto, description)
    content = proto.SerializeToString()
    session = opened(runtime, content)
    found = dict(zip(first, session.run(None, dict(zip(model.reads, (item.numpy() for item in inputs))))))
    gaps = differences(found, measured(model, bundle.network(), stamps))
    allowed = {name: TYPICALITY_TOLERANCE if name == TYPICALITY.name else TOLERANCE for name in gaps}
    name, worst = max(gaps.items(), key=lambda one: one[1] / allowed[one[0]])
    if not worst <= allowed[name]:
        raise InputError(
            f"bundle {bundle.called} cannot be exported: {name} of the ONNX file differs by {worst:.2g} from what "
            f"astroml-plugin measures on the same stamps, and {allowed[name]:g} is allowed"
        )
    return OnnxFile(content, description, gaps)


def _length(model: PortableModel, name: str, shape: Sequence[int], axis: int) -> int | str:
    """Length of an axis but the first; its name where it is free: sides of images that objects are found in."""
    free = isinstance(model.task, DetectingTask) and name != "psf" and axis >= len(shape) - 2
    return _SIDES[axis - len(shape)] if free else int(shape[axis])


def _translated(bundle: ModelBundle, model: PortableModel, inputs: Sequence[Tensor]) -> tuple[dict[str, Tensor], Any]:
    """Outputs by name, and the model as ONNX has it."""
    count, stride = torch.export.Dim("n", min=1), getattr(model.task, "stride", 1)
    sides = {name: stride * torch.export.Dim(f"{name}_{stride}", min=1) for name in _SIDES}
    axes = tuple(
        {0: count}
        | {axis: sides[_SIDES[axis - 2]] for axis in (2, 3) if _length(model, name, item.shape, axis) in sides}
        for name, item in zip(model.reads, inputs)
    )
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            first = model.columns(*inputs)  # what layers keep for later is made here, of numbers
            return first, translated(model, inputs, axes, names=model.reads, outputs=list(first))
    except Exception as error:  # noqa: BLE001 - the exporter's own, or of a network that is not made for it
        reason = foreign.in_words(error.__cause__ or error)
        raise InputError(
            f"bundle {bundle.called} (task {bundle.card.task}, network {bundle.card.network}) cannot be exported: a "
            f"part of it is not made of operations that ONNX has ({reason}); run it with astroml-plugin"
        ) from None


def _describe(onnx: Any, proto: Any, description: Description) -> None:
    """Put the description into the file and take out the exporter's notes, which name files of this machine."""
    for node in [*proto.graph.node, *(node for function in proto.functions for node in function.node)]:
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:]
    del proto.graph.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
    proto.producer_name, proto.producer_version = "astroml_plugin", description.version
    proto.doc_string = description.description
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(description.to_json())})

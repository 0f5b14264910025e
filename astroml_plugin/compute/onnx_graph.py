"""A module of torch as a model in the format ONNX, and a session of ONNX Runtime. Needs torch, and the extra `onnx`."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from astroml_plugin.core.tracing import exporting

_OPSET = 18
_TRACED = 3
"""Objects of the batch that is followed through the module."""


def translated(
    module: nn.Module,
    inputs: Sequence[Tensor],
    axes: Sequence[Mapping[int, Any]],
    *,
    names: Sequence[str],
    outputs: Sequence[str],
) -> Any:
    """The ONNX model (`onnx.ModelProto`) of a module; raises what the exporter raises.

    Args:
        module: in eval mode on the CPU.
        inputs: of some objects.
        axes: for each input, axis -> `torch.export.Dim` where its length is free.
        names, outputs: of the model's inputs and outputs.
    """
    with _quiet(), exporting(), torch.inference_mode(False), torch.no_grad():
        given = tuple(item[:_TRACED].clone() for item in inputs)
        traced = torch.export.export(module, given, dynamic_shapes=_shapes(module, axes), strict=False)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=list(names),
            output_names=list(outputs),
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def graph_of(network: nn.Module, inputs: Sequence[Tensor], stride: int = 0) -> bytes:
    """A network of any number of objects as ONNX; raises what the exporter raises.

    Args:
        network: in eval mode on the CPU.
        inputs: of some objects.
        stride: sides of images may be any multiple of it; 0: they are those of `inputs`.
    """
    axes: dict[int, Any] = {0: torch.export.Dim("n", min=1)}
    if stride:
        axes |= {axis: stride * torch.export.Dim(f"{name}_{stride}", min=1) for axis, name in ((2, "y"), (3, "x"))}
    names = [f"input{number}" for number in range(len(inputs))]
    plain = [item.contiguous() for item in inputs]
    content: bytes = translated(
        network, plain, [axes] * len(inputs), names=names, outputs=["output"]
    ).SerializeToString()
    return content


def opened(runtime: Any, content: bytes, threads: int = 0) -> Any:
    """A session of ONNX Runtime on the CPU; `threads` 0 leaves their number to it."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _shapes(module: nn.Module, axes: Sequence[Mapping[int, Any]]) -> tuple[Any, ...]:
    """Free axes in the form of the arguments of `forward`: those of `*inputs` are one."""
    given = tuple(dict(one) for one in axes)
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return given
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*given[:named], given[named:])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own log. Its warnings are left: filters of warnings belong to all threads of a process."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)

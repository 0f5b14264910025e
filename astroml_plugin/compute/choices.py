"""Choices of how a network is run, by name. Needs nothing but Python until a device is named."""

from __future__ import annotations

from astroml_plugin.core.errors import InputError

PRECISIONS = ("float32", "auto")
"""Number formats of a network: float32, or autocast to half precision where the device computes in it ("auto")."""

COMPILING = ("auto", "always", "never")
"""Whether a network is compiled: in float32 on CUDA once it has done the work of `forward.COMPILE_AFTER` whole batches,
at once, or not at all."""

RUNTIMES = ("onnx", "openvino")
"""Runtimes of a network on a CPU beside torch."""

BACKENDS = ("auto", "torch", *RUNTIMES)
"""Runtimes of a network on a CPU; "auto" is the fastest of those that are installed, on a run that is long enough."""


def check_device(device: str) -> None:
    """InputError unless `device` names a torch device (one that only the workers have is fine)."""
    import torch

    try:
        torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is no torch device: use cpu, cuda or cuda:N") from error

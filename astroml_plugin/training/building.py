"""The network of a bundle: built as its card says, filled with its weights, made ready for inference.

A card is data of others. Before anything is allocated the network is built without memory and its names and shapes are
compared with the header of the weights' file, so that a card of a kilobyte cannot ask for gigabytes.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from astroml_plugin.compute.forward import FOLDED_GAP, difference
from astroml_plugin.core.errors import InputError
from astroml_plugin.networks.folding import fuse

UNSAVED_BYTES = 2**28
"""Buffers of a network that are not in its weights' file may take so much."""

_PER_TENSOR, _SPARE = 16, 4096
"""Layers and parameters that a network may register while it is built: so many per saved tensor, and some more."""


def load_network(build: Callable[[], nn.Module], weights: bytes, name: str) -> nn.Module:
    """Build a network and fill it with weights; gives it in eval mode on the CPU, without gradients.

    Args:
        build: makes the network as the card says.
        weights: a safetensors file.
        name: of the bundle, for messages.

    Raises:
        InputError: the network cannot be built, the weights are no safetensors or belong to another network, or the
            network would take more memory than its weights account for.
    """
    try:
        saved = safetensors.torch.load(weights)
    except SafetensorError as error:
        raise InputError(f"the weights of bundle {name} are no safetensors ({error}): get it again") from None
    check_fit(build, saved, name)
    network = _built(build, saved, name)
    assert network is not None
    try:
        network.load_state_dict(saved)
    except RuntimeError as error:
        raise InputError(f"the weights of bundle {name} do not fit its network: {_first_line(error)}") from None
    return network.eval().requires_grad_(False)


def check_fit(build: Callable[[], nn.Module], saved: Mapping[str, Tensor], name: str) -> None:
    """Compare the names and shapes of a network, built on the meta device, with saved tensors.

    A network of others that must see numbers while it is built cannot be checked so; it is built as it is.

    Raises:
        InputError: they differ, says where; or buffers that are not saved would take more than `UNSAVED_BYTES`.
    """
    with torch.device("meta"):
        network = _built(build, saved, name)
    if network is None:
        return
    state = network.state_dict()
    problems = [f"{key} is missing" for key in state if key not in saved]
    problems += [f"{key} is not part of the network" for key in saved if key not in state]
    problems += [
        f"{key} is {tuple(saved[key].shape)} in the file and {tuple(value.shape)} in the network"
        for key, value in state.items()
        if key in saved and saved[key].shape != value.shape
    ]
    if problems:
        raise InputError(
            f"the weights of bundle {name} do not fit network {type(network).__name__} of its card "
            f"({len(problems)} differences, the first: {problems[0]}): get the bundle again"
        )
    unsaved = sum(buffer.nbytes for key, buffer in network.named_buffers() if key not in state)
    if unsaved > UNSAVED_BYTES:
        raise InputError(
            f"the network of bundle {name} asks for {unsaved / 2**30:.1f} GiB beside its weights: that is refused, "
            f"get the bundle again"
        )


def _built(build: Callable[[], nn.Module], saved: Mapping[str, Tensor], name: str) -> nn.Module | None:
    """Build a network; None where it must see numbers and stands on the meta device, which has none."""
    try:
        with _few_layers(_PER_TENSOR * len(saved) + _SPARE, name):
            return build()
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - the arguments are data of others: any error is theirs
        if isinstance(error, NotImplementedError | RuntimeError) and "meta" in str(error):
            return None
        kind = type(error).__name__
        raise InputError(f"the network of bundle {name} cannot be built ({kind}: {_first_line(error)})") from None


@contextmanager
def _few_layers(most: int, name: str) -> Iterator[None]:
    """Stop a network that registers more layers and parameters than its weights account for."""
    here, count = threading.get_ident(), 0

    def seen(*_: object) -> None:
        nonlocal count
        count += threading.get_ident() == here
        if count > most:
            raise InputError(f"the network of bundle {name} has more layers than its weights account for: refused")

    handles = [
        torch_module.register_module_parameter_registration_hook(seen),
        torch_module.register_module_module_registration_hook(seen),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def folded(network: nn.Module, example: Callable[[], Sequence[Tensor]]) -> nn.Module:
    """Return a faster copy of a trained network where both answer `example` alike, else the network itself.

    Then a RuntimeWarning says that it runs as it was trained, and why.

    Args:
        network: in eval mode, without gradients.
        example: gives inputs of some objects.
    """
    try:
        copied = fuse(copy.deepcopy(network))
        inputs = example()
        with torch.inference_mode():
            gap = difference(network(*inputs), copied(*(item.clone() for item in inputs)))
    except Exception as error:  # noqa: BLE001 - layers of others may refuse a copy, a new weight, or the example
        reason = f"{type(error).__name__}: {_first_line(error)}"
    else:
        if gap <= FOLDED_GAP:
            return copied
        reason = f"folded, its answers differ by {gap:.2g} of their range"
    warnings.warn(
        f"network {type(network).__name__} runs as it was trained, without folding ({reason})",
        RuntimeWarning,
        stacklevel=3,
    )
    return network


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")

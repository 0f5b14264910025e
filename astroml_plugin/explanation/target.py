"""One number of each object as a function of what a network gets, with gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import refuse_unknown
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.tasks import missing
from astroml_plugin.tasks.base import Task
from astroml_plugin.tasks.detection import DetectingTask

BATCH = 128
"""Stamps that go through a network at once."""


class Target(nn.Module):
    """One number of each object as a function of the network's first input.

    Args:
        task: says how the number follows from the outputs.
        network: in eval mode, without gradients of its weights.
        number: a key of `Task.explained`; empty: the first one.

    Raises:
        InputError: the task has no such number, or none at all.
    """

    def __init__(self, task: Task, network: nn.Module, number: str = "") -> None:
        super().__init__()
        known = task.explained()
        if not known:
            raise InputError("this bundle gives no number of an object that could be explained: choose another bundle")
        if number:
            refuse_unknown([number], known, "the numbers that this bundle can explain")
        self.task: Any = task
        self.network = network
        self.number = number or next(iter(known))

    def forward(self, image: Tensor, place: Tensor, *others: Tensor) -> Tensor:
        """(n,) float32 from the first input (n, channel, h, w), places of `Task.explained_place`, and other inputs."""
        value: Tensor = self.task.explained_value(self.number, self.network(image, *others).float(), place)
        return value.float()


@dataclass(frozen=True)
class Seen:
    """Stamps of n objects as a network gets them."""

    image: Tensor
    """(n, channel, h, w) float32, the first input: what is explained."""
    others: tuple[Tensor, ...]
    """Further inputs of the network, such as the PSF: they stay as they are."""
    usable: Tensor
    """(n, channel, h, w) bool: pixels that were measured."""
    at: Tensor
    """(n, 2) int64: pixel x, y of the object in the stamp."""
    place: Tensor
    """(n,) int64: where the number stands in the outputs."""
    failed: Tensor | None = None
    """(n,) bool: stamps that a catalog has no number for, as a band is missing or nothing can be used; None: none."""

    def __len__(self) -> int:
        return int(self.image.shape[0])

    def take(self, index: Tensor | slice) -> Seen:
        """The stamps of an index or slice."""
        others = tuple(item[index] for item in self.others)
        rest = {name: getattr(self, name)[index] for name in ("image", "usable", "at", "place")}
        failed = None if self.failed is None else self.failed[index]
        return replace(self, others=others, failed=failed, **rest)

    def given(self, index: Tensor | slice | None = None) -> tuple[Tensor, ...]:
        """Further arguments of a `Target`, after the image."""
        return (self.place, *self.others) if index is None else (self.place[index], *(o[index] for o in self.others))


def seen_by(target: Target, stamps: Cutouts, at: Tensor | None = None) -> Seen:
    """Stamps as the network of a target gets them, and where in them its number stands.

    Args:
        target: what is explained.
        stamps: the bundle's bands, as `Task.prepare` takes them.
        at: (n, 2) int64, pixel x, y of each object; default the middle, side // 2.
    """
    task = target.task
    with torch.inference_mode():
        inputs, flags = task.prepare(stamps)
        valid = task.fitted_stamps(stamps).valid if inputs[0].shape[-1] == task.stamp_size else stamps.valid
    image, *others = (item.clone() for item in inputs)  # not of inference mode: gradients pass
    image = image.contiguous(memory_format=torch.channels_last)
    count, channels, height, width = image.shape
    valid = valid.clone()
    usable = valid if valid.shape == image.shape else valid.any(1, keepdim=True).expand(-1, channels, -1, -1)
    if at is None:
        at = torch.tensor([[width // 2, height // 2]]).expand(count, 2)
    at = at.to(image.device)
    with torch.no_grad():
        outputs = batched(target.network, image, *others)
        place = task.explained_place(target.number, outputs, at)
    return Seen(image, tuple(others), usable, at, place, _failed(task, stamps, flags))


def _failed(task: Any, stamps: Cutouts, flags: Tensor) -> Tensor | None:
    """(n,) bool of the stamps that `Task.to_columns` gives no number; None: none of them."""
    if isinstance(task, DetectingTask):
        return None
    bits = flags.cpu().numpy().astype(np.int32)
    lacks = missing.lacking(bits, stamps, task.fitted_stamps, task.settings.spare_bands) > 0
    return torch.from_numpy(lacks).to(stamps.image.device) if lacks.any() else None


def batched(function: Any, *inputs: Tensor, batch: int = BATCH) -> Tensor:
    """A function of tensors over their first axis, some at a time."""
    parts = zip(*(item.split(batch) for item in inputs))
    return torch.cat([function(*part) for part in parts])


def values(target: Target, image: Tensor, *given: Tensor) -> Tensor:
    """(n,) the number for images (n, channel, h, w), without gradients."""
    with torch.no_grad():
        return batched(target, image, *given)


def gradients(target: Target, image: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) the number, and its gradient (n, channel, h, w) with respect to the image.

    Raises:
        InputError: the network passes no gradient.
    """
    with torch.enable_grad():
        moving = image.detach().requires_grad_()
        value = target(moving, *given)
        if not value.requires_grad:
            raise InputError(
                f"the number {target.number} of this bundle has no gradient with respect to the pixels: explain it by "
                "--method occlusion, which needs none"
            )
        (slope,) = torch.autograd.grad(value.sum(), moving, allow_unused=True)
    # where a root begins the slope is infinite: what it lacks shows in the completeness error
    return value.detach(), torch.zeros_like(image) if slope is None else slope.nan_to_num(0.0, 0.0, 0.0)


def explainable(network: nn.Module) -> nn.Module:
    """A network made ready: no gradients of weights, no layer writes over what it was given. Changed in place."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 - of layers whose class mypy does not know
    return network.eval().requires_grad_(False)

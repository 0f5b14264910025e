"""Occlusion, by captum: how much the number falls when a square of one channel is replaced by the baseline."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from astroml_plugin.core.errors import InputError
from astroml_plugin.explanation.target import BATCH, Seen, Target

MISSING = 'this explanation needs captum, which is not installed: pip install "astroml-plugin[explain]"'


def captum_attr() -> Any:
    """The module `captum.attr`.

    Raises:
        InputError: captum is not installed.
    """
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise InputError(MISSING) from error


def occlusion(target: Target, seen: Seen, baseline: Tensor, window: int = 8, stride: int = 4) -> tuple[Tensor, int]:
    """Maps (n, channel, h, w) and the looks at an object that they took.

    Args:
        target: what is explained.
        seen: n stamps.
        baseline: (n, channel, h, w).
        window: side of the square, pixels.
        stride: pixels between two squares.
    """
    side = min(seen.image.shape[-2:])
    window = min(window, side)
    stride = min(stride, window)
    maps = (
        captum_attr()
        .Occlusion(target)
        .attribute(
            seen.image,
            sliding_window_shapes=(1, window, window),
            strides=(1, stride, stride),
            baselines=baseline,
            additional_forward_args=seen.given(),
            perturbations_per_eval=max(1, BATCH // len(seen)),
        )
    )
    steps = [-(-(length - window) // stride) + 1 for length in seen.image.shape[-2:]]
    return maps.detach(), seen.image.shape[1] * steps[0] * steps[1] + 1

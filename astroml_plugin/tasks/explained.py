"""Numbers of a task that can be explained: what a network says of an object, as one number with a gradient.

An explanation asks which pixels made a number. A task says here which numbers it has, and how each follows from the
outputs of the network. All of it is arithmetic of tensors, so that gradients pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Explained:
    """Hooks of a task for explanations. A task without its own has each output of its network explained."""

    outputs: Any

    def explained(self) -> dict[str, str]:
        """Number -> description; the first one is explained where nobody asks for another. Empty: nothing can be."""
        return {f"output_{number}": f"Number {number} that the network gives" for number in range(self.outputs)}

    def explained_place(self, name: str, outputs: Tensor, at: Tensor) -> Tensor:
        """Where in an object's outputs the number stands, found on the stamp as it is and kept for all its changes.

        Args:
            name: of the number.
            outputs: of the network, (n, outputs) or maps (n, outputs, h, w).
            at: (n, 2) int64, pixel x, y of the object in its stamp.

        Returns:
            (n,) int64; here the pixel of the object for maps, and 0 elsewhere.
        """
        if outputs.ndim < 4:
            return torch.zeros(len(outputs), dtype=torch.int64, device=outputs.device)
        return at[:, 1] * outputs.shape[-1] + at[:, 0]

    def explained_value(self, name: str, outputs: Tensor, place: Tensor) -> Tensor:
        """(n,) the number of each object, with a gradient.

        Args:
            name: a key of `explained`.
            outputs: of the network.
            place: (n,) of `explained_place`.
        """
        return read_at(outputs[:, int(name.removeprefix("output_"))], place)

    def explained_bands(self, bands: Sequence[str]) -> tuple[str, ...]:
        """Names of the channels of the network's first input, for the bands that are read from a source."""
        return tuple(bands)

    def blank(self, image: Tensor) -> Tensor:
        """The first input of the network (n, channel, h, w) as it is for blank sky."""
        return torch.zeros_like(image)


def read_at(values: Tensor, place: Tensor) -> Tensor:
    """(n,) numbers as they are, or those of maps (n, h, w) at pixels counted row by row."""
    return values if values.ndim == 1 else values.flatten(1).gather(1, place[:, None])[:, 0]

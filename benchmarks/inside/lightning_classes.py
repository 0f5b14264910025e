"""A Lightning module around our network."""

from __future__ import annotations

from typing import Any

import lightning
import torch


class TracedNetwork(lightning.LightningModule):
    """Our network from a file."""

    def __init__(self, file: str) -> None:
        """Load it."""
        super().__init__()
        self.network = torch.jit.load(file).eval()

    def predict_step(self, batch: torch.Tensor, *_: Any) -> torch.Tensor:
        """(n,) probabilities of the first class."""
        return self.network(batch.contiguous(memory_format=torch.channels_last))

"""A data set over a memory-mapped array, and a Lightning module around our network."""

from __future__ import annotations

from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import Dataset

from benchmarks.inside.stretch import stretched


class MappedStamps(Dataset):
    """Stamps (n, band, y, x) of a .npy file, one by one."""

    def __init__(self, file: str, stretch: bool) -> None:
        """Open the file; with `stretch` our normalisation is done in NumPy."""
        self.stamps, self.stretch = np.load(file, mmap_mode="r"), stretch

    def __len__(self) -> int:
        """Number of stamps."""
        return len(self.stamps)

    def __getitem__(self, index: int) -> np.ndarray:
        """One stamp (band, y, x) float32."""
        return stretched(self.stamps[index]) if self.stretch else np.array(self.stamps[index])


class TracedNetwork(lightning.LightningModule):
    """Our network from a file."""

    def __init__(self, file: str) -> None:
        """Load it."""
        super().__init__()
        self.network = torch.jit.load(file).eval()

    def predict_step(self, batch: torch.Tensor, *_: Any) -> torch.Tensor:
        """(n,) probabilities of the first class."""
        return self.network(batch.contiguous(memory_format=torch.channels_last))

"""A data set over a memory-mapped array; processes of a data loader import this, and not Lightning."""

from __future__ import annotations

import numpy as np
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

"""What a user of hyrax writes: a data set over a memory-mapped array, with or without a stretch, and the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hyrax.datasets import HyraxDataset
from hyrax.models.model_registry import hyrax_model
from torch import nn

from benchmarks.inside.stretch import stretched


class RawStamps(HyraxDataset):
    """Stamps (n, band, y, x) of a .npy file, memory-mapped, as they are."""

    def __init__(self, config: dict[str, Any], data_location: str) -> None:
        """Open the file `data_location`."""
        self.stamps = np.load(data_location, mmap_mode="r")
        super().__init__(config)

    def __len__(self) -> int:
        """Number of stamps."""
        return len(self.stamps)

    def get_image(self, index: int) -> np.ndarray:
        """One stamp (band, y, x) float32."""
        return np.array(self.stamps[index])

    def get_object_id(self, index: int) -> str:
        """Its number."""
        return str(index)


class StretchedStamps(RawStamps):
    """The same with our normalisation, in NumPy."""

    def get_image(self, index: int) -> np.ndarray:
        """One stamp (band, y, x) float32, without sky, in units of its noise, stretched."""
        return stretched(self.stamps[index])


@hyrax_model
class TracedNetwork(nn.Module):
    """Our network from the file that `infer.model_weights_file` names."""

    def __init__(self, config: dict[str, Any], data_sample: Any = None) -> None:
        """A module with one weight, since hyrax makes an optimiser; the network comes with `load`."""
        super().__init__()
        self.config, self.unused = config, nn.Linear(1, 1)
        self.load = self._load

    def _load(self, path: Path) -> None:
        self.network = torch.jit.load(str(path)).eval()

    def forward(self, batch: Any) -> torch.Tensor:
        """(n,) probabilities of the first class."""
        image = batch[0] if isinstance(batch, tuple | list) else batch
        return self.network(image.contiguous(memory_format=torch.channels_last))

    def train_batch(self, batch: Any) -> dict[str, float]:
        """Nothing is trained."""
        return {"loss": 0.0}

    validate_batch = test_batch = train_batch

    def infer_batch(self, batch: Any) -> torch.Tensor:
        """The forward."""
        return self.forward(batch)

    @staticmethod
    def prepare_inputs(data_dict: dict[str, Any]) -> Any:
        """The images of a batch."""
        return (data_dict["data"]["image"],)

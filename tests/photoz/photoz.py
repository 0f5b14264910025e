"""Photometric redshifts: a binned p(z) for each galaxy, with mean and width."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from astroml_plugin import Column, Task, TaskSettings, float_labels


@dataclass(frozen=True)
class PhotozSettings(TaskSettings):
    """Settings of the task."""

    bins: int = 20
    """Bins of p(z), of equal width."""
    upper: float = 1.0
    """Upper edge of the last bin; the first begins at 0."""


class PhotozTask(Task):
    """Probability of each redshift bin; the catalog has all of them, their mean and their width."""

    Settings = PhotozSettings
    labels = ("z",)

    @property
    def outputs(self):
        return self.settings.bins

    @property
    def centres(self):
        width = self.settings.upper / self.settings.bins
        return width * (torch.arange(self.settings.bins) + 0.5)

    def columns(self):
        return [
            Column("z", "float32", "", "src.redshift.phot", "Mean of p(z)"),
            Column("z_err", "float32", "", "stat.error;src.redshift.phot", "Standard deviation of p(z)"),
            Column("p_z", f"float32[{self.settings.bins}]", "", "stat.probability", "Probability of each redshift bin"),
        ]

    def targets(self, table):
        z = float_labels(table, self.labels)[:, 0]
        return torch.from_numpy(np.clip(z / self.settings.upper * self.settings.bins, 0, self.settings.bins - 1)).long()

    def loss(self, outputs, targets):
        return cross_entropy(outputs, targets)

    def decode(self, outputs, cutouts):
        p = outputs.softmax(1)
        mean = p @ self.centres
        error = (p @ self.centres.square() - mean.square()).clamp(min=0).sqrt()
        return {"z": mean.numpy(), "z_err": error.numpy(), "p_z": p.numpy()}

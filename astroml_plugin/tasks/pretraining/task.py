"""Learning from stamps without labels: two views of an object are alike, and those of others are not.

The bundle is a beginning for others (`train RECIPE --from BUNDLE`), and gives each object a latent vector in which like
objects lie near each other. Contrastive learning as of Chen et al. 2020 (ICML, SimCLR), with views that astronomers
draw (`views`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from astroml_plugin.catalog import Column
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.networks.projected import Projected
from astroml_plugin.tasks.base import Task, TaskSettings
from astroml_plugin.tasks.pretraining.views import Views
from astroml_plugin.tasks.source_check import refuse_few

LEAST = 100
"""Training stamps below which there is little to compare."""
_GROUP = 128
"""Objects that are compared with each other when the network is judged: figures do not depend on the batch."""


@dataclass(frozen=True)
class PretrainSettings(TaskSettings):
    """Settings of `PretrainTask`."""

    stamp_size: int = 0
    features: int = 64
    """Length of the latent vector."""
    projection: int = 64
    """Numbers in which views are compared."""
    temperature: float = 0.2
    """Cosines are divided by it: small values let the most alike of the others count most."""
    views: Views = field(default_factory=Views)
    """How unlike two views of an object are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.features, self.projection) < 2 or self.temperature <= 0:
            raise InputError(
                f"features ({self.features}) and projection ({self.projection}) must be 2 or more, and temperature "
                f"({self.temperature}) above 0"
            )
        if self.psf != "none":
            raise InputError("views of a stamp have no PSF of their own: pretraining takes psf = 'none'")


class PretrainTask(Task):
    """A latent vector, learned from pairs of views."""

    Settings: ClassVar[type[TaskSettings]] = PretrainSettings
    learns_labels: ClassVar[bool] = False
    labels = ()

    @property
    def outputs(self) -> int:
        """Latent vector, and the numbers in which views are compared."""
        return self.network_outputs + int(self.settings.projection)

    @property
    def network_outputs(self) -> int:
        """Latent vector."""
        return int(self.settings.features)

    def build_network(self, network: str | type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
        """The network, and the layers behind it that only pretraining needs."""
        return Projected(super().build_network(network, arguments), self.network_outputs, self.settings.projection)

    def columns(self) -> list[Column]:
        """The latent vector."""
        return [Column("latent", f"float32[{self.network_outputs}]", "", "stat.param", "Latent vector")]

    def targets(self, table: pa.Table) -> Tensor:
        """(n,) numbers of the objects: the views of one share it."""
        return torch.arange(table.num_rows)

    def check_splits(self, targets: Mapping[str, Tensor]) -> None:
        """Refuse an empty split, and fewer than `LEAST` training stamps."""
        super().check_splits(targets)
        refuse_few(targets, LEAST, "pretraining")

    def pretext(
        self, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The stamps, followed by a second view of each."""
        (image,) = inputs
        other = self.settings.views.second(image, self.settings.normalisation.border, generator)
        return (torch.cat([image, other]),), torch.cat([targets, targets])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of finding the other view of an object among all views of the batch."""
        first, second = _paired(targets)
        if not len(first):
            return outputs.sum() * 0
        views = functional.normalize(outputs[:, self.network_outputs :], dim=1)
        views = torch.cat([views[first], views[second]])
        alike = views @ views.T / self.settings.temperature
        alike = alike.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -torch.inf)
        return functional.cross_entropy(alike, _partners(len(first)).to(views.device))

    def metrics(self, outputs: Tensor, targets: Tensor, table: pa.Table | None = None) -> dict[str, Any]:
        """Loss and part of the views whose other view is the most alike, in groups of objects of one size; or, of
        stamps without a second view, how many dimensions the latent vectors fill."""
        first, second = _paired(targets)
        if not len(first):
            return {"dimensions": filled(outputs[:, : self.network_outputs])}
        losses, found = [], []
        size = min(_GROUP, len(first))
        for start in range(0, len(first) - size + 1, size):
            rows = torch.cat([first[start : start + size], second[start : start + size]])
            losses.append(float(self.loss(outputs[rows], targets[rows])))
            views = functional.normalize(outputs[rows, self.network_outputs :], dim=1)
            alike = (views @ views.T).fill_diagonal_(-torch.inf)
            found.append(float((alike.argmax(1) == _partners(size).to(alike.device)).float().mean()))
        return {"loss": float(np.mean(losses)), "found": float(np.mean(found))}

    def decode(self, outputs: Tensor, cutouts: Cutouts) -> dict[str, np.ndarray]:
        """Latent vectors of n objects."""
        return {"latent": outputs[:, : self.network_outputs].numpy()}

    def graph_columns(self, outputs: Tensor, stamps: Any) -> dict[str, Tensor]:
        """Latent vector."""
        return {"latent": outputs[:, : self.network_outputs]}


def filled(latent: Tensor) -> float:
    """Dimensions that vectors (n, k) fill: participation ratio of the eigenvalues of their covariance, 1 to k."""
    if len(latent) < 2:
        return 1.0
    values = torch.linalg.svdvals(latent.double() - latent.double().mean(0)).square()
    return float(values.sum().square() / values.square().sum().clamp_min(1e-300))


def _paired(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the first and of the second view of each object; none where objects have one view."""
    order = torch.argsort(targets, stable=True)
    first, second = order[0 : len(order) // 2 * 2 : 2], order[1::2]
    if len(order) % 2 or not torch.equal(targets[first], targets[second]):
        return order[:0], order[:0]
    return first, second


def _partners(count: int) -> Tensor:
    """(2 count,) number of the other view, where first views come before second ones."""
    number = torch.arange(count)
    return torch.cat([number + count, number])

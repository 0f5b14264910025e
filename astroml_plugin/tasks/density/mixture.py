"""Mixtures of Gaussians from network outputs, and what cells of a grid say of them; arithmetic of tensors alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_NARROWEST, _WIDEST = -4.5, 2.5
"""Natural logarithms of the widths, in units of the training spread, that a Gaussian can have."""

_EVEN = 1e-4
"""Part of the probability that is spread evenly over the grid: what is nearly impossible is not impossible."""


def parts(outputs: Tensor, widening: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log weights, means and log widths, (n, k) each, from (n, 3 k)."""
    weights, means, widths = outputs.chunk(3, dim=1)
    narrow = _NARROWEST + (_WIDEST - _NARROWEST) * torch.sigmoid(widths)
    return torch.log_softmax(weights, dim=1), means, narrow + math.log(widening)


def surprise(outputs: Tensor, targets: Tensor, widening: float) -> Tensor:
    """(n,) minus the log density at targets (n,)."""
    weights, means, widths = parts(outputs, widening)
    pull = (targets[:, None] - means) * torch.exp(-widths)
    density = torch.logsumexp(weights - widths - 0.5 * pull.square(), dim=1) - 0.5 * math.log(2 * math.pi)
    # in logarithms, the density with a broad one beside it: a target far from all Gaussians costs a bounded amount
    broad = -0.5 * (targets / 4).square() - math.log(4) - 0.5 * math.log(2 * math.pi)
    return -torch.logaddexp(density + math.log1p(-_EVEN), broad + math.log(_EVEN))


def cell_probabilities(outputs: Tensor, edges: Tensor, widening: float) -> Tensor:
    """(n, cells) probability of each cell between rising edges (cells + 1,); they sum to 1."""
    weights, means, widths = parts(outputs, widening)
    place = (edges[None, :, None] - means[:, None]) * torch.exp(-widths)[:, None]
    below = (0.5 * (1 + torch.erf(place * math.sqrt(0.5))) * weights.exp()[:, None]).sum(2)
    inside = (below[:, 1:] - below[:, :-1]).clamp_min(0)
    even = _EVEN / (len(edges) - 1)
    return (inside * (1 - _EVEN) + even) / (inside.sum(1, keepdim=True) * (1 - _EVEN) + _EVEN)


def quantile(cells: Tensor, edges: Tensor, level: float) -> Tensor:
    """(n,) place below which a part `level` of the probability (n, cells) lies, straight within a cell."""
    below = cells.cumsum(1)
    number = (below < level).sum(1, keepdim=True).clamp_max(cells.shape[1] - 1)
    inside = cells.gather(1, number)
    before = below.gather(1, number) - inside
    low = edges[:-1][number]
    return (low + (edges[1:][number] - low) * ((level - before) / inside).clamp(0, 1))[:, 0]

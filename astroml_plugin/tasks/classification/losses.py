"""Losses of classes: of votes, and of classes that do not exclude each other; smoothed and focal as asked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def votes_loss(outputs: Tensor, votes: Tensor, weights: Tensor | None, *, smoothing: float, focal: float) -> Tensor:
    """Minus the log likelihood per vote (n, class): multinomial, so that an object counts by its votes."""
    logarithm = torch.log_softmax(outputs, dim=1)
    if smoothing:
        votes = (1 - smoothing) * votes + smoothing * votes.mean(1, keepdim=True)
    weighted = votes if weights is None else votes * weights
    terms = weighted * logarithm
    if focal:
        terms = terms * (1 - logarithm.exp()).clamp_min(0) ** focal
    return -terms.sum() / weighted.sum()


def dirichlet_loss(outputs: Tensor, votes: Tensor) -> Tensor:
    """Minus the log likelihood per vote (n, class) of a Dirichlet-multinomial with concentrations exp(outputs).

    Its mean is the softmax of the outputs, and their size says how far fractions of objects alike scatter about it.
    """
    concentration = outputs.clamp(-8.0, 8.0).exp()
    total, several = concentration.sum(1), votes.sum(1)
    likelihood = torch.lgamma(total) - torch.lgamma(total + several)
    likelihood = likelihood + (torch.lgamma(concentration + votes) - torch.lgamma(concentration)).sum(1)
    return -likelihood.sum() / several.sum()


def independent_loss(
    outputs: Tensor, targets: Tensor, weights: Tensor | None, *, smoothing: float, focal: float
) -> Tensor:
    """Binary cross entropy per known entry of targets (n, class), NaN where unknown."""
    known = ~torch.isnan(targets)
    wanted = torch.where(known, targets, torch.zeros_like(targets))
    if smoothing:
        wanted = wanted * (1 - smoothing) + 0.5 * smoothing
    yes, no = functional.logsigmoid(outputs), functional.logsigmoid(-outputs)
    if focal:
        yes, no = (term * (1 - term.exp()).clamp_min(0) ** focal for term in (yes, no))
    positive = wanted * yes if weights is None else wanted * yes * weights
    return -((positive + (1 - wanted) * no) * known).sum() / known.sum().clamp_min(1)

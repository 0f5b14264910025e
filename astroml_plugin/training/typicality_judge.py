"""Fit the judge of a typicality: a small network that tells a population from stamps made to be unlike it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from astroml_plugin.networks.typicality import Judge

_UNITS = (64, 32)
_DROPOUT, _DECAY, _RATE = 0.3, 0.1, 0.004
_BATCH = 512
_FEWEST, _MOST = 150, 1200
"""Steps."""
_PER_STEP = 12
"""Stamps that ask for one more step."""


def fit_judge(own: Tensor, odd: Tensor, seed: int = 0) -> Judge:
    """The judge of vectors (n, d) of a population against (m, d) of others."""
    centre = own.median(0).values
    spread = 1.4826 * (own - centre).abs().median(0).values
    scale = torch.maximum(spread, 0.1 * own.std(0)).clamp_min(1e-4)
    start = {"centre": centre, "scale": scale}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        steps = min(_MOST, max(_FEWEST, (len(own) + len(odd)) // _PER_STEP))
        layers = _trained(Judge.squashed(own, centre, scale), Judge.squashed(odd, centre, scale), steps)
    for place, layer in enumerate(layers):
        start |= {f"weight{place}": layer.weight.detach().T.contiguous(), f"bias{place}": layer.bias.detach()}
    return Judge(start)


def _trained(own: Tensor, odd: Tensor, steps: int) -> list[nn.Linear]:
    widths = (own.shape[1], *_UNITS, 1)
    layers = [nn.Linear(first, last) for first, last in pairwise(widths)]
    network = nn.Sequential(layers[0], nn.SiLU(), nn.Dropout(_DROPOUT), layers[1], nn.SiLU(), layers[2])
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    half = _BATCH // 2
    truth = torch.cat([torch.zeros(half), torch.ones(half)])
    for _ in range(steps):
        rows = [part[torch.randint(len(part), (half,))] for part in (own, odd)]
        loss = nn.functional.binary_cross_entropy_with_logits(network(torch.cat(rows))[:, 0], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return layers

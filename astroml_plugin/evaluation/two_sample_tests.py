"""Can two sets of images be told apart, and is one a copy of the other: tests of generators."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict
from torch import Tensor, nn

from astroml_plugin.compute.device import forked_rng
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.evaluation.baselines.shape_features import shape_features
from astroml_plugin.evaluation.ranking_metrics import auroc
from astroml_plugin.networks.strided_cnn import StridedCNN

LEAST = 40
"""Images of each set below which nothing can be learned of them."""


def forest_auc(real: Cutouts, made: Cutouts, seed: int = 0) -> float:
    """Area under the curve of a random forest on shape features, on images that it was not trained on.

    The classifier two-sample test (Lopez-Paz & Oquab 2017); five folds, 0.5 where the sets cannot be told apart.

    Raises:
        InputError: fewer than 40 images in a set.
    """
    _enough(len(real), len(made))
    values = np.concatenate([np.nan_to_num(shape_features(some).values) for some in (real, made)])
    truth = np.repeat([0, 1], [len(real), len(made)])
    order = np.random.default_rng(seed).permutation(len(truth))
    forest = RandomForestClassifier(200, min_samples_leaf=5, random_state=seed)
    odds = cross_val_predict(forest, values[order], truth[order], cv=5, method="predict_proba")[:, 1]
    return auroc(odds, truth[order] > 0)


def network_auc(real: Tensor, made: Tensor, *, epochs: int = 6, seed: int = 0) -> float:
    """Area under the ROC curve of a small convolutional network on pixels (n, band, y, x) in units of the noise.

    Trained on seven in ten of the images of both sets, turned and mirrored at random; the area is that of the others.
    """
    _enough(len(real), len(made))
    pixels = torch.asinh(torch.cat([real, made]) / 3)
    truth = torch.cat([torch.zeros(len(real)), torch.ones(len(made))])
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(truth), generator=random)
    train, test = order[: int(0.7 * len(order))], order[int(0.7 * len(order)) :]
    with forked_rng("cpu"):
        torch.manual_seed(seed)
        network = StridedCNN(pixels.shape[1], 1)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = epochs * -(-len(train) // 128)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in train[torch.randperm(len(train), generator=random)].split(128):
            image = pixels[rows]
            turn = int(torch.randint(4, (1,), generator=random))
            image = torch.rot90(image, turn, (2, 3)) if len(rows) > 1 else image
            loss = nn.functional.binary_cross_entropy_with_logits(network(image)[:, 0], truth[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        odds = torch.cat([network(pixels[rows])[:, 0] for rows in test.split(256)]).numpy()
    return auroc(odds, truth[test].numpy() > 0)


def nearest(images: Tensor, known: Tensor) -> np.ndarray:
    """(n,) root mean square distance of each of `images` (n, p) to the nearest of `known` (m, p)."""
    found = [torch.cdist(some, known).amin(1) for some in images.split(256)]
    values: np.ndarray = (torch.cat(found) / known.shape[1] ** 0.5).numpy()
    return values


def _enough(*counts: int) -> None:
    if min(counts) < LEAST:
        raise InputError(f"sets of {' and '.join(map(str, counts))} images cannot be compared: {LEAST} each are needed")

"""Painted stamps: near galaxies and strokes are anomalies, far neighbours and untouched stamps are not."""

import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.tasks.anomaly.injection import UNDECIDED, Injection
from tests.test_networks_structure import galaxies

torch.set_num_threads(1)


def painted(count: int = 64, seed: int = 0, **shares: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image = galaxies(count, seed=seed)
    settings = Injection(**{"pairs": 0.0, "strokes": 0.0, "neighbours": 0.0, **shares})  # type: ignore[arg-type]
    return image, *settings.apply(image, torch.ones_like(image), torch.Generator().manual_seed(1))


def test_nothing_painted_nothing_changed() -> None:
    image, found, target = painted()
    assert torch.equal(image, found)
    assert not target.any()


def test_pairs_are_close_and_no_brighter_than_their_host() -> None:
    image, found, target = painted(pairs=1.0)
    added = (found - image).clamp_min(0).sum(1)
    flux, host = added.sum((1, 2)), image.clamp_min(0).sum((1, 2, 3))
    assert set(target.tolist()) <= {1.0, UNDECIDED}
    assert (target == 1).float().mean() > 0.7
    assert (flux < 1.2 * host).all()
    axis = torch.arange(64.0) - 32
    place = torch.stack([(added.sum(1) @ axis) / flux, (added.sum(2) @ axis) / flux]).square().sum(0).sqrt()
    assert place.median() < 14
    assert place.max() < 26


def test_neighbours_are_far_and_ordinary() -> None:
    image, found, target = painted(neighbours=1.0)
    assert not target.any()
    added = (found - image).sum(1)
    assert added[:, 28:37, 28:37].abs().sum() < 0.1 * added.abs().sum()
    assert added.abs().sum() > 0


def test_strokes_are_anomalies() -> None:
    image, found, target = painted(strokes=1.0)
    assert (target == 1).all()
    assert ((found - image).abs().amax((1, 2, 3)) > 1).float().mean() > 0.95


def test_shares_hold_and_the_generator_decides_all() -> None:
    image, found, target = painted(400, pairs=0.3, strokes=0.2, neighbours=0.3)
    assert ((found - image).abs().sum((1, 2, 3)) == 0).float().mean() == pytest.approx(0.2, abs=0.07)
    assert (target == 1).float().mean() == pytest.approx(0.48, abs=0.09)
    assert torch.equal(found, painted(400, pairs=0.3, strokes=0.2, neighbours=0.3)[1])


def test_stretched_pictures_do_not_grow_brighter() -> None:
    image, found, _ = painted(pairs=1.0, adding="max")
    assert found.amax() <= image.amax()


@pytest.mark.parametrize(
    "changes", [{"pairs": 0.9, "strokes": 0.2}, {"pairs": -0.1}, {"separation": (3.0, 1.0)}, {"adding": "mean"}]
)
def test_settings_that_cannot_be_are_refused(changes: dict) -> None:
    with pytest.raises(InputError):
        Injection(**changes)

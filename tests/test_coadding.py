"""Several bands added up to the one band of a model's input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astroml_plugin.catalog.query import query
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import Cutouts
from astroml_plugin.tasks.classification.settings import ClassifySettings
from astroml_plugin.tasks.coadding import coadded
from tests.training_samples import write_stamps
from tests.universe import make_bundle, make_objects, make_survey
from workflows.infer import infer
from workflows.recipe import read_recipe
from workflows.train import train


def stamps(sigma: tuple[float, ...], level: float = 0.0, seed: int = 0, count: int = 64) -> Cutouts:
    """Round objects of S/N 20 per band under noise of each band's own size."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32] - 16
    light = np.exp(-(x**2 + y**2) / 8)
    noise = np.array(sigma)[None, :, None, None]
    image = noise * (light * 20 / np.sqrt((light**2).sum()) + rng.normal(size=(count, len(sigma), 32, 32))) + level
    spread = np.broadcast_to(noise**2, image.shape)
    return Cutouts(
        image=torch.tensor(image, dtype=torch.float32),
        variance=torch.tensor(spread.copy(), dtype=torch.float32),
        valid=torch.ones(image.shape, dtype=torch.bool),
        psf=torch.tensor(np.broadcast_to(light, image.shape).copy() * noise, dtype=torch.float32),
        jacobian=torch.eye(2, dtype=torch.float64).expand(count, 2, 2),
        bits=None,
        bands=("g", "r", "i")[: len(sigma)],
    )


@pytest.mark.parametrize("known", [True, False])
def test_noise_stays_one_and_light_adds_up(known: bool) -> None:
    given = stamps((1.0, 5.0, 0.2), level=30.0)
    made = coadded(given if known else replace(given, variance=None), "r", 4)
    assert made.bands == ("r",)
    assert made.image.shape == (64, 1, 32, 32)
    rim = made.image[:, 0, :6].flatten()
    assert abs(float(rim.std()) - 1) < 0.06
    assert abs(float(rim.mean())) < 0.1
    one = stamps((1.0,))
    peak = float(made.image[:, 0, 16, 16].mean() / one.image[:, 0, 16, 16].mean())
    assert abs(peak - np.sqrt(3)) < 0.1
    assert made.psf is not None
    torch.testing.assert_close(made.psf.sum((1, 2, 3)), torch.ones(64))
    if known:
        assert made.variance is not None
        torch.testing.assert_close(made.variance, torch.ones_like(made.variance))


def test_a_missing_band_is_left_out() -> None:
    given = stamps((1.0, 5.0, 0.2))
    image, valid = given.image.clone(), given.valid.clone()
    valid[:5, 1] = False
    image[5:9, 1] = 0.0
    valid[9:12, 1, 8:24, 12:20] = False
    image[~valid] = 0.0
    made = coadded(replace(given, image=image, valid=valid), "r", 4)
    two = coadded(given.select(("g", "i")), "r", 4)
    torch.testing.assert_close(made.image[:9], two.image[:9])
    torch.testing.assert_close(made.image[9:12], two.image[9:12])
    assert made.valid.all()
    assert not torch.allclose(made.image[12:], two.image[12:])
    nothing = coadded(replace(given, valid=torch.zeros_like(valid), image=torch.zeros_like(image)), "r", 4)
    assert not nothing.valid.any()
    assert nothing.image.isfinite().all()


def test_one_band_is_as_it_is() -> None:
    given = stamps((2.0,))
    assert coadded(given, "r", 4) is given


def test_what_is_read_of_a_source() -> None:
    recipe = read_recipe("objects")
    task = recipe.build_task().with_settings(bands=("r",))
    assert task.choose_bands(("u", "g", "r", "i", "z")) == ("g", "r", "i")
    assert task.choose_bands(("i", "z", "g")) == ("g", "i")
    assert task.choose_bands(("u", "g", "r"), "u") == ("u",)
    assert task.choose_bands(("F606W",)) == ("F606W",)
    with pytest.raises(InputError, match="--band"):
        task.choose_bands(("u", "z"))
    with pytest.raises(InputError, match="noise"):
        ClassifySettings(any_band=True, coadd=("g", "r"))


def test_tiles_of_any_bands(tmp_path: Path) -> None:
    """Bands that are there are added up, and the catalog is not that of one of them."""
    added = {"any_band": True, "coadd": ["g", "r", "i"], "psf": "required"}
    bundle = make_bundle(str(tmp_path / "kinds"), bands=("r",), **added)
    plain = make_bundle(str(tmp_path / "plain"), bands=("r",), any_band=True, psf="required")
    three = make_survey(str(tmp_path / "three.zarr"), bands=("i", "u", "g")).url
    one = make_survey(str(tmp_path / "one.zarr"), bands=("y",)).url
    objects = make_objects(tmp_path / "objects.parquet", 40)

    def rows(source: str, name: str, model: str = bundle, **options: object) -> np.ndarray:
        out = str(tmp_path / name)
        infer(source, bundle=model, out=out, objects=objects, **options)  # type: ignore[arg-type]
        found = query(out, "SELECT p_star, flags FROM catalog ORDER BY object_id").to_arrow()
        assert found.num_rows == 40
        assert not np.isnan(found["p_star"].to_numpy()).any()
        return found["p_star"].to_numpy()

    whole, of_i = rows(three, "whole"), rows(three, "of_i", band="i")
    assert np.abs(whole - of_i).max() > 1e-4
    np.testing.assert_allclose(of_i, rows(three, "plain_i", plain, band="i"), atol=1e-6)
    np.testing.assert_allclose(rows(one, "y"), rows(one, "plain_y", plain), atol=1e-6)


def test_stamps_of_several_bands_train_it(tmp_path: Path) -> None:
    """The bundle then takes other bands, too."""
    given = stamps((1.0, 3.0), count=240)
    kind = np.arange(240) % 2
    image = given.image.numpy().copy()
    image[kind == 1, :, 12:20, 12:20] *= 0.2
    data = write_stamps(str(tmp_path / "two.zarr"), image, {"kind": kind}, bands=("g", "i"))
    recipe = read_recipe("objects")
    settings = {**recipe.settings, "classes": [], "stamp_size": 32, "psf": "none"}
    recipe = replace(
        recipe,
        settings={key: value for key, value in settings.items() if key != "classes"},
        network_arguments={"widths": [8, 16]},
        training=replace(recipe.training, epochs=6, batch_size=16),
        split=replace(recipe.split, fractions=(0.6, 0.2, 0.2)),
    )
    result = train(recipe, data=data, out=tmp_path / "kinds")
    assert result.metrics["test"]["accuracy"] > 0.9
    other = write_stamps(str(tmp_path / "r.zarr"), image[:64, :1], {"kind": kind[:64]}, bands=("R",))
    infer(other, bundle=result.bundle, out=str(tmp_path / "catalog"))
    found = query(str(tmp_path / "catalog"), "SELECT label FROM catalog ORDER BY object_id").to_arrow()
    assert np.mean(np.array(found["label"].to_pylist()) == kind[:64].astype(str)) > 0.8

"""Galaxies that were never seen: their frame, the generator, and the stamps that it draws."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation.baselines.shapes import adaptive_moments
from astroml_plugin.evaluation.two_sample_tests import forest_auc, nearest, network_auc
from astroml_plugin.networks.flow_vae import Flow
from astroml_plugin.networks.framing import Shape, framed, shape_of, unframed
from astroml_plugin.simulation import LightSet, preset
from astroml_plugin.sources.stamps import Stamps
from astroml_plugin.tasks.generation.task import GenerateSettings, GenerateTask
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.recipe import Recipe
from tests.training_samples import write_stamps
from workflows.cli import main
from workflows.evaluate import evaluate
from workflows.generate import generate
from workflows.recipe import read_recipe
from workflows.train import train

torch.set_num_threads(1)


def light(count: int, seed: int = 5) -> np.ndarray:
    """Noiseless Sersic galaxies (n, 1, 48, 48)."""
    one = preset("light")
    assert isinstance(one, LightSet)
    return replace(one, count=count, block=count, seed=seed).make(0).image


def tiny(epochs: int = 12) -> Recipe:
    """The shipped recipe with a network for a few seconds."""
    recipe = read_recipe("generate")
    arguments = {"latent": 4, "side": 32, "hidden": [64], "flow": [48, 48], "shapes": [48, 48]}
    training = replace(recipe.training, epochs=epochs, batch_size=48, ema=0.95, learning_rate=0.004)
    split = replace(recipe.split, fractions=(0.8, 0.1, 0.1))
    typicality = replace(recipe.typicality, fit=False)
    return replace(recipe, network_arguments=arguments, training=training, split=split, typicality=typicality)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, np.ndarray]:
    """Stamps, the bundle trained on them, and their pixels."""
    folder = tmp_path_factory.mktemp("generate")
    image = light(320)
    source = write_stamps(str(folder / "stamps.zarr"), image, {})
    return source, train(tiny(), data=source, out=str(folder / "bundle")).bundle, image


# ---- the frame ---------------------------------------------------------------------------------------------------


def test_shapes_are_the_adaptive_moments() -> None:
    image = light(40)
    found = shape_of(torch.from_numpy(image[:, 0]))
    matrix, _ = adaptive_moments(image[:, 0])
    size = (matrix[:, 0] * matrix[:, 2] - matrix[:, 1] ** 2) ** 0.25
    e = (
        np.stack([matrix[:, 0] - matrix[:, 2], 2 * matrix[:, 1]], 1)
        / (matrix[:, 0] + matrix[:, 2] + 2 * size**2)[:, None]
    )
    np.testing.assert_allclose(found.size.numpy(), size, rtol=1e-4)
    np.testing.assert_allclose(found.e.numpy(), e, atol=1e-4)
    np.testing.assert_allclose(found.flux.numpy(), image.sum((1, 2, 3)), rtol=1e-5)


def test_an_empty_stamp_has_no_size() -> None:
    image = torch.stack([torch.zeros(32, 32), torch.ones(32, 32), -torch.from_numpy(light(1)[0, 0, 8:40, 8:40])])
    assert (shape_of(image).size == 0).all()


def test_a_framed_galaxy_comes_back() -> None:
    image = torch.from_numpy(light(40))
    shape = shape_of(image[:, 0])
    seen, inside = framed(image, shape, 48)
    back = unframed(seen, shape, 48)
    error = (back - image).square().sum((1, 2, 3)).sqrt() / image.square().sum((1, 2, 3)).sqrt()
    assert float(error.max()) < 0.03
    assert set(inside.unique().tolist()) == {0.0, 1.0}


def test_frames_of_a_turned_and_dimmed_galaxy_are_the_same() -> None:
    image = torch.from_numpy(light(12))
    turned = 0.1 * image.transpose(2, 3)
    first, second = (framed(some, shape_of(some[:, 0]), 32)[0][..., 8:-8, 8:-8] for some in (image, turned))
    apart = [(first - second.flip(axis)).abs().amax((1, 2, 3)) for axis in (2, 3)]  # mirrored about one of the axes
    assert float(torch.minimum(*apart).max()) < 0.02


# ---- the generator -----------------------------------------------------------------------------------------------


def test_a_flow_learns_a_distribution() -> None:
    torch.manual_seed(0)
    flow = Flow(1, 1, (48, 48))
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    for _ in range(400):
        others = torch.randint(0, 2, (256, 1)).float()
        wanted = 3 * others + torch.rand(256, 1)
        loss = flow.error(wanted, others, torch.randn(256, 1), torch.rand(256, 1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        for other in (0.0, 1.0):
            found = flow.drawn(torch.randn(2000, 1), torch.full((2000, 1), other))
            assert float(found.mean()) == pytest.approx(3 * other + 0.5, abs=0.08)
            assert float(found.std()) == pytest.approx(12**-0.5, abs=0.06)


def test_drawn_galaxies_are_as_asked(made: tuple[str, str, np.ndarray]) -> None:
    model = ModelBundle.load(made[1])
    rng, count = np.random.default_rng(1), 128
    shape = shape_of(torch.from_numpy(made[2][:count, 0]))
    angle = rng.uniform(0, np.pi, count)
    asked = {
        "flux": shape.flux.numpy(),
        "size": shape.size.numpy(),
        "e1": 0.2 * np.cos(2 * angle),
        "e2": 0.2 * np.sin(2 * angle),
    }
    drawn = model.task().draw(model.network(), count, 3, asked)
    matrix, _ = adaptive_moments(drawn.image[:, 0])
    size = (matrix[:, 0] * matrix[:, 2] - matrix[:, 1] ** 2) ** 0.25
    e1 = (matrix[:, 0] - matrix[:, 2]) / (matrix[:, 0] + matrix[:, 2] + 2 * size**2)
    good = np.isfinite(size)
    assert good.mean() > 0.8  # a generator of a few epochs
    np.testing.assert_allclose(drawn.image.sum((1, 2, 3)), asked["flux"], rtol=1e-3)
    assert np.median(np.abs(size[good] / asked["size"][good] - 1)) < 0.08
    assert np.median(np.abs(e1[good] - asked["e1"][good])) < 0.05
    other = model.task().draw(model.network(), count, 3, asked)
    np.testing.assert_array_equal(drawn.image, other.image)
    assert not np.array_equal(drawn.image, model.task().draw(model.network(), count, 4, asked).image)


def test_a_galaxy_is_painted_at_the_asked_shape() -> None:
    image = torch.from_numpy(light(24))
    shape = shape_of(image[:, 0])
    looks, _ = framed(image, shape, 48)
    e = torch.stack([torch.full((24,), 0.15), torch.full((24,), -0.2)], dim=1)
    wanted = Shape(2 * shape.flux, 1.1 * shape.size, e, torch.full((24, 2), 0.3))
    found = shape_of(GenerateTask(GenerateSettings(stamp_size=48))._painted(looks, wanted)[:, 0])
    torch.testing.assert_close(found.flux, wanted.flux, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.size, wanted.size, rtol=3e-3, atol=0)
    torch.testing.assert_close(found.e, wanted.e, rtol=0, atol=3e-3)
    torch.testing.assert_close(found.centre, wanted.centre, rtol=0, atol=5e-3)


def test_what_is_not_asked_is_like_the_training_stamps(made: tuple[str, str, np.ndarray]) -> None:
    model = ModelBundle.load(made[1])
    drawn = model.task().draw(model.network(), 400, 9)
    truth = shape_of(torch.from_numpy(made[2][:, 0]))
    lg = np.log10(drawn.asked["flux"]), np.log10(truth.flux.numpy())
    assert abs(np.median(lg[0]) - np.median(lg[1])) < 0.15
    assert np.std(lg[0]) == pytest.approx(np.std(lg[1]), rel=0.3)
    assert np.median(drawn.asked["size"]) == pytest.approx(float(truth.size.median()), rel=0.1)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"flux": [1e9] * 4}, "outside"),
        ({"size": [3.0] * 3}, "3 values for 4 galaxies"),
        ({"e1": [0.1] * 4}, "together"),
        ({"e1": [0.9] * 4, "e2": [0.9] * 4}, "0.9 at most"),
        ({"size": [np.nan] * 4}, "NaN"),
        ({"radius": [3.0] * 4}, "radius"),
    ],
)
def test_impossible_conditions_are_refused(made: tuple[str, str, np.ndarray], asked: dict, told: str) -> None:
    model = ModelBundle.load(made[1])
    with pytest.raises(InputError, match=told):
        model.task().draw(model.network(), 4, 1, asked)


def test_a_bundle_measures_and_is_evaluated(made: tuple[str, str, np.ndarray], tmp_path: Path) -> None:
    model = ModelBundle.load(made[1])
    found = columns(model.task(), model.network(), from_stamps(made[2][:20], None, None, bands=("r",)))
    shape = shape_of(torch.from_numpy(made[2][:20, 0]))
    np.testing.assert_allclose(found["light_size"], shape.size.numpy(), rtol=1e-4)
    assert (found["misfit"] > 0).all()
    result = evaluate(made[0], bundle=made[1], out=str(tmp_path / "report"))
    assert result.metrics["rms"] < 0.2
    assert result.objects == 320


def test_stamps_without_galaxies_and_few_stamps_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(160, 1, 48, 48)).astype(np.float32)
    with pytest.raises(InputError, match="without noise"):
        train(tiny(), data=write_stamps(str(tmp_path / "noise.zarr"), noise, {}), out=str(tmp_path / "a"))
    with pytest.raises(InputError, match="needs 100"):
        train(tiny(), data=write_stamps(str(tmp_path / "few.zarr"), light(60), {}), out=str(tmp_path / "b"))


# ---- drawing stamps ----------------------------------------------------------------------------------------------


def test_draw_writes_stamps_that_say_what_they_are(made: tuple[str, str, np.ndarray], tmp_path: Path) -> None:
    out = str(tmp_path / "drawn")
    result = generate(made[1], out=out, count=1100, seed=4, noise=2.5)
    stamps = Stamps.open(result.source)
    assert (len(stamps), stamps.bands, stamps.pixel_scale, stamps.has_variance) == (1100, ("r",), 0.2, True)
    labels = stamps.labels()
    assert labels["generator"][0].as_py().startswith("bundle ")
    assert set(labels.column_names) >= {"flux", "size", "e1", "e2", "offset_x", "offset_y"}
    before = stamps.read_rows([0, 1099])[0]
    generate(made[1], out=out, count=1100, seed=4, noise=2.5)  # nothing to do
    np.testing.assert_array_equal(Stamps.open(result.source).read_rows([0, 1099])[0], before)
    with pytest.raises(InputError, match="another drawing"):
        generate(made[1], out=out, count=1100, seed=5, noise=2.5)


def test_draw_from_a_table_on_the_command_line(
    made: tuple[str, str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = str(tmp_path / "asked.parquet"), str(tmp_path / "drawn")
    pq.write_table(pa.table({"size": np.full(5, 3.0), "mag": np.zeros(5)}), table)
    assert main(["generate", made[1], "--out", out, "--conditions", table]) == 0
    assert "5 galaxies that nobody saw" in capsys.readouterr().out
    found = Stamps.open(f"{out}/stamps.zarr").labels()["size"].to_numpy()
    np.testing.assert_allclose(found, 3.0)
    assert main(["generate", "anomaly", "--out", str(tmp_path / "no")]) == 2
    assert "task anomaly" in capsys.readouterr().err
    pq.write_table(pa.table({"mag": np.zeros(5)}), table)
    assert main(["generate", made[1], "--out", str(tmp_path / "no"), "--conditions", table]) == 2
    assert "none of the columns flux" in capsys.readouterr().err


# ---- realism -----------------------------------------------------------------------------------------------------


def test_two_samples_are_told_apart_only_where_they_differ() -> None:
    random = np.random.default_rng(3)
    image = light(160, seed=8)
    noisy = image + 2.5 * random.standard_normal(image.shape, dtype=np.float32)
    other = noisy[80:].copy()
    other[:, :, 18:30, 18:30] *= 0.5
    given = [
        from_stamps(some, np.full_like(some, 6.25), None, bands=("r",)) for some in (noisy[:80], noisy[80:], other)
    ]
    assert 0.25 < forest_auc(given[0], given[1]) < 0.75
    assert forest_auc(given[0], given[2]) > 0.8
    pixels = [torch.from_numpy(some / 2.5) for some in (noisy[:80], noisy[80:], other)]
    assert 0.1 < network_auc(pixels[0], pixels[1], epochs=1) < 0.9
    with pytest.raises(InputError, match="40 each"):
        network_auc(pixels[0][:5], pixels[1])


def test_a_copy_is_near() -> None:
    known = torch.randn(50, 30)
    found = nearest(torch.cat([known[:3], torch.randn(3, 30)]), known)
    assert (found[:3] < 1e-3).all()
    assert (found[3:] > 0.3).all()

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from training_samples import NO_TYPICALITY, class_stamps, ellipticity_stamps, gaussians, write_stamps

from astroml_plugin.core.errors import InputError
from astroml_plugin.training.batches import StampBatches
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.forward import network_outputs
from astroml_plugin.training.labelled import LabelledStamps
from astroml_plugin.training.run import TrainExecution
from tests import pretended_cuda
from workflows import train as training
from workflows.calibrate_response import ResponseOptions, calibrate_response
from workflows.train import train

torch.set_num_threads(1)
SHEAR, LEAK = 0.04, 0.3
RECIPE = """
task = "ellipticity"
network = "NETWORK"
[settings]
stamp_size = 24
psf = "none"
any_band = true
members = MEMBERS
[settings.normalisation]
stretch = "linear"
[network_arguments]
ARGUMENTS
[training]
epochs = 10
batch_size = 32
learning_rate = 0.005
patience = 0
[split]
fractions = [0.8, 0.1, 0.1]
"""
NETWORKS = {
    "multipole_mlp": RECIPE.replace("ARGUMENTS", "hidden = 32\nscales = 5\nlargest = 6.0\nheads = 2").replace(
        "MEMBERS", "2"
    ),
    "strided_cnn": RECIPE.replace("ARGUMENTS", 'widths = [6, 12]\nhidden = 32\npooling = "grid"').replace(
        "MEMBERS", "1"
    ),
}


POINT = np.zeros((1, 1, 9, 9), np.float32)
POINT[..., 4, 4] = 1.0
"""A PSF that blurs nothing."""


def sheared_stamps(url: str, sets: int, seed: int, psf: bool = False) -> str:
    """Sets of +g/0, -g/0, +g/90, -g/90 of noisy Gaussians, the components of the shear in turn."""
    rng = np.random.default_rng(seed)
    e = rng.normal(0, 0.15, sets) + 1j * rng.normal(0, 0.15, sets)
    first = np.arange(sets) % 2 == 0
    noise = rng.normal(0, 0.1, (sets, 1, 24, 24)).astype(np.float32)
    rows: dict[str, list] = {"image": [], "branch": [], "g1": [], "g2": []}
    for turn in (1, -1):
        for mark, sign in (("+", 1.0), ("-", -1.0)):
            g = np.where(first, sign * SHEAR, 1j * sign * SHEAR)
            moved = (turn * e + g) / (1 + np.conj(g) * turn * e)
            clean = gaussians(np.stack([moved.real, moved.imag], 1), rng, 0.0)
            rows["image"].append(clean + (noise if turn == 1 else np.rot90(noise, axes=(2, 3))))
            rows["branch"].append([f"{mark}g{1 if one else 2}/{0 if turn == 1 else 90}" for one in first])
            rows["g1"].append(g.real)
            rows["g2"].append(g.imag)
    found = {name: np.stack([np.asarray(item) for item in values], 1) for name, values in rows.items()}
    labels = {name: found[name].ravel() for name in ("g1", "g2")}
    labels |= {"branch": found["branch"].ravel().tolist(), "set_id": np.repeat(np.arange(sets), 4)}
    image = np.ascontiguousarray(found["image"].reshape(-1, 1, 24, 24))
    return write_stamps(url, image, labels, psf=np.repeat(POINT, len(image), 0) if psf else None)


def galaxies(url: str, count: int, seed: int) -> str:
    """Noisy Gaussians under `POINT`, their ellipticities those of `sheared_stamps`, no truth."""
    rng = np.random.default_rng(seed)
    image = gaussians(np.clip(rng.normal(0, 0.15, (count, 2)), -0.6, 0.6), rng, 0.1)
    return write_stamps(url, image, {}, psf=np.repeat(POINT, count, 0))


def psf_pairs(url: str, pairs: int, seed: int) -> str:
    """The same Gaussians twice; what the label says of the PSF is added to them, as a leaking model would see it."""
    rng = np.random.default_rng(seed)
    e, angle = rng.normal(0, 0.15, (pairs, 2)), rng.uniform(0, 2 * np.pi, pairs)
    psf = 0.05 * np.stack([np.cos(angle), np.sin(angle)], 1)
    noise = rng.normal(0, 0.1, (pairs, 1, 24, 24))
    images = [gaussians(np.clip(e + sign * LEAK * psf, -0.6, 0.6), rng, 0.0) + noise for sign in (1, -1)]
    labels = {"branch": ["+psf"] * pairs + ["-psf"] * pairs, "set_id": np.tile(np.arange(pairs), 2)}
    labels |= {f"psf_e{j + 1}": np.concatenate([psf[:, j], -psf[:, j]]) for j in (0, 1)}
    image = np.concatenate(images).astype(np.float32)
    return write_stamps(url, image, labels, psf=np.repeat(POINT, len(image), 0))


@pytest.mark.parametrize("network", ["multipole_mlp", pytest.param("strided_cnn", marks=pytest.mark.slow)])
def test_mean_ellipticity_over_mean_response_is_the_shear(network: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(NETWORKS[network].replace("NETWORK", network) + NO_TYPICALITY)
    bundle = tmp_path / "shapes"
    train(recipe, data=ellipticity_stamps(str(tmp_path / "s.zarr"), 500), out=bundle)
    assert not ModelBundle.load(bundle).card.settings["response"]
    result = calibrate_response(
        bundle, data=sheared_stamps(str(tmp_path / "c.zarr"), 400, 5), out=tmp_path / "calibrated"
    )
    assert result.report["pairs"] == [400, 400]
    assert 0 < result.precision < 0.02
    model = ModelBundle.load(tmp_path / "calibrated")
    task, built = model.task(), model.network(fused=True)
    data = LabelledStamps([sheared_stamps(str(tmp_path / "t.zarr"), 400, 6)])
    stream = StampBatches(data, np.arange(1600), torch.zeros(1600, 2), bands=("r",))
    outputs, _, _ = network_outputs(task, built, stream)
    e, response = task.intervals(outputs).mean.numpy(), task.response(outputs).numpy()
    g = np.stack([data.labels["g1"].to_numpy(), data.labels["g2"].to_numpy()], 1)
    for component, place in ((0, 0), (1, 3)):
        chosen = g[:, component] != 0
        slope = np.mean(e[chosen, component] * np.sign(g[chosen, component])) / SHEAR
        assert slope / response[chosen, place].mean() == pytest.approx(1.0, abs=0.04)
        assert abs(response[chosen, 1:3].mean()) < 0.1


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes the PSF, trained on Gaussians."""
    folder = tmp_path_factory.mktemp("shapes")
    recipe = folder / "r.toml"
    recipe.write_text(NETWORKS["multipole_mlp"].replace("NETWORK", "multipole_mlp").replace('"none"', '"required"'))
    e = np.random.default_rng(0).uniform(-0.4, 0.4, (500, 2))
    image = gaussians(e, np.random.default_rng(1), 0.05)
    labels = {"e1": e[:, 0], "e2": e[:, 1]}
    source = write_stamps(str(folder / "s.zarr"), image, labels, psf=np.repeat(POINT, 500, 0))
    train(recipe, data=source, out=folder / "b")
    return folder / "b"


def measured(bundle: Path, source: str) -> tuple[np.ndarray, np.ndarray, LabelledStamps]:
    """Mean ellipticities (n, 2), responses (n, 4) and the stamps."""
    model, data = ModelBundle.load(bundle), LabelledStamps([source])
    task, count = model.task(), data.labels.num_rows
    stream = StampBatches(data, np.arange(count), torch.zeros(count, 2), bands=("r",))
    outputs, _, _ = network_outputs(task, model.network(fused=True), stream)
    return task.intervals(outputs).mean.numpy(), task.response(outputs).numpy(), data


def test_images_without_truth_give_the_response_that_pairs_give(shapes: Path, tmp_path: Path) -> None:
    own = calibrate_response(shapes, data=galaxies(str(tmp_path / "g.zarr"), 1500, 3), out=tmp_path / "own", seed=1)
    assert own.report["from"] == "images"
    assert own.report["images"] == 1500
    assert 0 < own.precision < 0.1
    again = calibrate_response(shapes, data=str(tmp_path / "g.zarr"), out=tmp_path / "again", seed=1)
    assert again.report == own.report
    sets = sheared_stamps(str(tmp_path / "t.zarr"), 400, 6, psf=True)
    e, response, data = measured(tmp_path / "own", sets)
    g = np.stack([data.labels["g1"].to_numpy(), data.labels["g2"].to_numpy()], 1)
    for component, place in ((0, 0), (1, 3)):
        chosen = g[:, component] != 0
        slope = np.mean(e[chosen, component] * np.sign(g[chosen, component])) / SHEAR
        assert slope / response[chosen, place].mean() == pytest.approx(1.0, abs=0.06)
    paired = calibrate_response(
        shapes, data=[sets, sheared_stamps(str(tmp_path / "u.zarr"), 100, 7, psf=True)], out=tmp_path / "p"
    )
    assert paired.report["pairs"] == [500, 500]
    _, theirs, _ = measured(tmp_path / "p", sets)
    assert response[:, [0, 3]].mean() == pytest.approx(theirs[:, [0, 3]].mean(), rel=0.05)


def test_leakage_is_taken_out_and_little_else_changes(shapes: Path, tmp_path: Path) -> None:
    pairs, sets = (
        psf_pairs(str(tmp_path / "p.zarr"), 600, 4),
        sheared_stamps(str(tmp_path / "s.zarr"), 200, 5, psf=True),
    )
    found = calibrate_response(shapes, data=sets, psf_pairs=pairs, out=tmp_path / "mended").report["leakage"]
    assert found["before"] == pytest.approx([LEAK, LEAK], rel=0.4)
    assert ModelBundle.load(tmp_path / "mended").typicality() is not None
    fresh = psf_pairs(str(tmp_path / "q.zarr"), 600, 8)
    before, _, data = measured(shapes, fresh)
    after, _, _ = measured(tmp_path / "mended", fresh)
    psf = np.stack([data.labels[name].to_numpy() for name in ("psf_e1", "psf_e2")], 1)
    slopes = [(e * psf).sum(0) / (psf**2).sum(0) for e in (before, after)]
    assert (np.abs(slopes[1]) < 0.1 * np.abs(slopes[0])).all()
    assert np.isfinite(after).all()


@pytest.mark.slow
def test_on_a_gpu_all_three_fits_give_what_a_cpu_gives(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = psf_pairs(str(tmp_path / "p.zarr"), 80, 4)
    sets = sheared_stamps(str(tmp_path / "s.zarr"), 130, 5, psf=True)
    images = galaxies(str(tmp_path / "g.zarr"), 300, 3)

    def fitted(device: str) -> list[dict[str, Any]]:
        given = {"device": device, "out": tmp_path / device}
        return [
            calibrate_response(shapes, data=sets, psf_pairs=pairs, **given).report,
            calibrate_response(shapes, data=images, **given).report,
        ]

    expected = fitted("cpu")
    with pretended_cuda.pretending(monkeypatch) as gpu:
        assert not gpu.launches
        found = fitted("cuda")
        assert gpu.launches["MainThread"] > 100
    assert found == expected  # the numbers are the CPU's own
    assert not gpu.reports
    one, two = (ModelBundle.load(tmp_path / name).network().state_dict() for name in ("cpu", "cuda"))
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights)


@pytest.mark.parametrize(("rank", "fits"), [("0", True), ("1", False)])
def test_one_process_alone_fits_the_response_after_a_common_training(
    rank: str, fits: bool, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    model = ModelBundle.load(shapes)
    monkeypatch.setattr(training, "train_bundle", lambda *_: (model, False))
    result = SimpleNamespace(bundle=model)
    monkeypatch.setattr(training, "calibrate_response", lambda *_, **given: asked.append(given) or result)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    stamps = galaxies(str(tmp_path / "s.zarr"), 20, 3)
    train("ellipticity", data=stamps, out=tmp_path / "b", response="r", execution=TrainExecution(device="cuda"))
    assert asked == ([{"data": "r", "device": "cuda"}] if fits else [])


def test_a_survey_of_few_galaxies_or_none_with_all_pixels_is_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"20 stamps have all pixels and a PSF \(0 have not\)"):
        calibrate_response(shapes, data=galaxies(str(tmp_path / "g.zarr"), 20, 3), out=tmp_path / "b")


def test_what_cannot_be_calibrated_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        NETWORKS["strided_cnn"].replace("NETWORK", "strided_cnn").replace("epochs = 10", "epochs = 1") + NO_TYPICALITY
    )
    source = ellipticity_stamps(str(tmp_path / "s.zarr"), 200)
    train(recipe, data=source, out=tmp_path / "b")
    with pytest.raises(InputError, match="was trained on: simulate a calibration set"):
        calibrate_response(tmp_path / "b", data=source)
    others = ellipticity_stamps(str(tmp_path / "o.zarr"), 20, 3)
    with pytest.raises(InputError, match="lacks branch, g1, g2, set_id: make it with simulate --pairs shear"):
        calibrate_response(tmp_path / "b", data=others, method="pairs")
    with pytest.raises(InputError, match="needs a model that takes the PSF: fit it on simulated pairs"):
        calibrate_response(tmp_path / "b", data=others)
    with pytest.raises(InputError, match="from pairs or images, not 'truth'"):
        calibrate_response(tmp_path / "b", data=others, method="truth")
    with pytest.raises(InputError, match=r"0 stamps under \+psf and 0 under -psf, and 64 pairs are needed"):
        calibrate_response(tmp_path / "b", data=others, psf_pairs=others)
    with pytest.raises(InputError, match=r"has 20 stamps under \+g1 and 20 under -g1, and 64 pairs"):
        calibrate_response(tmp_path / "b", data=sheared_stamps(str(tmp_path / "few.zarr"), 20, 3))
    kinds = tmp_path / "k.toml"
    kinds.write_text('task = "classify"\n[settings]\nlabel = "kind"\n[training]\nepochs = 1\n' + NO_TYPICALITY)
    train(kinds, data=class_stamps(str(tmp_path / "k.zarr")), out=tmp_path / "kinds")
    with pytest.raises(InputError, match="measures no ellipticity"):
        calibrate_response(tmp_path / "kinds", data=source)


def test_a_response_is_never_written_over_something_else(shapes: Path, tmp_path: Path) -> None:
    source = galaxies(str(tmp_path / "g.zarr"), 20, 3)
    with pytest.raises(InputError, match="holds a store or catalog"):
        calibrate_response(shapes, data=source, out=source)
    other = ModelBundle.load(shapes)
    changed = replace(other.card, training={**other.card.training, "identity": "another"})
    ModelBundle.save(tmp_path / "other", other.network(), changed)
    with pytest.raises(InputError, match="holds another bundle"):
        calibrate_response(shapes, data=source, out=tmp_path / "other")
    refitted = replace(other.card, training={**other.card.training, "response": {"from": "pairs"}})
    ModelBundle.save(tmp_path / "refitted", other.network(), refitted)
    with pytest.raises(InputError, match="a response needs thousands"):
        calibrate_response(shapes, data=source, out=tmp_path / "refitted")


def test_no_draws_of_noise_are_refused(shapes: Path) -> None:
    with pytest.raises(InputError, match="give 1 or more"):
        calibrate_response(shapes, data="nothing", draws=0)


def test_options_of_the_fit_go_in_an_object_or_by_name(shapes: Path) -> None:
    with pytest.raises(InputError, match="unknown key 'psf_pair' in the options of calibrate-response: did you mean"):
        calibrate_response(shapes, data="nothing", psf_pair="pairs.zarr")
    with pytest.raises(InputError, match="fitted from pairs or images, not 'truth'"):
        calibrate_response(shapes, data="nothing", options=ResponseOptions(draws=2), method="truth")

from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import class_stamps, ellipticity_stamps, gaussians, write_stamps

from astroml_plugin.bundle import ModelBundle
from astroml_plugin.errors import InputError
from astroml_plugin.stream import BlockStream, LabelledStamps
from astroml_plugin.training import outputs_of
from workflows.respond import respond
from workflows.train import train

torch.set_num_threads(1)
SHEAR = 0.04
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


def sheared_stamps(url: str, sets: int, seed: int) -> str:
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
    return write_stamps(url, np.ascontiguousarray(found["image"].reshape(-1, 1, 24, 24)), labels)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_mean_ellipticity_over_mean_response_is_the_shear(network: str, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(NETWORKS[network].replace("NETWORK", network))
    bundle = tmp_path / "shapes"
    train(recipe, data=ellipticity_stamps(str(tmp_path / "s.zarr"), 500), out=bundle)
    assert not ModelBundle.load(bundle).card.settings["response"]
    result = respond(bundle, data=sheared_stamps(str(tmp_path / "c.zarr"), 400, 5), out=tmp_path / "calibrated")
    assert result.report["pairs"] == [400, 400]
    model = ModelBundle.load(tmp_path / "calibrated")
    task, built = model.task(), model.network(fused=True)
    data = LabelledStamps([sheared_stamps(str(tmp_path / "t.zarr"), 400, 6)])
    stream = BlockStream(data, np.arange(1600), torch.zeros(1600, 2), bands=("r",))
    outputs, _, _ = outputs_of(task, built, stream)
    e, response = task.intervals(outputs).mean.numpy(), task.response(outputs).numpy()
    g = np.stack([data.labels["g1"].to_numpy(), data.labels["g2"].to_numpy()], 1)
    for component, place in ((0, 0), (1, 3)):
        chosen = g[:, component] != 0
        slope = np.mean(e[chosen, component] * np.sign(g[chosen, component])) / SHEAR
        assert slope / response[chosen, place].mean() == pytest.approx(1.0, abs=0.04)
        assert abs(response[chosen, 1:3].mean()) < 0.1


def test_what_cannot_be_calibrated_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(NETWORKS["strided_cnn"].replace("NETWORK", "strided_cnn").replace("epochs = 10", "epochs = 1"))
    source = ellipticity_stamps(str(tmp_path / "s.zarr"), 200)
    train(recipe, data=source, out=tmp_path / "b")
    with pytest.raises(InputError, match="was trained on: simulate a calibration set"):
        respond(tmp_path / "b", data=source)
    with pytest.raises(InputError, match="lacks branch, g1, g2, set_id: make it with simulate --pairs shear"):
        respond(tmp_path / "b", data=ellipticity_stamps(str(tmp_path / "o.zarr"), 20, 3))
    with pytest.raises(InputError, match=r"has 20 stamps under \+g1 and 20 under -g1, and 64 pairs"):
        respond(tmp_path / "b", data=sheared_stamps(str(tmp_path / "few.zarr"), 20, 3))
    kinds = tmp_path / "k.toml"
    kinds.write_text('task = "classify"\n[settings]\nlabel = "kind"\n[training]\nepochs = 1\n')
    train(kinds, data=class_stamps(str(tmp_path / "k.zarr")), out=tmp_path / "kinds")
    with pytest.raises(InputError, match="measures no ellipticity"):
        respond(tmp_path / "kinds", data=source)

import contextlib
import json
import pickle
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.networks.timm import TimmNetwork
from astroml_plugin.tasks.ellipticity.task import EllipticityTask
from astroml_plugin.training import places
from astroml_plugin.training.bundle import Card, ModelBundle
from astroml_plugin.training.card import main as sign
from astroml_plugin.training.info import describe_bundle
from workflows.calibrate_response import calibrate_response
from workflows.fit_reference import fit_reference
from workflows.fit_typicality import fit_typicality
from workflows.recalibrate import recalibrate

torch.set_num_threads(1)
SMALL = {"widths": [4, 8], "hidden": 16, "pooling": "grid"}


def make(folder: Path | str, **changes) -> ModelBundle:
    task = EllipticityTask.from_settings({"bands": ["r"], "pixel_scale": 0.2})
    torch.manual_seed(0)
    network = task.build_network("strided_cnn", SMALL).to(memory_format=torch.channels_last)
    card = Card("small", "ellipticity", task.to_settings(), "strided_cnn", SMALL, licence="CC0-1.0")
    return ModelBundle.save(folder, network, replace(card, **changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "small")
    return tmp_path / "small"


@pytest.mark.parametrize("fused", [False, True])
def test_what_is_saved_is_loaded(folder: Path, fused: bool) -> None:
    saved, loaded = make(folder), ModelBundle.load(folder)
    assert loaded.sha256 == saved.sha256
    assert (loaded.name, loaded.bands, loaded.stamp_size, loaded.pixel_scale) == ("small", ("r",), 48, 0.2)
    assert isinstance(loaded.task(), EllipticityTask)
    image, psf = torch.randn(3, 1, 48, 48), torch.rand(3, 1, 25, 25)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(fused=fused)(image, psf), saved.network()(image, psf))
    assert not any(value.requires_grad for value in loaded.network().parameters())


def test_any_fsspec_url() -> None:
    make("memory://bundles/small")
    assert ModelBundle.load("memory://bundles/small").name == "small"


def test_bundle_travels_between_processes(folder: Path) -> None:
    assert pickle.loads(pickle.dumps(ModelBundle.load(folder))).sha256 == ModelBundle.load(folder).sha256


def test_identity_is_that_of_card_and_weights(folder: Path) -> None:
    first = ModelBundle.load(folder).sha256
    assert make(folder, description="other").sha256 != first
    assert make(folder).sha256 == first


def test_altered_weights_are_refused(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match="were altered"):
        ModelBundle.load(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"has no weights.safetensors"):
        ModelBundle.load(folder)


@pytest.mark.parametrize("name", ["model.pkl", "weights.pt", "old/model.PTH", "pytorch_model.bin"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match="pickled files can run code"):
        ModelBundle.load(folder)


def test_a_pickle_under_the_name_of_the_weights_is_refused(folder: Path) -> None:
    import hashlib

    data = pickle.dumps({"weights": 1})
    (folder / "weights.safetensors").write_bytes(data)
    edit(folder, weights_sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(InputError, match="no safetensors"):
        ModelBundle.load(folder).network()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "has format 99 and this version reads up to 1: upgrade"),
        ({"extra": 1}, "missing or unknown fields: extra"),
        ({"task": "elipticity"}, "no task is registered as 'elipticity': did you mean ellipticity"),
        ({"network": "os.system"}, "no network is registered as"),
        ({"settings": {"stampsize": 3}}, "did you mean 'stamp_size'"),
        ({"network_arguments": {**SMALL, "hidden": 8}}, "do not fit network StridedCNN"),
        ({"network_arguments": {"colour": 8}}, "cannot be built"),
    ],
)
def test_cards_that_do_not_fit_are_refused(folder: Path, change: dict, message: str) -> None:
    edit(folder, **change)
    with pytest.raises(InputError, match=message):
        ModelBundle.load(folder).network()


def edit(folder: Path, **change: object) -> None:
    """Change a card on purpose, and sign it again where that can be done."""
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **change}))
    with contextlib.suppress(InputError):
        sign([str(folder)])


@pytest.mark.parametrize("change", [{"settings": {"bands": ["g"]}}, {"card_sha256": ""}, {"network_arguments": {}}])
def test_an_altered_card_is_refused(folder: Path, change: dict) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(InputError, match=r"card.json of bundle .* was altered .*: get the bundle again"):
        ModelBundle.load(folder)


def test_a_bundle_can_be_pinned_to_its_digest(folder: Path) -> None:
    sha256 = ModelBundle.load(folder).sha256
    assert ModelBundle.load(f"{folder}@{sha256}").url == str(folder)
    assert ModelBundle.load(f"{folder}@{sha256[:12]}").sha256 == sha256
    with pytest.raises(InputError, match=rf"has SHA-256 {sha256[:12]}… and 0123456789ab… was asked for"):
        ModelBundle.load(f"{folder}@0123456789ab")
    assert ModelBundle.load(f"lens@{ModelBundle.load('lens').sha256}").name == "lens"


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        ("strided_cnn", {"widths": [8, 60000]}, "do not fit network StridedCNN of its card .*the first: "),
        ("strided_cnn", {"widths": [16000, 16000, 16000]}, "do not fit network StridedCNN"),
        ("strided_cnn", {"widths": [8, -1]}, "cannot be built"),
        ("strided_cnn", {"widths": [10**20]}, "cannot be built"),
        ("strided_cnn", {"widths": "x"}, "cannot be built"),
        ("strided_cnn", {"widths": [8] * 50_000}, "more layers than its weights account for"),
        ("residual_cnn", {"widths": [8, 16], "blocks": 10**9}, "more layers than its weights account for"),
    ],
)
def test_a_card_cannot_ask_for_more_memory_than_its_weights(
    folder: Path, network: str, arguments: dict, message: str
) -> None:
    edit(folder, network=network, network_arguments=arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        ModelBundle.load(folder).network()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


@pytest.mark.parametrize(
    "change",
    [{"name": 1}, {"settings": []}, {"network_arguments": None}, {"task": {}}, {"network": ["x"]}, {"format": True}],
)
def test_a_card_of_wrong_types_is_refused(folder: Path, change: dict) -> None:
    edit(folder, **change)
    with pytest.raises(InputError):
        ModelBundle.load(folder).network()


def test_a_card_nested_without_end_is_refused(folder: Path) -> None:
    (folder / "card.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not JSON"):
        ModelBundle.load(folder)


def test_timm_takes_no_option_that_names_a_file() -> None:
    for options in ({"checkpoint_path": "README.txt"}, {"pretrained_cfg": {"file": "x"}}, {"act_layer": "a/b"}):
        with pytest.raises(ValueError, match=r"cannot be set here|cannot be 'a/b'"):
            TimmNetwork(1, 2, options=options)


def test_broken_json_is_one_sentence(folder: Path) -> None:
    (folder / "card.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        ModelBundle.load(folder)


def test_shipped_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_SHIPPED", tmp_path)
    make(tmp_path / "tiny")
    assert places.shipped() == ["tiny"]
    assert ModelBundle.load("tiny").name == "small"  # of its card: catalogs that exist keep their columns
    assert ModelBundle.load("tiny").called == "tiny"
    assert describe_bundle("tiny").facts["name"] == "tiny (columns beside those of other bundles begin with small_)"
    with pytest.raises(InputError, match=r"no bundle at huge .*; bundles that ship: tiny"):
        ModelBundle.load("huge")


@pytest.mark.parametrize("change", [fit_typicality, fit_reference, calibrate_response, recalibrate])
def test_bundles_that_ship_are_not_changed_in_place(change: Callable[..., object]) -> None:
    with pytest.raises(InputError, match="ellipticity ships with the package"):
        change("ellipticity", data="nowhere")


@pytest.mark.parametrize("card", [{}, [], None, {"format": None}, {"format": "1"}])
def test_a_card_without_a_format_is_damaged_and_not_newer(folder: Path, card: object) -> None:
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"card.json of bundle .* is damaged .*: get the bundle again"):
        ModelBundle.load(folder)


def test_pins_in_capitals_and_pins_that_are_too_short(folder: Path) -> None:
    sha256 = ModelBundle.load(folder).sha256
    assert ModelBundle.load(f"{folder}@{sha256.upper()}").sha256 == sha256
    with pytest.raises(InputError, match="a pin is @ and 12 to 64 digits"):
        ModelBundle.load(f"{folder}@{sha256[:6]}")

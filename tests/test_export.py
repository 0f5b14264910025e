"""Exported bundles: ONNX Runtime alone gives what we measure on the same raw pixels."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astroml_plugin.core import registry
from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.networks.layers import _sorted_median, lower_median
from astroml_plugin.tasks.graph import interpolated, normalised_psf, shifted
from astroml_plugin.tasks.normalisation import _shifted, gaussian_psf, normalise_psf
from astroml_plugin.training import onnx_file
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.measure_labelled import columns
from astroml_plugin.training.portable import TOLERANCE, differences, measured, portable, probes
from tests import universe
from workflows.cli import main
from workflows.export import export

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
SHIPPED = ("anomaly", "ellipticity", "lens", "morphology", "objects", "segmentation")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("export") / "lens.onnx"
    assert main(["export", "lens", "--to", "onnx", "--out", str(path)]) == 0
    return path


def session(path: Path) -> Any:
    return onnx_file.opened(pytest.importorskip("onnxruntime"), path.read_bytes(), threads=1)


def galaxies(count: int, bands: int, size: int, seed: int = 0) -> np.ndarray:
    """(n, band, y, x) float32 of noise 5, a source in the middle, and some pixels that cannot be used."""
    random = np.random.default_rng(seed)
    light = gaussian_psf(6.0, size).numpy() * random.uniform(100, 30000, (count, bands, 1, 1))
    image = (random.normal(0, 5, (count, bands, size, size)) + light + 40).astype(np.float32)
    image[::3, 0, 5:9, 3:20] = np.nan
    return image


@pytest.mark.slow
def test_a_file_gives_the_probabilities_of_raw_pixels(lens: Path) -> None:
    bundle = ModelBundle.load("lens")
    image = galaxies(17, 3, 64)
    image[4, 1] = np.nan
    stamps = from_stamps(image, None, None, bands=bundle.bands, pixel_scale=0.2, zero_points=(31.4,) * 3)
    ours = columns(bundle.task(), bundle.network(), stamps)
    opened = session(lens)
    names = [output.name for output in opened.get_outputs()]
    found = dict(zip(names, opened.run(None, {"image": image})))
    assert names == ["p_other", "p_lens", "typicality"]
    typicality = found.pop("typicality")
    assert ((typicality >= 0) & (typicality <= 1) | np.isnan(found["p_lens"])).all()
    assert max(differences(found, ours).values()) < TOLERANCE
    assert np.isnan(found["p_lens"]).tolist() == [number == 4 for number in range(17)]
    (one,) = opened.run(["p_lens"], {"image": image[:1]})
    np.testing.assert_allclose(one, ours["p_lens"][:1], atol=TOLERANCE)


@pytest.mark.slow
def test_its_metadata_say_what_goes_in_and_comes_out(lens: Path) -> None:
    bundle, meta = ModelBundle.load("lens"), session(lens).get_modelmeta()
    about = json.loads(meta.custom_metadata_map["astroml_plugin"])
    assert about["sha256"] == bundle.sha256
    assert about["bands"] == ["g", "r", "i"]
    assert (about["input_unit"], about["zero_point"], about["pixel_scale"]) == ("nJy", 31.4, 0.2)
    assert about["licence"] == "CC-BY-4.0"
    assert about["left_out"] == ["label"]
    (image,) = about["inputs"]
    assert (image["name"], image["shape"], image["unit"]) == ("image", ["n", 3, 64, 64], "nJy")
    assert [output["name"] for output in about["outputs"]] == ["p_other", "p_lens", "typicality"]
    assert str(Path(__file__).parents[1]).encode() not in lens.read_bytes()


@pytest.mark.slow
def test_the_code_of_the_page_runs(lens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lens.parent)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    named: dict[str, Any] = {}
    exec(code, named)
    assert named["p_lens"].shape == (4,)
    assert np.isfinite(named["p_lens"]).all()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelBundle, Path]:
    """A bundle of a small network, and its file."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("small")
    universe.make_bundle(str(folder / "kind"))
    assert main(["export", str(folder / "kind"), "--to", "onnx", "--out", str(folder / "kind.onnx")]) == 0
    return ModelBundle.load(str(folder / "kind")), folder / "kind.onnx"


def test_a_file_of_a_small_network_gives_the_probabilities_of_raw_pixels(small: tuple[ModelBundle, Path]) -> None:
    bundle, path = small
    image = galaxies(17, 1, 32)
    image[4, 0] = np.nan
    variance = np.full_like(image, 25.0)
    stamps = from_stamps(image, variance, None, bands=bundle.bands, pixel_scale=0.2, zero_points=(31.4,))
    ours = columns(bundle.task(), bundle.network(), stamps)
    opened = session(path)
    given = {"image": image, "variance": variance}
    names = [output.name for output in opened.get_outputs()]
    found = dict(zip(names, opened.run(None, {one.name: given[one.name] for one in opened.get_inputs()})))
    assert names == ["p_star", "p_galaxy"]
    assert max(differences(found, ours).values()) < TOLERANCE
    assert np.isnan(found["p_star"]).tolist() == [number == 4 for number in range(17)]
    about = json.loads(opened.get_modelmeta().custom_metadata_map["astroml_plugin"])
    assert (about["sha256"], about["bands"], about["pixel_scale"]) == (bundle.sha256, ["r"], 0.2)
    assert [one["name"] for one in about["inputs"]] == [one.name for one in opened.get_inputs()]
    assert [one["name"] for one in about["outputs"]] == names
    assert str(Path(__file__).parents[1]).encode() not in path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_bundle_exports(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    result = export(name, out=tmp_path / "model.onnx")
    assert max(result.differences.values()) < TOLERANCE
    model = portable(ModelBundle.load(name))
    opened = session(tmp_path / "model.onnx")
    stamps = probes(model, 7)
    given = {key: value.numpy() for key, value in zip(model.reads, model.given(stamps))}
    found = dict(zip(result.differences, opened.run(None, given)))
    assert max(differences(found, measured(model, ModelBundle.load(name).network(), stamps)).values()) < TOLERANCE
    assert sum(int(np.isfinite(values).sum()) for values in found.values()) > 0
    if name == "segmentation":
        larger = {key: np.tile(value, (1, 1, 2, 3)) for key, value in given.items()}
        (light,) = opened.run(["foreground"], larger)
        with torch.no_grad():
            ours = model.columns(*map(torch.from_numpy, larger.values()))["foreground"].numpy()
        assert light.shape == (7, *larger["image"].shape[2:])
        assert differences({"light": light}, {"light": ours})["light"] < TOLERANCE


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("variance", [True, False])
def test_the_arithmetic_is_that_of_the_catalog(name: str, variance: bool) -> None:
    bundle = ModelBundle.load(name)
    if name == "segmentation" and not variance:
        with pytest.raises(InputError, match="cannot be exported without a variance: leave --no-variance away"):
            portable(bundle, variance=False)
        return
    model = portable(bundle, variance=variance)
    stamps = probes(model, 6)
    with torch.no_grad():
        found = {key: values.numpy() for key, values in model.columns(*model.given(stamps)).items()}
    assert max(differences(found, measured(model, bundle.network(), stamps)).values()) < TOLERANCE


def test_parts_of_the_arithmetic() -> None:
    random = torch.Generator().manual_seed(1)
    values = torch.randn(5, 2, 33, generator=random)
    values[0, 0, :7], values[1] = torch.nan, torch.nan
    torch.testing.assert_close(_sorted_median(values), lower_median(values))
    for side in (24, 25):
        image, by = torch.randn(4, side, side, generator=random), torch.rand(4, 2, generator=random)
        torch.testing.assert_close(shifted(image, by), _shifted(image, by), atol=1e-5, rtol=1e-5)
        psf = gaussian_psf(4.0, side).expand(3, 1, side, side).clone()
        psf[1] += psf[1].roll(1, 2)
        psf[2] = torch.nan
        torch.testing.assert_close(normalised_psf(psf), normalise_psf(psf, side)[0], atol=1e-6, rtol=1e-5)


def test_lines_between_knots(monkeypatch: pytest.MonkeyPatch) -> None:
    values, knots, levels = torch.linspace(-2, 5, 50), (-1.0, 0.5, 3.0), (2.0, -1.0, 7.0)
    plain = interpolated(values, knots, levels)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(interpolated(values, knots, levels), plain)


def test_what_is_refused_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["export", "lens", "--to", "coreml"]) == 2
    assert "a bundle is exported to onnx, not to 'coreml'" in capsys.readouterr().err
    monkeypatch.setattr(registry, "optional", lambda name, missing: (_ for _ in ()).throw(InputError(missing)))
    assert main(["export", "lens", "--out", str(tmp_path / "x.onnx")]) == 2
    assert 'pip install "astroml-plugin[onnx]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_network_or_an_answer_that_is_not_ours(
    small: tuple[ModelBundle, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, kept = small[0], pytest.importorskip("onnx").load(small[1])

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no function for aten.linalg_eig")

    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(InputError, match=r"network strided_cnn\) cannot be exported: .* \(RuntimeError: no function"):
        onnx_file.onnx_file(bundle)
    ours = onnx_file.measured
    monkeypatch.setattr(onnx_file, "_translated", lambda _, model, inputs: (model.columns(*inputs), kept))
    monkeypatch.setattr(onnx_file, "measured", lambda *given: {k: v + 0.01 for k, v in ours(*given).items()})
    with pytest.raises(InputError, match=r"p_\w+ of the ONNX file differs by 0\.01 from what"):
        onnx_file.onnx_file(bundle)

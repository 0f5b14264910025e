"""What a bundle was not trained on is flagged, what it was trained on is not, and nothing else of a row changes."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from training_samples import SIZE, class_stamps, write_stamps

from astroml_plugin.catalog import Catalog
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.inference.unlike import sentences
from astroml_plugin.networks.multipole_mlp import MultipoleMLP
from astroml_plugin.networks.strided_cnn import StridedCNN
from astroml_plugin.networks.taps import Taps, chosen_layers, pooled
from astroml_plugin.networks.typicality import FARTHEST, Judge, TailTable, split
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.typicality import FILE, Typicality
from astroml_plugin.training.typicality_fit import (
    SeenViews,
    TypicalitySettings,
    apply_tail,
    fit_density,
    fit_typicality,
    seen_views,
    tail_of,
)
from tests.universe import make_bundle
from workflows.evaluate import evaluate
from workflows.evaluate import show as show_evaluation
from workflows.fit_typicality import fit_typicality as fit_later
from workflows.infer import infer
from workflows.ingest import ingest
from workflows.query import query
from workflows.simulate import simulate
from workflows.train import train

torch.set_num_threads(1)

SMALL = """
task = "classify"
[settings]
label = "kind"
[network_arguments]
widths = [6, 12]
hidden = 24
[training]
epochs = 2
batch_size = 64
[split]
fractions = [0.6, 0.2, 0.2]
"""


def drawn(count: int, seed: int = 0) -> torch.Tensor:
    """Correlated vectors (count, 6)."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(1).normal(size=(3, 6))
    values = random.normal(size=(count, 3)) @ mixing + 0.1 * random.normal(size=(count, 6))
    return torch.from_numpy(values).float()


@pytest.fixture(scope="module")
def fitted() -> Typicality:
    held = np.arange(1500) >= 1000
    held[:500] = True
    return fit_typicality(SeenViews(("light",), {}, [drawn(1500)]), held, TypicalitySettings())


def oddness(fitted: Typicality, values: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return fitted.improbability([values])[:, 0].numpy()


def test_the_rate_of_false_flags_is_the_one_asked_for(fitted: Typicality) -> None:
    found = oddness(fitted, drawn(20_000, seed=5))
    assert np.mean(found > 2) == pytest.approx(0.01, abs=0.012)
    assert np.mean(found > 1) == pytest.approx(0.1, abs=0.03)


def test_what_is_far_or_breaks_the_correlations_is_not_typical(fitted: Typicality) -> None:
    swapped = drawn(500, seed=6)[:, [1, 0, 2, 3, 4, 5]]
    assert np.mean(oddness(fitted, swapped) > 2) > 0.5  # the others differ little in these two
    far = oddness(fitted, drawn(10, seed=7) + 1e4)
    assert (far > 4).all()
    assert np.isfinite(far).all()


def test_a_tail_is_that_of_its_population_and_rises_for_ever() -> None:
    population = np.random.default_rng(0).exponential(size=4000)
    knots, slopes = tail_of(population)
    values = np.array([-3.0, 0.0, np.log(2), np.log(20), np.log(100), np.log(1e6)])
    found = apply_tail(knots, slopes, values)
    np.testing.assert_allclose(found, [0, 0, 0.301, 1.301, 2, 6], atol=0.6)
    assert (np.diff(found)[1:] > 0).all()
    table = TailTable(torch.from_numpy(knots[None]), torch.from_numpy(slopes[None]))
    np.testing.assert_allclose(table(torch.from_numpy(values[:, None]).float())[:, 0], found, atol=1e-4)
    assert float(table(torch.tensor([[1e9]]))) == FARTHEST


def test_equal_values_and_dead_numbers_are_no_harm() -> None:
    values = drawn(300)
    values[:, 2] = 7.0
    density = fit_density(values)
    assert torch.isfinite(density(values)).all()
    values[0, 2] = 8.0
    assert float(density(values)[0]) > float(density(values)[1:].max())


def test_the_file_comes_back_and_others_are_refused(fitted: Typicality) -> None:
    data = fitted.to_bytes()
    again = Typicality.from_bytes(data, "b")
    assert again.views == fitted.views
    assert again.false_flags == fitted.false_flags
    np.testing.assert_allclose(oddness(again, drawn(9)), oddness(fitted, drawn(9)), rtol=1e-4)
    newer = data.replace(b'"format":"2"', b'"format":"9"')
    assert newer != data
    for broken in (b"", data[:100], newer, b"x" * 99):
        with pytest.raises(InputError, match="bundle b"):
            Typicality.from_bytes(broken, "b")


def test_outputs_stay_as_they_are_in_any_number_of_threads() -> None:
    torch.manual_seed(0)
    network = StridedCNN(1, 3, widths=(6, 12), hidden=16).eval()
    image = torch.randn(400, 1, 32, 32)
    seen = seen_views(network, [((image,), False), ((image + 1,), True)], [(1, 32, 32)])
    assert seen is not None
    assert len(seen.names) >= 4
    known = fit_typicality(seen, np.zeros(400, bool), TypicalitySettings())
    whole = known.around(network, known.taps(network, "b"), [(1, 32, 32)])
    parts = list(image.split(25))
    with torch.inference_mode():
        plain = torch.cat([network(part) for part in parts])
        one = torch.cat([whole(part) for part in parts])

    def judged(part: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return whole(part)

    with ThreadPoolExecutor(4) as pool:
        several = torch.cat(list(pool.map(judged, parts)))
    outputs, typical = split(one)
    assert torch.equal(outputs, plain)
    assert torch.equal(one, several)
    assert 0 < float(typical.median()) < 1


def test_a_layer_that_is_called_twice_counts_once() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(inplace=True))
    taps = Taps(network, {"0": 1})
    first, second = torch.randn(3, 4), torch.randn(3, 4)
    taps.begin()
    network(first), network(second)
    assert torch.equal(taps.taken()[0], network[0](first))
    with pytest.raises(ValueError, match="no layer 7"):
        Taps(network, {"7": 1})


def test_the_last_linear_layer_is_not_listened_to_and_turned_answers_are_averaged() -> None:
    network = StridedCNN(1, 3, widths=(6, 12), hidden=16).eval()
    chosen = chosen_layers(network, (torch.randn(8, 1, 32, 32),))
    assert not {"head", "head.5"} & set(chosen)
    assert set(chosen.values()) == {1}
    turned = MultipoleMLP(1, 4, size=16, hidden=16, layers=2).eval()
    found = chosen_layers(turned, (torch.randn(8, 1, 16, 16),))
    assert set(found.values()) == {4}
    rows = torch.arange(12.0).reshape(6, 2)
    assert torch.equal(pooled(rows, 2), (rows[:3] + rows[3:]) / 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Stamps of two classes, and a bundle that was trained on them."""
    folder = tmp_path_factory.mktemp("typical")
    (folder / "r.toml").write_text(SMALL)
    source = class_stamps(str(folder / "stamps.zarr"), 320)
    train(folder / "r.toml", data=source, out=folder / "kinds")
    return source, str(folder / "kinds")


def catalog(source: str, bundles: list[str], out: Path) -> pa.Table:
    found = infer(source, bundle=bundles, out=str(out)).catalog
    return query(found, "SELECT * FROM catalog ORDER BY object_id").to_arrow()


def without(bundle: str, out: Path) -> str:
    """The bundle as if it had been made before there was such a thing."""
    model = ModelBundle.load(bundle)
    return ModelBundle.save(out, model.network(), model.card, model.known_objects()).url


def test_a_trained_bundle_flags_what_is_foreign(trained: tuple[str, str], tmp_path: Path) -> None:
    source, bundle = trained
    assert (Path(bundle) / FILE).is_file()
    own = catalog(source, [bundle], tmp_path / "own")
    low = own["typicality"].to_numpy() < 0.01
    assert low.mean() < 0.03
    np.testing.assert_array_equal(low, own["flags"].to_numpy() & int(ObjectFlag.OUT_OF_DOMAIN) > 0)
    noise = np.random.default_rng(0).normal(60, 30, (50, 2, SIZE, SIZE)).clip(0, 255).astype(np.uint8)
    made = write_stamps(str(tmp_path / "noise.zarr"), noise, {"kind": np.resize([1, 2], 50)}, bands=("g", "r"))
    foreign = catalog(made, [bundle], tmp_path / "foreign")
    assert (foreign["flags"].to_numpy() & int(ObjectFlag.OUT_OF_DOMAIN) > 0).mean() > 0.95


def test_a_run_says_where_most_rows_are_unlike_the_training(trained: tuple[str, str], tmp_path: Path) -> None:
    source, bundle = trained
    assert infer(source, bundle=bundle, out=str(tmp_path / "own")).notes == ()
    noise = np.random.default_rng(0).normal(60, 30, (50, 2, SIZE, SIZE)).clip(0, 255).astype(np.uint8)
    made = write_stamps(str(tmp_path / "noise.zarr"), noise, {"kind": np.resize([1, 2], 50)}, bands=("g", "r"))
    told = r"(4[89]|50) of 50 rows are OUT_OF_DOMAIN for bundle kinds: .*fit-typicality"
    (note,) = infer(made, bundle=bundle, out=str(tmp_path / "foreign")).notes
    assert re.match(told, note)
    other = make_bundle(str(tmp_path / "other"), size=SIZE, bands=("g", "r"), dtype="uint8")
    (note,) = infer(made, bundle=[bundle, other], out=str(tmp_path / "both")).notes
    assert re.match(told, note)
    old = without(bundle, tmp_path / "old")
    assert infer(made, bundle=old, out=str(tmp_path / "untold")).notes == ()
    counts = {"a b all": 100, "a b unlike": 50, "few all": 20, "few unlike": 20}
    assert sentences(counts) == ()
    assert sentences({**counts, "a b unlike": 51})[0].startswith("51 of 100 rows are OUT_OF_DOMAIN for bundle a b: ")


def test_a_bundle_without_it_has_no_such_column_and_the_same_rows(trained: tuple[str, str], tmp_path: Path) -> None:
    source, bundle = trained
    old = without(bundle, tmp_path / "kinds")
    rows, before = catalog(source, [bundle], tmp_path / "a"), catalog(source, [old], tmp_path / "b")
    assert set(rows.column_names) - set(before.column_names) == {"typicality"}
    for name in set(before.column_names) - {"flags"}:
        assert rows[name].combine_chunks().equals(before[name].combine_chunks()), name
    assert not (before["flags"].to_numpy() & int(ObjectFlag.OUT_OF_DOMAIN)).any()


def test_an_evaluation_has_figures_of_what_is_typical_and_of_the_rest(trained: tuple[str, str], tmp_path: Path) -> None:
    found = evaluate(trained[0], bundle=trained[1], out=str(tmp_path / "e"), robustness=False)
    parts = found.metrics["typicality"]
    assert parts["unflagged"]["count"] + parts["flagged"]["count"] == found.objects
    assert parts["unflagged"]["accuracy"] == pytest.approx(found.metrics["accuracy"], abs=0.1)
    assert f"{parts['unflagged']['count']} typical: " in show_evaluation(found)


def test_a_judge_of_other_numbers_is_refused() -> None:
    numbers = {"centre": torch.zeros(4), "scale": torch.ones(4)}
    for layer, (first, last) in enumerate(((4, 3), (3, 2), (2, 1))):
        numbers |= {f"weight{layer}": torch.zeros(first, last), f"bias{layer}": torch.zeros(last)}
    assert Judge(numbers)(torch.ones(5, 4)).shape == (5, 1)
    with pytest.raises(ValueError, match="a judge of 4 values"):
        Judge(numbers | {"weight1": torch.zeros(9, 2)})


def test_what_overflows_is_not_typical(fitted: Typicality) -> None:
    assert (oddness(fitted, torch.full((3, 6), torch.inf)) == FARTHEST).all()


def test_several_bundles_have_a_column_each_and_flags_of_all(trained: tuple[str, str], tmp_path: Path) -> None:
    source, bundle = trained
    other = make_bundle(str(tmp_path / "other"), size=SIZE, bands=("g", "r"), dtype="uint8")
    rows = catalog(source, [bundle, other], tmp_path / "both")
    assert "kinds_typicality" in rows.column_names
    assert not {"typicality", "other_typicality"} & set(rows.column_names)
    own = rows["kinds_flags"].to_numpy() | rows["other_flags"].to_numpy()
    far = int(ObjectFlag.OUT_OF_DOMAIN)
    assert (own & far).any()
    np.testing.assert_array_equal(rows["flags"].to_numpy() & far, own & far)


def test_it_can_be_learned_later_and_travels(trained: tuple[str, str], tmp_path: Path) -> None:
    source, bundle = trained
    old = without(bundle, tmp_path / "kinds")
    assert ModelBundle.load(old).typicality() is None
    made = fit_later(old, data=source, false_flags=0.05)
    known = made.typicality()
    assert known is not None
    assert known.false_flags == 0.05
    assert made.card.weights_sha256 == ModelBundle.load(bundle).card.weights_sha256
    back = ModelBundle.from_bytes(made.to_zip())
    assert back.typicality_file() == made.typicality_file()
    path = tmp_path / "kinds" / FILE
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\1\0")
    with pytest.raises(InputError, match="was altered"):
        ModelBundle.load(old).typicality()
    path.unlink()
    with pytest.raises(InputError, match="is absent"):
        infer(source, bundle=old, out=str(tmp_path / "catalog"))


def test_few_stamps_show_no_population(trained: tuple[str, str], tmp_path: Path) -> None:
    source = class_stamps(str(tmp_path / "few.zarr"), 60)
    with pytest.raises(InputError, match="give 200 or more"):
        fit_later(trained[1], data=source, out=tmp_path / "b")
    with pytest.raises(InputError, match="false_flags"):
        TypicalitySettings(false_flags=0.5)


def test_columns_say_what_they_are(trained: tuple[str, str], tmp_path: Path) -> None:
    source, bundle = trained
    catalog(source, [bundle], tmp_path / "c")
    field = Catalog.open(str(tmp_path / "c")).schema.field("typicality")
    assert field.metadata[b"ucd"] == b"stat.probability"


@pytest.mark.slow
def test_a_bundle_that_finds_objects_tells_their_typicality_and_changes_nothing_else(tmp_path: Path) -> None:
    simulate(out=str(tmp_path / "fields"), preset="fields", count=48, seed=77)
    simulate(out=str(tmp_path / "sky"), kind="survey", preset="fields", count=1, tile_size=512, seed=91)
    told = fit_later("segmentation", data=str(tmp_path / "fields" / "stamps.zarr"), out=str(tmp_path / "told"))
    assert told.typicality() is not None
    shipped = ModelBundle.load("segmentation")
    training = {name: value for name, value in shipped.card.training.items() if name != "typicality"}
    plain = ModelBundle.save(
        str(tmp_path / "plain-bundle"),
        shipped.network(),
        replace(shipped.card, name="told", training=training),
        shipped.known_objects(),
    )
    assert plain.typicality() is None
    rows = {}
    for name, bundle in (("plain", plain.url), ("told", str(tmp_path / "told"))):
        infer(str(tmp_path / "sky" / "survey.zarr"), bundle=bundle, out=str(tmp_path / name), backend="torch")
        rows[name] = query(str(tmp_path / name), "SELECT * FROM catalog ORDER BY object_id").to_arrow()
    typicality = rows["told"]["typicality"].to_numpy()
    assert len(typicality) >= 10
    assert ((typicality > 0) & (typicality <= 1)).all()
    plain, flags = (rows[name]["flags"].to_numpy() for name in ("plain", "told"))
    np.testing.assert_array_equal(flags, plain | (typicality < 0.01) * int(ObjectFlag.OUT_OF_DOMAIN))
    others = [name for name in rows["plain"].column_names if name != "flags"]
    assert rows["told"].select(others).equals(rows["plain"].select(others))


def test_stamps_of_another_scale_teach_nothing(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    np.savez(tmp_path / "far.npz", images=images, bands=np.array(["g", "r", "i"]), pixel_scale=0.4)
    far = ingest([str(tmp_path / "far.npz")], out=str(tmp_path / "far.zarr")).source
    with pytest.raises(InputError, match=r"0\.4 arcsec per pixel"):
        fit_later("lens", data=far, out=tmp_path / "b")

"""Priors and symmetry averages of a run over stamps: what they change, and that they belong to its identity."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.compute.cluster import connect
from astroml_plugin.core.errors import InputError
from tests import universe
from workflows.cli import main
from workflows.infer import dry_run, infer
from workflows.query import query


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    with connect("local", threads=1) as client:
        yield client


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stamps, two bundles of classes (one that knows its class fractions) and one of shapes."""
    folder = tmp_path_factory.mktemp("classes")
    universe.make_stamps(str(folder / "stamps.zarr"), count=60, size=32)
    universe.make_bundle(str(folder / "kind"), training_prior=[0.3, 0.7])
    universe.make_bundle(str(folder / "old"), classes=["a", "b"])
    universe.make_bundle(str(folder / "shape"), task="ellipticity", psf="optional", psf_size=15)
    return folder


def probabilities(catalog: Path, column: str = "p_star") -> np.ndarray:
    table = query(str(catalog), f"SELECT {column} FROM catalog ORDER BY object_id").to_arrow()
    return table[column].to_numpy()


def test_a_prior_shifts_rows_and_belongs_to_the_identity(given: Path, tmp_path: Path, client: object) -> None:
    source, bundle = str(given / "stamps.zarr"), str(given / "kind")
    infer(source, bundle=bundle, out=str(tmp_path / "plain"), client=client)
    infer(source, bundle=bundle, out=str(tmp_path / "rare"), options={"prior": {"star": 0.01}}, client=client)
    before, after = probabilities(tmp_path / "plain"), probabilities(tmp_path / "rare")
    odds = before / (1 - before) * (0.01 / 0.3) / (0.99 / 0.7)
    expected = odds / (1 + odds)
    np.testing.assert_allclose(after, expected, rtol=1e-4)
    labels = query(str(tmp_path / "rare"), "SELECT count(*) AS n FROM catalog WHERE (p_star > 0.5) = (label = 'star')")
    assert labels.to_arrow()["n"].to_pylist() == [60]
    with pytest.raises(InputError, match="another"):
        infer(source, bundle=bundle, out=str(tmp_path / "rare"), client=client)
    again = infer(source, bundle=bundle, out=str(tmp_path / "rare"), options={"prior": {"star": 0.01}}, client=client)
    assert again.units_done == 0


def test_symmetries_average_and_belong_to_the_identity(given: Path, tmp_path: Path, client: object) -> None:
    source, bundle = str(given / "stamps.zarr"), str(given / "kind")
    infer(source, bundle=bundle, out=str(tmp_path / "plain"), client=client)
    infer(source, bundle=bundle, out=str(tmp_path / "steady"), options={"symmetries": 8}, client=client)
    before, after = probabilities(tmp_path / "plain"), probabilities(tmp_path / "steady")
    assert 0 < np.abs(before - after).max() < 0.5
    with pytest.raises(InputError, match="another"):
        infer(source, bundle=bundle, out=str(tmp_path / "steady"), options={"symmetries": 4}, client=client)


def test_a_prior_goes_to_the_bundle_that_has_its_classes(given: Path, tmp_path: Path, client: object) -> None:
    both = [str(given / "kind"), str(given / "shape")]
    source = str(given / "stamps.zarr")
    infer(
        source,
        bundle=both,
        out=str(tmp_path / "both"),
        options={"prior": {"star": 0.01}, "symmetries": 2},
        client=client,
    )
    assert probabilities(tmp_path / "both", "kind_p_star").mean() < 0.1


@pytest.mark.parametrize(
    ("bundles", "options", "words"),
    [
        (["kind"], {"prior": {"lens": 0.1}}, "the classes are star, galaxy"),
        (["kind"], {"prior": {"star": 2.0}}, "between 0 and 1"),
        (["old"], {"prior": {"a": 0.1}}, "train it again"),
        (["shape"], {"prior": {"star": 0.1}}, "no bundle here gives classes"),
        (["kind", "old"], {"prior": {"lens": 0.1}}, "no bundle has all classes of the prior"),
        (["shape"], {"symmetries": 4}, "leave --symmetries away"),
        (["kind"], {"symmetries": 3}, "1, 2, 4 or 8"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_starts(
    given: Path, bundles: list[str], options: dict, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        dry_run(str(given / "stamps.zarr"), bundle=[str(given / name) for name in bundles], options=options)


def test_the_command_takes_priors(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["infer", str(given / "stamps.zarr"), "--bundle", str(given / "kind"), "--out", str(tmp_path / "c")]
    assert main([*common, "--prior", "star=0.2,galaxy=0.8", "--symmetries", "2", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 60
    assert main([*common, "--prior", "star=0.2,galaxy=0.2", "--dry-run"]) == 2
    assert "sum to 0.4" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*common, "--prior", "star"])
    assert "CLASS=FRACTION" in capsys.readouterr().err

"""Simulated anomalies: seeds, truth, and what each kind adds to an ordinary galaxy."""

from dataclasses import replace

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.settings import from_mapping, to_mapping
from astroml_plugin.simulation import AnomalySet, preset
from astroml_plugin.simulation.lenses import LensCamera
from astroml_plugin.sources.stamps import Stamps
from workflows.simulate import simulate

pytest.importorskip("galsim")

SMALL = AnomalySet(24, seed=3, block=12, lens=0.0, merger=0.5, anomaly_fraction=0.5)


def of_kind(kind: str, count: int = 12, **changes):
    shares = {name: float(name == kind) for name in AnomalySet.anomalies}
    return AnomalySet(count, seed=5, block=count, anomaly_fraction=1.0, **{**shares, **changes}).make(0)


def test_a_block_is_the_same_alone_and_within_others() -> None:
    again, longer = SMALL.make(1), replace(SMALL, count=60).make(1)
    assert np.array_equal(again.image, longer.image)
    assert again.table.to_pandas().equals(longer.table.to_pandas())
    assert again.table["object_id"].to_pylist() == list(range(12, 24))
    assert {"normal", "merger"} <= set(SMALL.make(0).table["kind"].to_pylist() + again.table["kind"].to_pylist())


def test_settings_survive_and_impossible_ones_are_refused() -> None:
    stamps = replace(preset("anomalies"), count=12, seed=5)
    assert from_mapping(AnomalySet, to_mapping(stamps), "here") == stamps
    for changes in ({"size": 63}, {"merger": 0.9}, {"anomaly_fraction": 1.2}, {"count": 0}, {"stars": -1.0}):
        with pytest.raises(InputError):
            replace(SMALL, **changes)
    with pytest.raises(InputError, match="no block 9"):
        SMALL.make(9)


def test_the_same_scenes_under_another_camera() -> None:
    """What the robustness of a score is measured with: same scene and noise, other seeing, depth or centre."""
    sharp, blurred = (
        replace(SMALL, block=6, count=6, camera=LensCamera(psf_fwhm=(width, width))).make(0) for width in (0.6, 0.9)
    )
    assert sharp.table["kind"].equals(blurred.table["kind"])
    assert sharp.table["mag_r"].equals(blurred.table["mag_r"])
    assert np.allclose(sharp.image.sum((2, 3)), blurred.image.sum((2, 3)), rtol=0.2)
    assert sharp.image[:, 1].max() > blurred.image[:, 1].max()
    pair = np.corrcoef(
        (sharp.image / np.sqrt(sharp.variance))[:, :, :6].ravel(),
        (blurred.image / np.sqrt(blurred.variance))[:, :, :6].ravel(),
    )
    assert pair[0, 1] > 0.8


def test_mergers_have_two_galaxies_within_the_promised_distance() -> None:
    table = of_kind("merger").table
    ratio, away = table["flux_ratio"].to_numpy(), table["separation"].to_numpy()
    assert ((ratio >= 1) & (ratio <= 4)).all()
    assert ((away >= 0.5) & (away <= 3)).all()
    assert (table["tidal_fraction"].to_numpy() >= 0.05).all()
    assert set(table["class"].to_pylist()) == {"anomaly"}


def test_trails_cross_the_stamp_in_one_band_or_two() -> None:
    block = of_kind("trail", galaxies=0.0, stars=0.0)
    sigma = np.sqrt(block.variance.min((2, 3)))
    frame = np.ones((64, 64), bool)
    frame[4:-4, 4:-4] = False
    highest = (block.image[:, :, frame] / sigma[..., None]).max(2)
    touched = (highest > 5).sum(1)
    bright = block.table["trail_peak"].to_numpy() > 8
    assert (touched[bright] >= 1).all()
    assert (touched <= 2).all()


def test_rings_are_brightest_away_from_the_centre() -> None:
    block = of_kind("ring", galaxies=0.0, stars=0.0)
    radius = block.table["ring_radius"].to_numpy()
    assert ((radius >= 0.8) & (radius <= 3.2)).all()
    assert np.isfinite(block.image).all()


def test_lenses_are_those_of_the_preset_lenses() -> None:
    pytest.importorskip("lenstronomy")
    table = of_kind("lens", 1).table
    assert (table["arc_snr"].to_numpy() >= 20).all()
    assert table["galaxy_type"].to_pylist() == ["spheroid"]


def test_the_verb_writes_them(tmp_path) -> None:
    made = simulate(
        out=str(tmp_path / "sim"), preset="anomalies", count=6, seed=7, changes={"stamps": {"lens": 0.0, "merger": 0.5}}
    )
    stamps = Stamps.open(made.source)
    assert (stamps.count, stamps.bands, stamps.has_variance) == (6, ("g", "r", "i"), True)
    assert set(stamps.labels()["class"].to_pylist()) <= {"normal", "anomaly"}
    with pytest.raises(InputError, match="pairs are made of single galaxies"):
        simulate(out=str(tmp_path / "other"), preset="anomalies", count=6, pairs="shear")

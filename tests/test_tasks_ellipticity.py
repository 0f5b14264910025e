from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from astroml_plugin.core.errors import InputError
from astroml_plugin.cutouts import from_stamps
from astroml_plugin.evaluation.baselines.shapes import aperture_snr
from astroml_plugin.tasks.ellipticity.task import EllipticityTask, position_angle, to_sky
from astroml_plugin.tasks.symmetries import SYMMETRIES, transform

torch.set_num_threads(1)
NORTH_UP = np.array([[0.2, 0.0], [0.0, 0.2]])  # +x West, +y North: the usual image with East to the left


def rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def turn(ellipticity: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    return to_sky(np.atleast_2d(ellipticity), np.broadcast_to(jacobian, (len(np.atleast_2d(ellipticity)), 2, 2)))


def gaussian(e1: float, e2: float, size: int = 33) -> torch.Tensor:
    """A Gaussian of reduced shear (e1, e2), x = column."""
    chi = 2 * np.array([e1, e2]) / (1 + e1**2 + e2**2)
    inverse = np.linalg.inv(16 * np.array([[1 + chi[0], chi[1]], [chi[1], 1 - chi[0]]]))
    y, x = np.mgrid[:size, :size] - size // 2
    power = inverse[0, 0] * x**2 + 2 * inverse[0, 1] * x * y + inverse[1, 1] * y**2
    return torch.from_numpy(np.exp(-0.5 * power).astype(np.float32))


def moments(image: torch.Tensor) -> np.ndarray:
    """Reduced shear of an image (h, w) from its second moments."""
    pixels = image.double().numpy()
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]] - pixels.shape[0] // 2
    total = pixels.sum()
    qxx, qyy, qxy = ((pixels * item).sum() / total for item in (x * x, y * y, x * y))
    chi = np.array([qxx - qyy, 2 * qxy]) / (qxx + qyy)
    return chi / (1 + np.sqrt(1 - (chi**2).sum()))


def test_convention_e1_along_x_and_e2_along_the_diagonal() -> None:
    np.testing.assert_allclose(moments(gaussian(0.2, 0.1)), [0.2, 0.1], atol=5e-3)
    assert gaussian(0.3, 0)[16, 22] > gaussian(0.3, 0)[22, 16]
    assert gaussian(0, 0.3)[20, 20] > gaussian(0, 0.3)[12, 20]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_targets_follow_the_pixels_exactly(symmetry: tuple[int, int, int]) -> None:
    truth = torch.tensor([[0.2, 0.1]])
    learned = EllipticityTask().transform_targets(truth, symmetry)[0].numpy()
    np.testing.assert_allclose(moments(transform(gaussian(0.2, 0.1), symmetry)), learned, atol=5e-3)


def test_quarter_turn_reverses_both_components_and_a_mirror_only_e2() -> None:
    one, truth = EllipticityTask(), torch.tensor([[0.2, 0.1]])
    np.testing.assert_allclose(one.transform_targets(truth, (1, 1, 0)), [[-0.2, -0.1]])
    np.testing.assert_allclose(one.transform_targets(truth, (0, 1, 0)), [[0.2, -0.1]])
    np.testing.assert_allclose(moments(torch.rot90(gaussian(0.2, 0.1))), [-0.2, -0.1], atol=5e-3)


def test_sky_frame_of_the_usual_image_is_that_of_the_pixels() -> None:
    np.testing.assert_allclose(turn([0.3, -0.2], NORTH_UP), [[0.3, -0.2]], atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.0, 2.5, -2.0])
def test_rotated_and_mirrored_frames(angle: float) -> None:
    e = np.array([0.3, -0.2])
    spin = (e[0] + 1j * e[1]) * np.exp(2j * angle)
    np.testing.assert_allclose(turn(e, 0.2 * rotation(angle)), [[spin.real, spin.imag]], atol=1e-12)
    mirrored = (e[0] - 1j * e[1]) * np.exp(2j * angle)
    flip = np.diag([1.0, -1.0])
    np.testing.assert_allclose(turn(e, rotation(angle) @ flip), [[mirrored.real, mirrored.imag]], atol=1e-12)


def test_sheared_frame_is_exact() -> None:
    """A round object seen through pixels that are sheared by g on the sky has the ellipticity g there."""
    g = np.array([0.05, -0.03])
    shear = np.array([[1 + g[0], g[1]], [g[1], 1 - g[0]]])
    np.testing.assert_allclose(turn([0.0, 0.0], shear), [g], atol=1e-12)


def test_no_wcs_gives_nan() -> None:
    assert np.isnan(turn([0.1, 0.1], np.full((2, 2), np.nan))).all()


@pytest.mark.parametrize(
    ("west", "north", "angle"), [(0.0, 1.0, 0.0), (-1.0, 1.0, 45.0), (1.0, 0.0, 90.0), (1.0, 1.0, 135.0)]
)
def test_position_angle_from_north_through_east(west: float, north: float, angle: float) -> None:
    direction = 2 * np.arctan2(north, west)
    sky = 0.3 * np.array([[np.cos(direction), np.sin(direction)]])
    assert position_angle(sky)[0] == pytest.approx(angle, abs=1e-9)


def test_columns_hold_the_contract() -> None:
    one = EllipticityTask.from_settings({"bands": ["r"], "psf": "none"})
    given = from_stamps(np.random.default_rng(0).normal(size=(4, 1, 48, 48)).astype(np.float32), None, None, bands="r")
    jacobian = torch.from_numpy(np.stack([NORTH_UP] * 3 + [np.full((2, 2), np.nan)]))
    given = replace(given, jacobian=jacobian)
    outputs = torch.zeros(4, 12)
    outputs[:, :2] = torch.tensor([[0.3, 0.0], [0.0, 1e-9], [3.0, 0.0], [0.1, 0.1]])
    columns, _ = one.to_columns(outputs, given, torch.zeros(4, dtype=torch.int32))
    names = ["e1", "e2", "e1_err", "e2_err", "e1_err95", "e2_err95", "e1_sky", "e2_sky", "position_angle"]
    names += ["r11", "r12", "r21", "r22", "snr"]
    assert list(columns) == names == [column.name for column in one.columns()]
    assert all(values.dtype == np.float32 for values in columns.values())
    assert (np.hypot(columns["e1"], columns["e2"]) < 1).all()
    assert columns["position_angle"][0] == 90
    assert (columns["e1_err95"] >= columns["e1_err"]).all()
    assert np.isnan(columns["e1_sky"]).tolist() == [False, False, False, True]
    assert np.isnan(columns["position_angle"]).tolist() == [False, False, False, True]
    assert np.isnan(columns["r11"]).all()  # nobody fitted a response


@pytest.mark.parametrize("known", [True, False])
def test_measured_snr_is_that_of_the_aperture_above_the_border(known: bool) -> None:
    rng = np.random.default_rng(4)
    clean = 40 * gaussian(0.1, 0.0, 48).numpy()[None]
    image = (clean + 7 + rng.normal(0, 2.0, (3, 48, 48))).astype(np.float32)
    variance = np.full_like(image, 4.0)
    one = EllipticityTask.from_settings({"bands": ["r"], "psf": "none"})
    given = from_stamps(image[:, None], variance[:, None] if known else None, None, bands="r")
    found = one.snr(given).numpy()
    np.testing.assert_allclose(found, aperture_snr(image - 7, variance), rtol=0.02 if known else 0.1)
    bad = given.valid.clone()
    bad[0, 0, 20:23, 20:30] = False
    image[0, 20:23, 20:30] = 1e6
    dirty = from_stamps(image[:, None], variance[:, None] if known else None, None, bands="r")
    holed = one.snr(replace(dirty, valid=bad)).numpy()
    assert 0.5 * found[0] < holed[0] < found[0]
    np.testing.assert_allclose(holed[1:], found[1:], rtol=1e-5)


def test_calibration_meets_both_contents() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(4000, 2, generator=generator) - 0.5
    outputs = torch.zeros(4000, 12)
    outputs[:, :2] = targets + 0.02 * torch.distributions.Laplace(0.0, 1.0).icdf(
        torch.rand(4000, 2, generator=generator).clamp(1e-6, 1 - 1e-6)
    )
    fitted = EllipticityTask().calibrate(outputs, targets)
    merit = fitted.metrics(outputs, targets)
    np.testing.assert_allclose(merit["coverage_683"], 0.683, atol=0.02)
    np.testing.assert_allclose(merit["coverage_95"], 0.95, atol=0.01)
    assert merit["rmse"] == pytest.approx([0.0283, 0.0283], rel=0.05)


def test_loss_is_least_at_the_true_widths() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = 0.1 * torch.randn(20000, 2, generator=generator)

    def loss(width: float, shift: float = 0.0) -> float:
        outputs = torch.zeros(20000, 12)
        outputs[:, 2:4] = np.log(width) + 1.5
        outputs[:, 4:6] = np.log(0.1 / width)
        outputs[:, 6:8] = np.log(1.96 * 0.1 / width) - 0.7
        outputs[:, 4:8] += shift
        return float(EllipticityTask().loss(outputs, targets))

    assert loss(0.1) < min(loss(0.09), loss(0.11))
    assert loss(0.1) < min(loss(0.1, -0.1), loss(0.1, 0.1))


def test_metrics_per_snr_bin_report_slope_and_offset() -> None:
    targets = torch.rand(1000, 2) - 0.5
    outputs = torch.zeros(1000, 12)
    outputs[:, :2] = 0.8 * targets + 0.01
    table = pa.table({"snr": np.repeat([15.0, 60.0], 500)})
    merit = EllipticityTask().metrics(outputs, targets, table)
    assert set(merit["snr_bins"]) == {"10-20", "50-100"}
    np.testing.assert_allclose(merit["snr_bins"]["10-20"]["slope"], -0.2, atol=1e-5)
    np.testing.assert_allclose(merit["offset"], 0.01, atol=0.01)
    assert EllipticityTask().figures(outputs, targets)["ellipticity"].axes


def test_labels_that_are_no_reduced_shears_are_refused_with_their_number() -> None:
    table = pa.table({"e1": [0.1, 1.2, 0.8, -0.9], "e2": [0.0, 0.0, 0.7, 0.3]})
    with pytest.raises(InputError, match=r"e1 and e2 have \|e\| of 1 or more for 2 of 4 objects"):
        EllipticityTask.from_settings({"bands": ["r"]}).targets(table)

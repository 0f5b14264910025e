"""What an ellipticity model does with input it was not made for: flags, assumed PSFs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import write_stamps

from astroml_plugin.catalog.query import query
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.flags import ObjectFlag
from astroml_plugin.tasks.domain import domain_bits, measure_limits
from astroml_plugin.tasks.ellipticity.task import EllipticityTask
from astroml_plugin.tasks.normalisation import gaussian_psf
from astroml_plugin.training.bundle import Card, ModelBundle
from workflows.infer import infer

torch.set_num_threads(1)
ODD = int(ObjectFlag.OUT_OF_DOMAIN)
PSF = gaussian_psf(3.5, 25)


def galaxies(count: int, sigma: float, snr: float, seed: int = 0, at: tuple[int, int] = (24, 24)) -> torch.Tensor:
    """(n, 1, 48, 48) round Gaussians in units of the noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48]
    profile = np.exp(-0.5 * ((x - at[0]) ** 2 + (y - at[1]) ** 2) / sigma**2)
    image = snr * profile / np.sqrt((profile**2).sum()) + rng.normal(size=(count, 48, 48))
    return torch.from_numpy(image[:, None].astype(np.float32))


@pytest.fixture(scope="module")
def known() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.cat([galaxies(100, sigma, snr, int(10 * snr)) for sigma in (2.5, 3.5) for snr in (10, 30, 100)])
    return image, PSF.expand(len(image), 1, 25, 25)


def flagged(known: tuple[torch.Tensor, torch.Tensor], image: torch.Tensor, valid: torch.Tensor | None = None) -> float:
    """Fraction of OUT_OF_DOMAIN."""
    limits = measure_limits(*known)
    valid = torch.ones_like(image, dtype=torch.bool) if valid is None else valid
    bits = domain_bits(limits, valid, image, PSF.expand(len(image), 1, 25, 25))
    assert bits.dtype == torch.int32
    return float((bits == ODD).float().mean())


def test_more_of_the_same_is_not_flagged(known: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert flagged(known, galaxies(400, 3.0, 30, 5)) < 0.01
    assert flagged(known, galaxies(400, 3.0, 12, 6)) < 0.1


def test_what_is_unlike_is_flagged(known: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert flagged(known, galaxies(100, 3.0, 1.0, 7)) > 0.95  # noise
    assert flagged(known, galaxies(100, 3.0, 500.0, 8)) == 1.0  # far brighter than anything seen
    assert flagged(known, galaxies(100, 1.5, 50.0, 9)) > 0.95  # as sharp as the PSF: a star
    assert flagged(known, galaxies(100, 3.0, 50, 10) + galaxies(100, 3.0, 50, 11, (36, 24))) > 0.95  # a neighbour


def test_masked_core_and_half_a_stamp_are_flagged(known: tuple[torch.Tensor, torch.Tensor]) -> None:
    image = galaxies(2, 3.0, 50, 12)
    for where in ((slice(22, 23), slice(25, 26)), (slice(0, 48), slice(30, 48))):
        valid = torch.ones_like(image, dtype=torch.bool)
        valid[1, :, *where] = False
        assert flagged(known, image * valid, valid) == 0.5


def small_bundle(folder: Path) -> Path:
    task = EllipticityTask.from_settings({"bands": ["r"], "any_band": True, "pixel_scale": 0.2})
    torch.manual_seed(0)
    network = task.build_network("multipole_mlp", {"hidden": 8})
    card = Card("shapes", "ellipticity", task.to_settings(), "multipole_mlp", {"hidden": 8})
    ModelBundle.save(folder / "shapes", network, card)
    return folder / "shapes"


def test_missing_psf_is_refused_or_assumed(tmp_path: Path) -> None:
    bundle, image = small_bundle(tmp_path), galaxies(20, 3.0, 50).numpy()
    bare = write_stamps(str(tmp_path / "bare.zarr"), image, {})
    kernel = np.broadcast_to(3.0 * PSF.numpy(), (20, 1, 25, 25)).copy()  # any normalisation will do
    kernel[0] = 0  # one object has none
    given = write_stamps(str(tmp_path / "given.zarr"), image, {}, psf=kernel)
    with pytest.raises(InputError, match=r"source has none: .*--assume-psf-fwhm ARCSEC"):
        infer(bare, bundle=str(bundle), out=str(tmp_path / "no"))
    with pytest.raises(InputError, match=r"FWHM -1.0 arcsec cannot be assumed"):
        infer(bare, bundle=str(bundle), out=str(tmp_path / "no"), assumed_psf_fwhm=-1.0)

    def measured(source: str, out: str) -> dict[str, np.ndarray]:
        infer(source, bundle=str(bundle), out=str(tmp_path / out), assumed_psf_fwhm=0.7)
        table = query(str(tmp_path / out), "select e1, e2, flags from catalog order by object_id").to_arrow()
        return {name: np.asarray(table[name]) for name in ("e1", "e2", "flags")}

    assumed, own = measured(bare, "a"), measured(given, "b")
    np.testing.assert_allclose(assumed["e1"], own["e1"], atol=1e-5)
    no_psf = int(ObjectFlag.NO_PSF)
    assert (assumed["flags"] & no_psf).all()
    assert ((own["flags"] & no_psf) > 0).tolist() == [True] + [False] * 19
    with pytest.raises(InputError):  # other settings, another catalog
        infer(given, bundle=str(bundle), out=str(tmp_path / "b"))

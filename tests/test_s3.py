"""Survey, bundle, objects and catalog in an object store: a real S3 server over HTTP, none of it on the local disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from astropy.io import fits

from astroml_plugin.catalog.overlay import read_labels
from tests import universe
from tests.test_cli import forget_stores
from workflows.cli import main

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

BUCKET = "s3://bucket"


@pytest.fixture(scope="module")
def store() -> Iterator[fsspec.AbstractFileSystem]:
    """An S3 server with one bucket; its address and keys are in the environment, as users give them."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    _, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        forget_stores()
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
        filesystem.mkdir("bucket")
        yield filesystem
        running.stop()
        forget_stores()


def test_the_whole_line_in_an_object_store(
    store: fsspec.AbstractFileSystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FITS, compressed FITS, survey, bundle, objects, catalog and the answer are all s3:// URLs."""
    cards = fits.Header.fromstring(universe.header(300, 400), sep="\n")
    pixels = universe.field(300, 400, 1)[0]
    fits.PrimaryHDU(pixels, cards).writeto(tmp_path / "plain.fits")
    far = cards.copy()
    far["CRVAL2"] = 40.0
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, far)]).writeto(tmp_path / "packed.fits.fz")
    universe.make_bundle(str(tmp_path / "kind"))
    universe.make_objects(tmp_path / "objects.parquet")
    store.put(f"{tmp_path}/", "bucket/in/", recursive=True)

    survey, tiling = f"{BUCKET}/survey.zarr", ["--bands", "r", "--tile-size", "448", "--halo", "32"]
    files = [f"{BUCKET}/in/plain.fits", f"{BUCKET}/in/packed.fits.fz"]
    assert main(["ingest", *files, "--out", survey, *tiling]) == 0
    assert main(["ingest", *files, "--out", survey]) == 0
    assert "4 there already" in capsys.readouterr().out

    infer = ["infer", survey, "--bundle", f"{BUCKET}/in/kind", "--objects", f"{BUCKET}/in/objects.parquet"]
    infer += ["--out", f"{BUCKET}/catalog", "--json"]
    assert main(infer) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 200
    assert main(["compact", f"{BUCKET}/catalog"]) == 0
    capsys.readouterr()
    assert main(infer) == 0
    assert json.loads(capsys.readouterr().out)["units_skipped"] == 4
    assert main(["query", f"{BUCKET}/catalog", "--cone", "150", "2", "1", "--to", f"{BUCKET}/near.csv"]) == 0
    assert len(store.cat("bucket/near.csv").splitlines()) == 201


def test_pixels_come_out_of_an_object_store_as_they_went_in(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    from astroml_plugin.sources.survey import Survey
    from workflows.ingest import ingest

    rng = np.random.default_rng(2)
    pixels = rng.integers(-1000, 1000, (70, 90)).astype(">i2")
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    store.put(str(tmp_path / "a.fits"), "bucket/pixels/a.fits")
    url = ingest([f"{BUCKET}/pixels/a.fits"], out=f"{BUCKET}/pixels.zarr", tile_size=64, halo=8).source
    survey = Survey.open(url)
    for info in survey.iter_tiles():
        inner, outer = info.inner, info.outer
        tile = survey.read_tile(info).image[0]
        stored = tile[inner.y0 - outer.y0 : inner.y1 - outer.y0, inner.x0 - outer.x0 : inner.x1 - outer.x0]
        np.testing.assert_array_equal(stored, pixels[inner.y0 : inner.y1, inner.x0 : inner.x1])


@pytest.mark.slow
def test_found_objects_and_their_label_maps_in_an_object_store(
    store: fsspec.AbstractFileSystem, spotted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("survey0.zarr", "spots"):
        store.put(f"{spotted}/{name}/", f"bucket/found/{name}/", recursive=True)
    find = ["infer", f"{BUCKET}/found/survey0.zarr", "--bundle", f"{BUCKET}/found/spots", "--json"]
    assert main([*find, "--out", f"{BUCKET}/found/catalog"]) == 0
    assert main([*find, "--out", f"{BUCKET}/found/catalog"]) == 0
    first, again = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["units_failed"], again["units_skipped"]) == (0, first["units_done"])
    picture, expected = read_labels(f"{BUCKET}/found/catalog"), read_labels(str(spotted / "catalog0"))
    np.testing.assert_array_equal(picture.object_ids(), expected.object_ids())
    store.rm_file("bucket/found/catalog/labels.zarr/label/c/3/0/0")
    assert main([*find, "--out", f"{BUCKET}/found/catalog"]) == 0
    assert json.loads(capsys.readouterr().out)["units_done"] == 1
    outlines = [
        "segmentation-map",
        f"{BUCKET}/found/catalog",
        "--tile",
        "field_r0_c0",
        "--to",
        f"{BUCKET}/found/tile.fits",
    ]
    assert main(outlines) == 0
    assert store.size("bucket/found/tile.fits") > 192 * 192 * 4

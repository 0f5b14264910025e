"""Bundles as zip archives in memory: the same bundle as the folder, and nothing gets out of an archive's folder."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from astroml_plugin.core.errors import InputError
from astroml_plugin.training.bundle import ModelBundle
from astroml_plugin.training.known_objects import KnownObjects
from tests import universe


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return ModelBundle.load(universe.make_bundle(str(tmp_path_factory.mktemp("b") / "kind")))


def archive(files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return sink.getvalue()


def files_of(bundle: ModelBundle) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(bundle.url).iterdir()}


def test_a_bundle_comes_back_from_its_archive(bundle: ModelBundle) -> None:
    data = bundle.to_zip()
    back = ModelBundle.from_bytes(data)
    assert (back.card, back.weights, back.sha256) == (bundle.card, bundle.weights, bundle.sha256)
    assert back.to_zip() == data == bundle.to_zip()
    assert pickle.loads(pickle.dumps(back)).sha256 == bundle.sha256
    assert back.known_objects() is None


@pytest.mark.parametrize("folder", ["", "kind/", "deep/er/"])
def test_the_zip_of_a_folder_is_a_bundle(bundle: ModelBundle, folder: str) -> None:
    data = archive({f"{folder}{name}": content for name, content in files_of(bundle).items()})
    assert ModelBundle.from_bytes(data).sha256 == bundle.sha256


def test_the_record_of_training_objects_travels(tmp_path: Path, bundle: ModelBundle) -> None:
    known = KnownObjects.of(np.arange(1, 5, dtype=np.uint64), np.arange(4), np.full((4, 2), np.nan))
    saved = ModelBundle.save(tmp_path / "b", bundle.network(), bundle.card, known)
    back = ModelBundle.from_bytes(saved.to_zip()).known_objects()
    assert back is not None
    np.testing.assert_array_equal(back.pixels, known.pixels)
    files = {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()}
    del files["training_objects.safetensors"]
    with pytest.raises(InputError, match="absent or was altered"):
        ModelBundle.from_bytes(archive(files)).known_objects()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "c:evil"])
def test_paths_outside_are_refused(bundle: ModelBundle, name: str) -> None:
    with pytest.raises(InputError, match="a path outside its folder"):
        ModelBundle.from_bytes(archive({**files_of(bundle), name: b"x"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights.safetensors": b"x"}, "weights .* were altered"),
        ({"weights.safetensors": None}, "has no weights.safetensors"),
        ({"card.json": b"{"}, "is not JSON"),
        ({"card.json": None}, "holds 0 files card.json"),
        ({"old/card.json": b"{}"}, "holds 2 files card.json"),
        ({"model.pkl": b"x"}, "pickled files can run code"),
    ],
)
def test_archives_are_verified_as_folders_are(
    bundle: ModelBundle, changes: dict[str, bytes | None], message: str
) -> None:
    files = {name: content for name, content in {**files_of(bundle), **changes}.items() if content is not None}
    with pytest.raises(InputError, match=message):
        ModelBundle.from_bytes(archive(files), "from the butler")


def test_bombs_and_other_bytes_are_refused(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astroml_plugin.core.archives.FREE_BYTES", 10**6)
    with pytest.raises(InputError, match="unpacks to more than"):
        ModelBundle.from_bytes(archive({**files_of(bundle), "zeros": bytes(10**8)}))
    with pytest.raises(InputError, match="to_zip"):
        ModelBundle.from_bytes(bundle.weights)
    with pytest.raises(InputError, match="cannot be read"):
        ModelBundle.from_bytes(bundle.to_zip()[:-40])

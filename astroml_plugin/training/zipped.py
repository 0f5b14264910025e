"""The files of a bundle as one zip archive in memory, and back: within limits, no path outside, nothing executed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from astroml_plugin.core import archives, foreign
from astroml_plugin.core.errors import InputError
from astroml_plugin.training.card import CARD

_MOST_FILES = 1000
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Date of every file: the archive of a bundle is then the same whenever it is made."""


def packed(files: Mapping[str, bytes], folder: str) -> bytes:
    """Files as a zip archive; equal files give equal bytes.

    Args:
        files: name -> content.
        folder: they lie in it.
    """
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(f"{folder}/{name}", _EPOCH)
            archive.writestr(member, content, zipfile.ZIP_DEFLATED if name == CARD else zipfile.ZIP_STORED)
    return sink.getvalue()


def unpacked(data: bytes, shown: str) -> dict[str, bytes]:
    """Path within the bundle's folder -> content, of an archive of one bundle, in a folder or not.

    Args:
        data: a zip archive.
        shown: names the archive, for messages.

    Raises:
        InputError: it is none, it unpacks to more than is allowed, it holds paths outside its own folder, one name
            twice, several bundles or none.
    """
    with (
        foreign.refusing(shown, "give the zip of one bundle, as `ModelBundle.to_zip` makes it"),
        zipfile.ZipFile(io.BytesIO(data)) as archive,
    ):
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > _MOST_FILES:
            raise InputError(f"{shown} holds {len(members)} files, no bundle has more than {_MOST_FILES}")
        names = [member.filename for member in members]
        odd = [name for name in names if _leaves(name)]
        if odd or len({*names}) < len(names):
            told = f"a path outside its folder ({odd[0]!r})" if odd else "one name twice"
            raise InputError(f"{shown} holds {told} and is refused: pack the bundle's folder again")
        archives.refuse_larger(sum(member.file_size for member in members), len(data), shown)
        folder = _folder(names, shown)
        return {
            member.filename.removeprefix(folder): archive.read(member)
            for member in members
            if member.filename.startswith(folder)
        }


def _leaves(name: str) -> bool:
    """Whether a path is absolute, of another system's kind, or climbs."""
    return name.startswith("/") or "\\" in name or ":" in name or "\0" in name or ".." in name.split("/")


def _folder(names: list[str], shown: str) -> str:
    """The folder of the one card, with a slash at its end; empty at the root."""
    cards = [name for name in names if name.rpartition("/")[2] == CARD]
    if len(cards) != 1:
        raise InputError(f"{shown} holds {len(cards)} files {CARD}, a bundle has one: zip the folder of one bundle")
    return cards[0].removesuffix(CARD)

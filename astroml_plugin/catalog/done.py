"""Units that a run finds done: their parts are read before they are relied on, and damaged ones are done again.

Local parts are read whole, and their pages compared with their checksums. On an object store, which has checksums of
its own, the size of a part is compared with the manifest. A part that is not right is moved into the folder `damaged`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pyarrow as pa

from astroml_plugin.catalog import manifest, parts
from astroml_plugin.catalog.beside import set_aside
from astroml_plugin.catalog.parts import MergedFile, PartInfo
from astroml_plugin.catalog.store import Catalog
from astroml_plugin.catalog.whole_files import read_whole
from astroml_plugin.core import storage
from astroml_plugin.core.errors import AstromlError

_READERS = 4
"""Parts read at once."""

_AHEAD = 64
"""Units that are looked at before they are asked for."""


class Named(Protocol):
    """A unit of work."""

    @property
    def name(self) -> str:
        """Name of the unit."""

    @property
    def digest(self) -> str:
        """Hex digest of all that decides its rows."""


UnitT = TypeVar("UnitT", bound=Named)


def part_of(catalog: Catalog, unit: Named) -> PartInfo | None:
    """Manifest row of the part that holds a unit's rows, from its footer; None where there is none that can be read."""
    try:
        return parts.read_part_info(catalog.url, parts.part_path(unit.name, unit.digest))
    except (AstromlError, OSError, pa.ArrowException):
        return None


@dataclass
class DoneUnits:
    """The units of a catalog that hold rows, as files say by their names and footers."""

    catalog: Catalog
    damaged: list[str] = field(default_factory=list)
    """Files that could not be read and were moved away, relative to the catalog."""
    _places: dict[tuple[str, str], str] = field(default_factory=dict)
    _digests: dict[str, set[str]] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _merged: dict[str, Future[bool]] = field(default_factory=dict)

    @classmethod
    def of(cls, catalog: Catalog) -> DoneUnits:
        """Look at a catalog: one listing, and the footers of its merged files."""
        done = cls(catalog)
        names = storage.list_files(storage.join(catalog.url, parts.PARTS), ".parquet")
        paths = [f"{parts.PARTS}/{name}" for name in names]
        merged = [file for file in map(done._footer, filter(parts.is_merged, paths)) if file is not None]
        done._places = manifest.places_of(paths, merged)
        for unit, digest in done._places:
            done._digests.setdefault(unit, set()).add(digest)
        if not storage.is_local(catalog.url):
            known = catalog.entries().select(["path", "bytes"]).to_pydict()
            done._sizes = dict(zip(known["path"], known["bytes"]))
        return done

    def _footer(self, path: str) -> MergedFile | None:
        try:
            return parts.read_merged(self.catalog.url, path)
        except (AstromlError, OSError, pa.ArrowException):
            self._set_aside(path)
            return None

    def _set_aside(self, path: str) -> None:
        set_aside(self.catalog.url, path)
        self.damaged.append(path)

    def others(self, unit: Named) -> bool:
        """Whether parts hold rows of the unit that something else decided."""
        return bool(self._digests.get(unit.name, set()) - {unit.digest})

    def looked_at(self, units: Iterable[UnitT]) -> Iterator[tuple[UnitT, bool]]:
        """Units in order, each with whether a part holds its rows and can be read."""
        with ThreadPoolExecutor(_READERS, "done") as pool:
            waiting: deque[tuple[UnitT, Future[bool] | None]] = deque()
            for unit in units:
                path = self._places.get((unit.name, unit.digest))
                waiting.append((unit, None if path is None else self._asked(pool, path)))
                if len(waiting) > _AHEAD or waiting[0][1] is None:
                    yield self._answer(*waiting.popleft())
            while waiting:
                yield self._answer(*waiting.popleft())

    def _asked(self, pool: ThreadPoolExecutor, path: str) -> Future[bool]:
        if not parts.is_merged(path):
            return pool.submit(self._is_right, path)
        if path not in self._merged:
            self._merged[path] = pool.submit(self._is_right, path)
        return self._merged[path]

    def _answer(self, unit: UnitT, asked: Future[bool] | None) -> tuple[UnitT, bool]:
        if asked is None:
            return unit, False
        path = self._places[unit.name, unit.digest]
        right = asked.result()
        if not right and path not in self.damaged:
            self._set_aside(path)
        return unit, right

    def _is_right(self, path: str) -> bool:
        url = storage.join(self.catalog.url, path)
        try:
            if not storage.is_local(self.catalog.url):
                return parts.is_merged(path) or parts.size_of(url) == self._sizes.get(path, parts.size_of(url))
            read_whole(self.catalog.url, path, self.catalog.schema)
            return True
        except FileNotFoundError:  # another run has merged or replaced it meanwhile
            return True
        except (AstromlError, OSError, pa.ArrowException, ValueError, TypeError, KeyError):
            return False

"""A store of units on disk: one Zarr v3 group whose arrays have one shard per unit, beside a folder of tables."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import zarr

from astroml_plugin.core import storage
from astroml_plugin.core.description import Description, and_more_of
from astroml_plugin.core.errors import InputError
from astroml_plugin.core.places import Place
from astroml_plugin.sources import arrays
from astroml_plugin.sources.arrays import ArrayLayout

VIEW = "view"
"""Kind of a folder that names stamps of a survey and holds no pixel, see `cutting.view`."""

_NAMES = {"survey": "a survey", VIEW: "a view of labelled objects"}
"""Kinds as a sentence names them."""


class Store:
    """Arrays and metadata that a Survey and Stamps have in common."""

    kind: ClassVar[str]
    """"survey" or "stamps"."""
    tables: ClassVar[str]
    """Folder of its Parquet tables."""
    unit_rows: int
    """Rows of the first axis that one unit takes."""

    def __init__(self, url: str, metadata: dict[str, Any]) -> None:
        self.url = url
        self.id: str = metadata["id"]
        self.bands: tuple[str, ...] = tuple(metadata["bands"])
        self.array_names: tuple[str, ...] = tuple(metadata["arrays"])
        self.codec: str = metadata.get("codec", arrays.CODECS[0])
        """How its chunks are compressed, but for those of masks: one of `arrays.CODECS`."""
        self._opened: dict[tuple[str, bool], zarr.Array[Any]] = {}

    @classmethod
    def _create(cls, url: Place, layouts: Mapping[str, ArrayLayout], metadata: Mapping[str, Any], codec: str) -> Self:
        """An empty store with these arrays, their chunks compressed by `codec`; masks by zstd, as most bits are 0.

        Raises:
            InputError: bands that are not different names, an unknown codec, a place that is taken or cannot be
                written.
        """
        bands = metadata["bands"]
        if codec not in arrays.CODECS:
            raise InputError(f"codec {codec!r} is none of {', '.join(arrays.CODECS)}")
        if len(set(bands)) != len(bands) or not bands:
            raise InputError(f"bands {list(bands)} must be different names, at least one")
        url = storage.absolute(url)
        storage.refuse_web(url)
        if storage.exists(storage.join(url, "zarr.json")):
            raise InputError(f"{storage.redact(url)} exists already: open it, or choose another output")
        try:
            for name, layout in layouts.items():
                arrays.create_array(url, name, layout if name == "mask" else replace(layout, codec=codec))
        except OSError as error:
            raise InputError(f"{storage.redact(url)} cannot be written: {storage.redact(str(error))}") from error
        common = {"kind": cls.kind, "id": uuid.uuid4().hex, "arrays": list(layouts)}
        told = {} if codec == arrays.CODECS[0] else {"codec": codec}
        arrays.create_group(url, {**common, **metadata, **told}, folders=[cls.tables])
        return cls.open(url)

    @classmethod
    def open(cls, url: Place) -> Self:
        """An existing store; InputError when there is none of this kind or its format is newer."""
        url = storage.absolute(url)
        metadata = arrays.read_metadata(url)
        kind = str(metadata.get("kind"))
        if kind != cls.kind:
            shown, wanted = _NAMES.get(kind, kind), _NAMES.get(cls.kind, cls.kind)
            raise InputError(f"{storage.redact(url)} holds {shown}, not {wanted}")
        try:
            _check_kinds(metadata)
            return cls(url, metadata)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise storage.damaged(storage.join(url, "zarr.json"), f"{type(error).__name__}: {error}") from error

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"{type(self).__name__} {storage.redact(self.url)}: {told}"

    def _repr_html_(self) -> str:
        return Description(storage.redact(self.url), self.kind, self._facts())._repr_html_()

    def _facts(self) -> dict[str, str]:
        """Name -> value of what people want to know first; no pixels are read."""
        return {"bands": and_more_of(self.bands), "arrays": ", ".join(self.array_names)}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self.url,)

    def refuse_other_codec(self, codec: str | None) -> None:
        """InputError where a codec is asked for that is not the store's."""
        if codec not in (None, self.codec):
            raise InputError(
                f"{storage.redact(self.url)} is compressed by {self.codec}, not {codec}: leave --codec away, or choose "
                f"another output"
            )

    def array(self, name: str, *, writable: bool = False) -> zarr.Array[Any]:
        """The zarr array `name`, opened once per object."""
        key = (name, writable)
        if key not in self._opened:
            self._opened[key] = arrays.open_array(self.url, name, read_only=not writable)
        return self._opened[key]

    def reserve(self, units: int) -> int:
        """Make room for units and give the index of the first (driver only; indices are never used twice)."""
        self._opened.clear()
        opened = [self.array(name, writable=True) for name in self.array_names]
        first = max(array.shape[0] for array in opened) // self.unit_rows
        for array in opened:
            array.resize(((first + units) * self.unit_rows, *array.shape[1:]))
        self._opened.clear()
        return first


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _wholes(value: Any) -> bool:
    return isinstance(value, list) and all(map(_whole, value))


_KINDS: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: isinstance(value, str) and bool(value),
    "bands": lambda value: _names(value) and bool(value),
    "arrays": lambda value: _names(value) and "image" in value,
    "size": lambda value: _wholes(value) and len(value) == 2,
    "dtype": lambda value: isinstance(value, str),
    "block": _whole,
    "pixel_scale": lambda value: value is None or (isinstance(value, int | float) and value > 0),
    "layers": _names,
    "codec": lambda value: isinstance(value, str),
    "tile_size": _whole,
    "halo": lambda value: _whole(value, 0),
    "psf_shape": lambda value: value is None or _wholes(value),
    "spectral": lambda value: isinstance(value, dict),
    "mask_bits": lambda value: isinstance(value, dict) and all(isinstance(bit, int) for bit in value.values()),
}
"""Field of a store's metadata -> whether a value can be right."""


def _check_kinds(metadata: Mapping[str, Any]) -> None:
    wrong = [name for name, right in _KINDS.items() if name in metadata and not right(metadata[name])]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} cannot be right")

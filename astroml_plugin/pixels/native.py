"""Stamps prepared by compiled code (native.c), which is there where a C compiler was when the package was installed.

Every function here does what torch code elsewhere does as well, to float32 rounding, at a fraction of its time; it is
called where `usable()` says so, and the torch code is the reference and does the work elsewhere. The GIL is released.
Arrays are (n, band, y, x) on the CPU, float32 but where said otherwise; views need not be contiguous.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astroml_plugin.core.flags import MaskBit
from astroml_plugin.core.tracing import is_traced
from astroml_plugin.pixels.faults import BAD

Array = np.ndarray[Any, Any]

NATIVE, TORCH = "native", "torch"
"""Names of the two ways, as in the record of a run."""

VARIABLE = "ASTROML_NATIVE"
"""Environment variable: 0 leaves the compiled code alone."""

SOURCE = Path(__file__).with_name("native.c")


class Planes(ctypes.Structure):
    """An array (n, band, y, x) as the library takes it; strides in elements."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("stamp", ctypes.c_int64),
        ("band", ctypes.c_int64),
        ("row", ctypes.c_int64),
    ]


class Shape(ctypes.Structure):
    """Shape of an array as the library takes it."""

    _fields_ = [(name, ctypes.c_int64) for name in ("stamps", "bands", "height", "width")]


_FILLING = (
    *("astroml_normalise", "astroml_border", "astroml_weights", "astroml_light", "astroml_plane", "astroml_structure"),
    *("astroml_statistics", "astroml_unmasked", "astroml_all_usable"),
)
"""Functions that answer 1, or 0: of the last two, that a pixel may not be usable; of the others, that memory lacks."""


class _State:
    """The library of this process."""

    library: ctypes.CDLL | None = None
    on = os.environ.get(VARIABLE, "1") != "0"


def digest() -> str:
    """Sixteen hex digits of the source that the library must be compiled from; empty where the source is not there."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16] if SOURCE.exists() else ""


def load(path: Path) -> bool:
    """Use a library from now on; False where it cannot be loaded here or was compiled from another source."""
    try:
        library = ctypes.CDLL(str(path))
        library.astroml_source.restype = ctypes.c_char_p
        told = library.astroml_source().decode()
    except (OSError, AttributeError):
        return False
    if told != digest():
        return False
    for name in _FILLING:
        getattr(library, name).restype = ctypes.c_int
    _State.library = library
    return True


def usable() -> bool:
    """Whether the compiled code is there and switched on."""
    return _State.on and _State.library is not None


def takes(*tensors: Tensor | None) -> bool:
    """Whether the compiled code does the work on these: float32, uint8 or bool on a CPU, and no gradient is wanted."""
    return (
        usable()
        and not is_traced()
        and all(
            tensor is None or (tensor.device.type == "cpu" and tensor.dtype in _TYPES and not tensor.requires_grad)
            for tensor in tensors
        )
    )


_TYPES = (torch.float32, torch.uint8, torch.bool)


def way() -> str:
    """`NATIVE` or `TORCH`: what prepares the stamps in this process, on a CPU."""
    return NATIVE if usable() else TORCH


@contextmanager
def switched(on: bool) -> Iterator[None]:
    """Within the block the compiled code is used (where it is there) or not, in all threads: for comparisons."""
    before, _State.on = _State.on, on
    try:
        yield
    finally:
        _State.on = before


# ---- arrays ------------------------------------------------------------------------------------------------------


def planes(array: Array | None, dtype: type[np.generic]) -> tuple[Planes, Array | None]:
    """An array as the library takes it, and what must live as long; copied only where its rows are not dense."""
    if array is None:
        return Planes(None, 0, 0, 0), None
    if array.dtype != dtype or array.ndim != 4:
        raise TypeError(f"{array.dtype} of {array.ndim} axes where {np.dtype(dtype)} of 4 is expected")
    if array.strides[3] != array.itemsize or any(step % array.itemsize for step in array.strides):
        array = np.ascontiguousarray(array)
    stamp, band, row = (step // array.itemsize for step in array.strides[:3])
    return Planes(address(array), stamp, band, row), array


def address(array: Array) -> int:
    """Address at which an array begins: a quarter of the time of `array.ctypes.data`."""
    return int(array.__array_interface__["data"][0])


def _pixels(image: Array) -> tuple[Planes, Array | None, int]:
    """`_planes` of float32 or uint8 pixels, and whether they are the first."""
    wide = image.dtype != np.uint8
    return *planes(image, np.float32 if wide else np.uint8), int(wide)


def valid_planes(valid: Array | None) -> tuple[Planes, Array | None]:
    """`planes` of what is valid (bool); None: all is."""
    return planes(None if valid is None else valid.view(np.uint8), np.uint8)


def call(name: str, *arguments: Any) -> int:
    """Call a function of the library; arrays go as their addresses, which the arguments keep alive."""
    given = [ctypes.c_void_p(address(item)) if isinstance(item, np.ndarray) else item for item in arguments]
    answer = getattr(_State.library, name)(*given)
    if name in _FILLING[:-2] and not answer:
        raise MemoryError("no memory for one stamp")
    return int(answer or 0)


def same_shape(image: Array, *others: Array | None) -> None:
    """Raise ValueError where arrays differ in shape: the library would read beyond them."""
    for other in others:
        if other is not None and other.shape != image.shape:
            raise ValueError(f"arrays of shapes {image.shape} and {other.shape} where one is expected")


# ---- what stamps need --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaling:
    """How `normalise` scales, as `tasks.normalisation.Normalisation` says it."""

    border: int
    """Width in pixels of the border."""
    subtract: bool
    """Whether the median of the border is subtracted."""
    scales: tuple[float, ...] | None
    """Fixed pixel value per band that becomes 1; None: the noise."""
    softening: float
    """Scaled value at which the asinh stretch turns over; 0: linear."""


def normalise(
    image: Array, variance: Array | None, valid: Array | None, scaling: Scaling
) -> tuple[Array, Array, Array]:
    """Scaled pixels, 0 where not valid; (n, band) bool of bands that are missing; (n,) bool of stamps without a pixel.

    Args:
        image: float32 or uint8.
        variance: where the noise is asked for and known.
        valid: bool; None: all pixels are.
        scaling: what to do.

    Raises:
        ValueError: shapes that differ.
    """
    same_shape(image, variance, valid)
    count, bands = image.shape[:2]
    if scaling.scales is not None and len(scaling.scales) != bands:
        raise ValueError(f"{len(scaling.scales)} scales for {bands} bands")
    out = np.empty(image.shape, np.float32)
    missing, empty = np.empty((count, bands), bool), np.empty(count, bool)
    pixels, own, wide = _pixels(image)
    spread, known = planes(variance, np.float32)
    mask, marks = valid_planes(valid)
    scales = None if scaling.scales is None else np.array(scaling.scales, np.float32)
    call(
        "astroml_normalise",
        *(ctypes.byref(pixels), wide, ctypes.byref(spread), ctypes.byref(mask), ctypes.byref(Shape(*image.shape))),
        *(ctypes.c_int64(scaling.border), int(scaling.subtract), scales, ctypes.c_float(scaling.softening)),
        *(out, missing, empty),
    )
    del own, known, marks
    return out, missing, empty


def border_statistics(
    image: Array, valid: Array | None, border: int, *, width: bool = False
) -> tuple[Array, Array | None]:
    """(n, band) median of the border's pixels and, where asked for, their Gaussian width.

    Raises:
        ValueError: shapes that differ.
    """
    same_shape(image, valid)
    level = np.empty(image.shape[:2], np.float32)
    spread = np.empty(image.shape[:2], np.float32) if width else None
    pixels, own, wide = _pixels(image)
    mask, marks = valid_planes(valid)
    shape = ctypes.byref(Shape(*image.shape))
    call(
        "astroml_border",
        *(ctypes.byref(pixels), wide, ctypes.byref(mask), shape, ctypes.c_int64(border), level, spread),
    )
    del own, marks
    return level, spread


def sky_weights(variance: Array, valid: Array | None, border: int) -> Array:
    """The median variance of the border over that of each pixel, 2 at most; 0 where not valid.

    Raises:
        ValueError: shapes that differ.
    """
    same_shape(variance, valid)
    out = np.empty(variance.shape, np.float32)
    spread, own = planes(variance, np.float32)
    mask, marks = valid_planes(valid)
    shape = ctypes.byref(Shape(*variance.shape))
    call("astroml_weights", ctypes.byref(spread), ctypes.byref(mask), shape, ctypes.c_int64(border), out)
    del own, marks
    return out


def all_usable(image: Array, variance: Array | None) -> bool:
    """Whether all pixels, contiguous arrays of any shape, are finite and their variance is finite and above 0."""
    if not image.flags.c_contiguous or not (variance is None or variance.flags.c_contiguous):
        raise ValueError("only contiguous arrays are looked at here")
    same_shape(image, variance)
    known = image if image.dtype == np.float32 else None
    return bool(call("astroml_all_usable", known, variance, ctypes.c_int64(image.size)))


def faults(
    image: Array, variance: Array | None, mask: Array | None, before: Array | None = None, *, look: bool = True
) -> tuple[Array, Array | None, Array] | None:
    """Pixels and variance, 0 where they cannot be used, and the bits that say why; None where all can be used.

    Args:
        image: float32 or uint8, of any shape.
        variance: float32.
        mask: `MaskBit` as uint32.
        before: bits that the pixels have already, uint8; None: none.
        look: at values and variance; else the mask alone adds to the bits.

    Raises:
        ValueError: shapes that differ.
    """
    same_shape(image, variance, mask, before)
    image, variance = np.ascontiguousarray(image), None if variance is None else np.ascontiguousarray(variance)
    mask, before = (None if item is None else np.ascontiguousarray(item) for item in (mask, before))
    count = ctypes.c_int64(image.size)
    fine = mask is None or bool(call("astroml_unmasked", mask, count, _MASK_BITS))
    if fine and before is None and (not look or all_usable(image, variance)):
        return None
    bits, pixels = np.empty(image.shape, np.uint8), np.empty_like(image)
    spread = None if variance is None else np.empty_like(variance)
    wide = int(image.dtype == np.float32)
    call("astroml_faults", image, wide, variance, mask, count, _MASK_BITS, before, int(look), bits, pixels, spread)
    return pixels, spread, bits


_MASK_BITS = np.array([BAD, int(MaskBit.SATURATED), int(MaskBit.NO_DATA)], np.uint32)


def equal_neighbours(image: Array, rows: tuple[int, int, int], columns: tuple[int, int]) -> Array:
    """(n, band) int64: pixels equal to the next in their row, of rows (first, end, step) and columns (first, end)."""
    out = np.empty(image.shape[:2], np.int64)
    pixels, own = planes(image, np.float32)
    places = np.array(rows, np.int64), np.array(columns, np.int64)
    call("astroml_neighbours", ctypes.byref(pixels), ctypes.byref(Shape(*image.shape)), *places, out)
    del own
    return out


def seen(valid: Array, weight: Array) -> Array:
    """(n, band) sums of a weight (y * x,) over valid pixels (bool)."""
    out = np.empty(valid.shape[:2], np.float32)
    mask, marks = valid_planes(valid)
    call("astroml_seen", ctypes.byref(mask), ctypes.byref(Shape(*valid.shape)), np.ascontiguousarray(weight), out)
    del marks
    return out


for _found in sorted(Path(__file__).parent.glob("_native*.so")):
    if load(_found):
        break

"""Object ids of any kind as 64-bit integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from astroml_plugin.core.errors import InputError
from astroml_plugin.core.typing import I64

_INT64 = np.iinfo(np.int64)


def parse_ids(values: Any, where: str) -> I64:
    """Ids (n,) of any kind as int64, kept exactly; duplicates stay.

    Raises:
        InputError: text that is no whole number, or a number beyond int64.
    """
    raw = (
        values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array | pa.ChunkedArray) else np.asarray(values)
    )
    if raw.dtype.kind == "i":
        return raw.astype(np.int64)
    try:
        ids = [_parse_id(value) for value in raw.tolist()]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{where}: ids must be whole numbers within 64 bits ({error}): number the objects anew"
        ) from error
    return np.array(ids, np.int64)


def _parse_id(value: Any) -> int:
    if isinstance(value, bytes):
        value = value.decode("ascii")
    if isinstance(value, float) and (not value.is_integer() or abs(value) > 2**53):
        raise ValueError(f"{value!r} is no exact whole number")
    number = int(value.strip()) if isinstance(value, str) else int(value)
    if not _INT64.min <= number <= _INT64.max:
        raise ValueError(f"{value!r} is beyond int64")
    return number

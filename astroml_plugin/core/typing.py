"""Array types, one name each: the letter says the kind of number, the digits say its bits."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
C64 = NDArray[np.complex64]
C128 = NDArray[np.complex128]
Bool = NDArray[np.bool_]
Array = NDArray[Any]
"""An array of any kind of number."""
Arcsec = Annotated[float, "arcsec"]
"""An angle in arcsec; settings of this type take angles and quantities of astropy too."""
Columns = dict[str, Array]
"""Column name -> values (n,), or (n, k) for vectors."""

"""The kinds of array that allocation reckons with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.floating[Any]]
"""In single precision: half as long to reckon with. Why not float32 by name: type checkers lose it on the way."""

"""Names of the array types that signatures use."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""An array of any type; the docstring says which."""

Mask: TypeAlias = NDArray[np.bool_]
"""An array of truth values."""

Box: TypeAlias = tuple[slice, slice]
"""Rows and columns of a part of a frame."""

"""Where the star is, how that is known, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PARAMETER, HEADER, MEASURED, CRPIX = "parameter", "header", "measured", "crpix"
ACQUIRED, COMBINED = "acquisition", "measured and acquisition"

UNKNOWN_ERROR_PIX = 0.5
"""Error that is stated for a position that was taken over unchecked [pixel]."""


@dataclass(frozen=True)
class StarPosition:
    """Position of the star on the detector.

    Attributes
    ----------
    x, y : float
        Position [pixel, 0-based].
    x_err, y_err : float
        1-sigma error [pixel].
    origin : {"parameter", "header", "measured", "measured and acquisition", "acquisition", "crpix"}
        Where it comes from.

    Examples
    --------
    >>> star = StarPosition(x=160.2, y=158.9, x_err=0.1, y_err=0.1, origin="parameter")
    >>> star.yx
    (158.9, 160.2)
    """

    x: float
    y: float
    x_err: float = UNKNOWN_ERROR_PIX
    y_err: float = UNKNOWN_ERROR_PIX
    origin: str = CRPIX

    @property
    def yx(self) -> tuple[float, float]:
        """Position as ``(y, x)``."""
        return (self.y, self.x)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return asdict(self)


def recorded_star(values: dict[str, Any] | None, /) -> StarPosition | None:
    """Return the star that a product records; `ValueError` or `TypeError` where it is none."""
    if not values:
        return None
    x, y, x_err, y_err = (float(values[name]) for name in ("x", "y", "x_err", "y_err"))
    if not np.isfinite([x, y]).all():
        raise ValueError("the star is nowhere")
    return StarPosition(x, y, x_err, y_err, str(values["origin"]))


def combined_err(stars: Sequence[StarPosition], /) -> float:
    """Error along one axis of the star of several exposures together [pixel].

    Nothing averages down: what moves the measured star is the same in all exposures of a mode.
    """
    return float(np.sqrt(np.mean([0.5 * (star.x_err**2 + star.y_err**2) for star in stars])))

"""How much of a source a coronagraph lets through, anywhere on the frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.spline import along_pieces, cubic_pieces
from lyot.compute.cache import remembered
from lyot.compute.threads import map_ordered
from lyot.instruments.coronagraphs import FourQuadrantMask, LyotSpot, RoundMask
from lyot.instruments.offaxis import Optics
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.types import Array

_RADII = np.arange(0.0, 18.1, 0.75)
_ANGLES_DEG = (15.0, 45.0, 75.0)
"""Where the transmission of a round mask is computed [lambda/D], which is that of a quarter."""

_BESIDE = np.concatenate(
    [np.arange(0.0, 0.7, 0.15), np.arange(0.8, 3.1, 0.25), [3.5, 4.0, 5.0, 7.0, 10.0, 15.0, 25.0]]
)
"""Distances along each axis of a phase mask or spot where it is computed [lambda/D]."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Transmission:
    """The transmission of a coronagraph, from a map or by its optics.

    Attributes
    ----------
    optics : Optics
        The coronagraph with its stop, filter and pixels.
    origin : str
        Where it comes from, in words.
    mask_xy_arcsec : tuple of float
        Where along the mask's axes the reference point of the aperture lies [arcsec]: where stars
        are put.
    image : ndarray, shape (n_y, n_x), or None
        A map on the pixels of the frames; None for the optics.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> transmission = Transmission(optics=NIRCAM.optics("MASK335R", "F444W"), origin="the optics")
    >>> through = transmission.at(50.0, np.array([50.0, 60.0, 90.0]), mask_yx=(50.0, 50.0))
    >>> [round(float(t), 2) for t in through]
    [0.0, 0.47, 0.99]
    """

    optics: Optics
    origin: str
    mask_xy_arcsec: tuple[float, float] = (0.0, 0.0)
    image: NDArray[np.float64] | None = field(default=None, repr=False)

    def along_mask(
        self, y: Array | float, x: Array | float, /, *, mask_yx: tuple[float, float]
    ) -> tuple[Array, Array]:
        """Return where positions on a frame lie from the middle of the mask, along its axes.

        `mask_yx` is the reference point of the aperture on that frame [pixel].
        """
        x_scale, y_scale = self.optics.detector.pixel_scale_arcsec
        along, across = self.optics.mask.along_axes(
            (np.asarray(x) - mask_yx[1]) * x_scale, (np.asarray(y) - mask_yx[0]) * y_scale
        )
        return along + self.mask_xy_arcsec[0], across + self.mask_xy_arcsec[1]

    def at(
        self, y: Array | float, x: Array | float, /, *, mask_yx: tuple[float, float]
    ) -> NDArray[np.float64]:
        """Return the transmission, 0 to 1, at positions on a frame [pixel, 0-based].

        `mask_yx` is where the mask's place for stars lies on that frame [pixel]. 0 where a map
        holds NaN.
        """
        y, x = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
        if self.image is not None:
            from scipy.ndimage import map_coordinates

            positions = np.stack([y.ravel(), x.ravel()])
            values = map_coordinates(self.image, positions, order=1, mode="nearest")
            return np.clip(np.nan_to_num(values), 0.0, 1.0).reshape(y.shape)
        return self.behind(*self.along_mask(y, x, mask_yx=mask_yx))

    def behind(self, along: Array, across: Array, /) -> NDArray[np.float64]:
        """Return the transmission of the optics at places along the mask's axes [arcsec]."""
        mask = self.optics.mask
        if isinstance(mask, FourQuadrantMask | LyotSpot):
            nodes, values = self._table
            return _bilinear(nodes, values, np.abs(along), np.abs(across))
        # What a mask that is limited in its spatial frequencies does behind its stop: a factor on
        # the amplitude, but for the stop's own sharp edges. Along bars that is good to 0.005.
        factor = mask.amplitude(along, across) ** 2
        if isinstance(mask, RoundMask):
            nodes, _ = self._table
            distance = np.minimum(np.hypot(along, across), nodes[-1])
            factor = factor + along_pieces(distance, nodes, self._pieces)
        return np.clip(factor, 0.0, 1.0)

    @cached_property
    def _pieces(self) -> Array:
        return cubic_pieces(*self._table)

    @cached_property
    def _table(self) -> tuple[Array, Array]:
        """Distances [arcsec], and the transmission there, or what corrects the factor's square."""
        optics = self.optics
        unit = float(optics.band.wavelengths_m.mean()) / optics.pupil.diameter_m * ARCSEC_PER_RADIAN
        of_round = isinstance(optics.mask, RoundMask)
        nodes = (_RADII if of_round else _BESIDE) * unit

        def _compute() -> dict[str, Array]:
            if of_round:
                directions = [(np.cos(t), np.sin(t)) for t in np.radians(_ANGLES_DEG)]
                places = [(r * x, r * y) for r in nodes for x, y in directions]
            else:
                # The pupil is the same from both sides, and real: so are all quarters.
                places = [(x, y) for y in nodes for x in nodes]
            values = np.array(map_ordered(optics.exact_transmission, places))
            return {"values": values.reshape(len(nodes), -1)}

        group = f"transmission-{optics.checksum}" if optics.checksum else ""
        values = remembered(group, "table", _compute)["values"]
        if of_round:
            values = values.mean(axis=1) - optics.mask.amplitude(nodes, np.zeros_like(nodes)) ** 2
            values[-1] = 0.0
        return nodes, values


def _bilinear(nodes: Array, values: Array, x: Array, y: Array) -> NDArray[np.float64]:
    """Read a table of two distances between its nodes; the last value beyond them."""
    last = len(nodes) - 2
    low, part = [], []
    for distance in np.broadcast_arrays(x, y):
        i = np.clip(np.searchsorted(nodes, distance) - 1, 0, last)
        low.append(i)
        part.append(np.clip((distance - nodes[i]) / (nodes[i + 1] - nodes[i]), 0.0, 1.0))
    (i, j), (u, v) = low, part
    lower = (1.0 - u) * values[j, i] + u * values[j, i + 1]
    upper = (1.0 - u) * values[j + 1, i] + u * values[j + 1, i + 1]
    return np.asarray((1.0 - v) * lower + v * upper)

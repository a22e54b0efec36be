"""How much of a source a coronagraph lets through, anywhere on the frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lyot.instruments.coronagraphs import Coronagraph
from lyot.types import Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Transmission:
    """The transmission of a coronagraph, from a map or from its model.

    Attributes
    ----------
    coronagraph : Coronagraph
        The coronagraph, for the model.
    lambda_over_d_arcsec, pixel_scale_arcsec : float
        Wavelength over telescope diameter, and pixel scale [arcsec].
    origin : str
        Where it comes from, in words.
    image : ndarray, shape (n_y, n_x), or None
        A map on the pixels of the frames; None for the model.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> transmission = Transmission(
    ...     coronagraph=NIRCAM.coronagraph("MASK335R"),
    ...     lambda_over_d_arcsec=0.14,
    ...     pixel_scale_arcsec=0.063,
    ...     origin="the model",
    ... )
    >>> through = transmission.at(50.0, np.array([50.0, 60.0, 90.0]), star_yx=(50.0, 50.0))
    >>> [round(float(t), 2) for t in through]
    [0.0, 0.49, 0.99]
    """

    coronagraph: Coronagraph
    lambda_over_d_arcsec: float
    pixel_scale_arcsec: float
    origin: str
    image: NDArray[np.float64] | None = None

    def at(
        self, y: Array | float, x: Array | float, /, *, star_yx: tuple[float, float]
    ) -> NDArray[np.float64]:
        """Return the transmission at positions on a frame.

        Parameters
        ----------
        y, x : ndarray or float
            Positions [pixel, 0-based].
        star_yx : tuple of float
            The star on that frame, taken to be where stars are put behind the mask [pixel].

        Returns
        -------
        ndarray
            From 0 to 1; 0 where a map holds NaN.
        """
        y, x = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
        if self.image is not None:
            from scipy.ndimage import map_coordinates

            positions = np.stack([y.ravel(), x.ravel()])
            values = map_coordinates(self.image, positions, order=1, mode="nearest")
            return np.clip(np.nan_to_num(values), 0.0, 1.0).reshape(y.shape)
        scale, width = self.pixel_scale_arcsec, self.lambda_over_d_arcsec
        return self.coronagraph.transmission(
            (x - star_yx[1]) * scale + self.coronagraph.star_x_arcsec(width),
            (y - star_yx[0]) * scale,
            lambda_over_d_arcsec=width,
        )

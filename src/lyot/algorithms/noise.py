"""Noise in annuli."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import radius_map


class NoiseCurve(NamedTuple):
    """Scatter of the pixels against separation.

    Attributes
    ----------
    radius_pix : ndarray, shape (n,)
        Mid-radius of each annulus [pixel].
    sigma : ndarray, shape (n,)
        Standard deviation of the finite pixels of the annulus; NaN where there are none.
    n_pix : ndarray of int, shape (n,)
        Number of finite pixels.
    """

    radius_pix: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n_pix: NDArray[np.int64]


def annulus_noise(
    image: NDArray[np.floating], centre_yx: tuple[float, float], /, *, width: float = 2.0
) -> NoiseCurve:
    """Measure the 1-sigma scatter in concentric annuli of whole pixels.

    Parameters
    ----------
    image : ndarray, shape (n_y, n_x)
        Image; NaN is left out.
    centre_yx : tuple of float
        Centre of the annuli [pixel, 0-based].
    width : float, optional
        Width of each annulus [pixel].

    Returns
    -------
    NoiseCurve
        From the centre out to the nearest edge. A pixel belongs to the annulus that its centre
        lies in; pixels are not divided.
    """
    n_y, n_x = image.shape
    reach = min(centre_yx[0], centre_yx[1], n_y - 1 - centre_yx[0], n_x - 1 - centre_yx[1])
    n = max(int(np.ceil(reach / width)), 0)
    label = np.floor(radius_map((n_y, n_x), centre_yx) / width).astype(np.int64)
    use = np.isfinite(image) & (label < n)
    label, value = label[use], np.asarray(image[use], dtype=np.float64)
    count = np.bincount(label, minlength=n)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(label, value, minlength=n) / count
        sigma = np.sqrt(np.bincount(label, (value - mean[label]) ** 2, minlength=n) / count)
    radius = (np.arange(n, dtype=np.float64) + 0.5) * width
    return NoiseCurve(np.asarray(radius, dtype=np.float64), sigma, count)

"""The optics of an exposure's mode: transmission of its mask, and the image of extended light."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.convolution import convolve
from lyot.algorithms.geometry import TangentPlane
from lyot.analysis.psf import best_psf
from lyot.errors import LyotError
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.instruments.coronagraphs import Coronagraph
from lyot.instruments.filters import RAYLEIGH_JEANS, Filter, Spectrum
from lyot.instruments.instrument import Instrument, mode_optics
from lyot.instruments.transmission import Transmission
from lyot.subtraction.disc import on_detector
from lyot.types import Array

log = logging.getLogger(__name__)

MIN_NEAR_SHARE = 0.01
"""Brightness over the peak below which light near the mask has the image beside it."""


def mode_of(info: ExposureInfo) -> tuple[Instrument, Coronagraph, Filter, float]:
    """What the optics of an exposure are made of."""
    instrument = info.instrument_value
    # Rounded, so that exposures whose pixel areas differ in the last digit share a model.
    scale = round(info.pixel_scale_arcsec, 6)
    return instrument, info.coronagraph_value, instrument.filter(info.filter), scale


def transmission_of(
    info: ExposureInfo,
    image: NDArray[np.floating] | None = None,
    spectrum: Spectrum = RAYLEIGH_JEANS,
    /,
) -> Transmission:
    """Take the user's map, else the model; 1 everywhere for a coronagraph without a model."""
    coronagraph, origin = info.coronagraph_value, "model of the package"
    if image is not None:
        origin = "map given by the user"
    elif not coronagraph.is_modeled:
        origin = "none: the coronagraph is unknown"
        log.warning("Coronagraph %r is unknown: its transmission is taken as 1.", info.coronagraph)
    return Transmission(
        optics=mode_optics(*mode_of(info), spectrum),
        mask_xy_arcsec=(info.star_along_mask_arcsec, 0.0),
        origin=origin,
        image=None if image is None else np.asarray(image, dtype=np.float64),
    )


def extended_image(
    sky: NDArray[np.floating],
    info: ExposureInfo,
    star: StarPosition,
    plane: TangentPlane,
    shape: tuple[int, int],
    /,
) -> Array:
    """Return what the detector sees of extended light, such as a model of a disc.

    The image of the sky, without the telescope, is put onto finer pixels of the detector,
    multiplied by the transmission of the mask there and convolved with the PSF; near the mask each
    pixel has the PSF of its own place, as the mask deforms it.

    Parameters
    ----------
    sky : ndarray, shape (n, n)
        Surface brightness with the pixel scale of the exposure, north up, the star on pixel
        ``(n // 2, n // 2)``.
    info : ExposureInfo
        Mode of the exposure.
    star : StarPosition
        Where the star is on its pixels.
    plane : TangentPlane
        The sky about the star.
    shape : tuple of int
        Of the frames.

    Returns
    -------
    ndarray, shape (n_y, n_x)
        Surface brightness on the pixels of the detector.

    Raises
    ------
    LyotError
        If the image holds no light on the frames.
    """
    psf, through = best_psf(*mode_of(info)), transmission_of(info)
    over, mask_yx = psf.oversample, info.mask_yx(star)
    fine = (np.arange(over) + 0.5) / over - 0.5
    rows, columns = (np.arange(n)[:, None] + fine for n in shape)
    y, x = np.meshgrid(rows.ravel(), columns.ravel(), indexing="ij")
    light = on_detector(sky, plane, info.pixel_scale_arcsec, (y, x))
    light *= through.at(y, x, mask_yx=mask_yx)
    if not np.any(light):
        raise LyotError("The model of the disc holds no light on the frames.")
    flux = _binned(light, over)
    seen = _binned(convolve(light, psf.data)[0], over)
    bright = np.argwhere(np.abs(flux) > MIN_NEAR_SHARE * np.abs(flux).max())

    beside, n = psf.stamp(0.0, 0.0), psf.half_pix
    padded = np.pad(seen, n)
    for row, column in bright:
        along, across = through.along_mask(float(row), float(column), mask_yx=mask_yx)
        there = psf.behind((float(along), float(across)))
        if there is not psf:
            box = padded[row : row + 2 * n + 1, column : column + 2 * n + 1]
            box += flux[row, column] * (there.stamp(0.0, 0.0) - beside)
    return padded[n:-n, n:-n]


def _binned(image: Array, over: int) -> Array:
    """Average the samples of each pixel."""
    n_y, n_x = image.shape
    return image.reshape(n_y // over, over, n_x // over, over).mean(axis=(1, 3))

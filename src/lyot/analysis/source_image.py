"""The image of one source at an offset from a star, with what it was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lyot.algorithms.geometry import TangentPlane
from lyot.analysis.mode import mode_of, transmission_of
from lyot.analysis.psf import stpsf_psf
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.astrometry import plane_of
from lyot.files.exposure import open_model
from lyot.files.headers import ExposureInfo, read_info
from lyot.instruments import instrument_named
from lyot.instruments.filters import RAYLEIGH_JEANS, Spectrum
from lyot.instruments.offaxis import Optics, PsfAndTransmission
from lyot.references.star import guess_star
from lyot.types import Array

MAX_SAMPLES = 4095
"""Largest width of an image [sample]."""


class SourceImage(NamedTuple):
    """The image of a source, and what it was made of.

    Attributes
    ----------
    psf : PsfAndTransmission
        Image, transmission and share of the flux on the image.
    keywords : dict
        What the header of a file says of it: values, or values with their comments.

    Examples
    --------
    >>> made = source_image(named_mode("MIRI", "F1140C", "4QPM_1140"), (1.5, 1.5), pixels=33)
    >>> made.keywords["CORONMSK"], made.keywords["OVERSAMP"][0]
    ('4QPM_1140', 1)
    """

    psf: PsfAndTransmission
    keywords: dict[str, Any]


def named_mode(instrument: str, filter: str, mask: str, /) -> ExposureInfo:
    """Return what an exposure of a mode would say of itself, its star where stars are put.

    Parameters
    ----------
    instrument, filter, mask : str
        Names as in headers, for example NIRCAM, F360M and MASKA335R.

    Returns
    -------
    ExposureInfo
        Of a frame of one pixel, the star on it.

    Raises
    ------
    LyotError
        If one of them is missing or unknown; the sentence lists the known ones.

    Examples
    --------
    >>> named_mode("MIRI", "F1140C", "4QPM_1140").pixel_scale_arcsec
    0.111
    """
    for name, value in (("instrument", instrument), ("filter", filter), ("mask", mask)):
        if not value:
            raise LyotError(
                f"The {name} is missing; give an exposure, or instrument, filter and mask.",
                parameter=name,
            )
    camera = instrument_named(instrument.upper())
    return ExposureInfo(
        "",
        (1, 1),
        instrument=camera.name,
        filter=camera.filter(filter).name,
        coronagraph=mask.upper(),
        crpix_xy=(0.0, 0.0),
    )


def exposure_mode(path: str | Path, /) -> tuple[ExposureInfo, TangentPlane]:
    """Read the mode of an exposure, and the sky about its star by its gWCS."""
    info = read_info(path)
    with open_model(path) as model:
        return info, plane_of(model, guess_star(info, None))


@threads.calculation
def source_image(
    info: ExposureInfo,
    at_xy_arcsec: tuple[float, float],
    /,
    *,
    plane: TangentPlane | None = None,
    pixels: int = 65,
    oversample: int = 1,
    seed: int | None = None,
    spectrum: Spectrum = RAYLEIGH_JEANS,
) -> SourceImage:
    """Make the image of a source behind the mask, in the orientation of the detector.

    Parameters
    ----------
    info : ExposureInfo
        The mode, and where star and mask lie (`lyot.files.headers.read_info`, `named_mode`): the
        star by STARCENX/Y, else at the reference point of the aperture; the mask by MASKCENX/Y,
        else at that point.
    at_xy_arcsec : tuple of float
        Offset of the source from the star along the detector's x and y [arcsec].
    plane : TangentPlane, optional
        The sky about the star by the exposure's gWCS: y is then the direction of the columns on
        the sky, and x at right angles to it, though the pixels are skewed. By default they are
        not.
    pixels : int, optional
        Width of the image, centered on the source [detector pixel]; odd.
    oversample : int, optional
        Samples per pixel and axis; their sums over a pixel are what the detector sees.
    seed : int, optional
        Which draw of the wavefront errors; their mean by default.
    spectrum : Spectrum, optional
        Of the source; that of a hot star by default.

    Returns
    -------
    SourceImage
        The image, by ``stpsf`` where an analysis takes that, else by the model (PSFMODEL). It sums
        to the share of the whole PSF's flux that lies on it (STAMPFRC), without the transmission
        of the mask (TRANSMIS). And the keywords that describe it.

    Raises
    ------
    LyotError
        If the mode is unknown, the offset not finite, or the width even or too large.

    Examples
    --------
    >>> made = source_image(named_mode("NIRCAM", "F444W", "MASKA335R"), (1.0, 0.0))
    >>> made.psf.image.shape, round(made.psf.transmission, 2)
    ((65, 65), 0.96)
    """
    if not np.isfinite(at_xy_arcsec).all():
        raise LyotError(f"The offset is {at_xy_arcsec}; it must be finite.", parameter="at")
    if pixels < 1 or pixels % 2 == 0:
        raise LyotError(
            f"pixels is {pixels}; it must be odd, so that the source lies on the middle pixel.",
            parameter="pixels",
        )
    if oversample < 1 or pixels * oversample > MAX_SAMPLES:
        raise LyotError(
            f"oversample is {oversample}; it must be at least 1, and the image of {pixels} pixels "
            f"at most {MAX_SAMPLES} samples wide.",
            parameter="oversample",
        )
    camera = instrument_named(info.instrument)
    mask = camera.coronagraph(info.coronagraph)
    mode = replace(info, filter=camera.filter(info.filter).name)
    through = transmission_of(mode, None, spectrum)
    optics = through.optics.sampled_for(pixels)
    optics = optics if seed is None else replace(optics, seed=seed)
    star, scale = guess_star(info, None), optics.detector.pixel_scale_arcsec
    moved_yx = np.divide(at_xy_arcsec, scale)[::-1] if plane is None else _by(plane, *at_xy_arcsec)
    y, x = np.add(star.yx, moved_yx)
    along, across = through.along_mask(float(y), float(x), mask_yx=info.mask_yx(star))
    place = mask.along_detector(float(along), float(across))
    made = None
    if seed is None:
        made = stpsf_psf(*mode_of(mode), spectrum, pixels=pixels, oversample=oversample)
    if made is None:
        psf = optics.psf(place, n_pixels=pixels, oversample=oversample)
        made_of = _made_of(optics, pixels)
    else:
        psf = PsfAndTransmission(made.data, optics.transmission(place), float(made.data.sum()))
        made_of = {"PSFMODEL": made.origin}
    keywords = {
        "INSTRUME": camera.name,
        "FILTER": info.filter,
        "CORONMSK": mask.name,
        "SPECTRUM": spectrum.name,
        "OFFSETX": (float(at_xy_arcsec[0]), "[arcsec] source from the star along x"),
        "OFFSETY": (float(at_xy_arcsec[1]), "[arcsec] source from the star along y"),
        "MASKX": (float(along), "[arcsec] source from the middle of the mask"),
        "MASKY": (float(across), "[arcsec] along the axes of the mask"),
        "STAMPFRC": (psf.stamp_fraction, "share of the flux of the PSF on the image"),
        "TRANSMIS": (psf.transmission, "transmission of the mask; not in the image"),
        "OVERSAMP": (oversample, "samples per detector pixel and axis"),
        "PIXELSCL": (float(np.sqrt(np.prod(scale))) / oversample, "[arcsec] scale of a sample"),
        "PIXSCL_X": (scale[0], "[arcsec] scale of a detector pixel along x"),
        "PIXSCL_Y": (scale[1], "[arcsec] scale of a detector pixel along y"),
    }
    return SourceImage(psf, keywords | made_of)


def _by(plane: TangentPlane, x: float, y: float) -> Array:
    """Pixels (y, x) from the star of an offset along the columns, and at right angles to them."""
    up, right = plane.to_sky[:, :2].T
    up = up / np.linalg.norm(up)
    right = right - (right @ up) * up
    sky = x * right / np.linalg.norm(right) + y * up
    return np.asarray(plane.pixel(*sky) - plane.star_yx)


def _made_of(optics: Optics, pixels: int) -> dict[str, Any]:
    """Keywords that say what an image of the model was made of."""
    detector, budget = optics.detector, optics.wavefront
    band = optics.with_enough_wavelengths(pixels).band
    keywords: dict[str, Any] = {
        "PSFMODEL": "model of the package",
        "DIFFUS": (detector.diffusion_arcsec, "[arcsec] diffusion of charge, rms"),
        "IPC_X": (detector.coupling[0], "coupling to each pixel beside"),
        "IPC_Y": (detector.coupling[1], "coupling to each pixel above and below"),
        "ROTATION": (optics.mask.tilt_deg, "[deg] from x to the axes of mask and pupil"),
        "STOP": repr(optics.stop),
        "STOPTHRU": (optics.stop_throughput, "share of the pupil that the stop passes"),
        "NPUPIL": (optics.n_pupil, "samples across the pupil"),
        "WFE_TEL": (1e9 * budget.telescope_m, "[nm] rms wavefront error, telescope"),
        "WFE_INS": (1e9 * budget.instrument_m, "[nm] rms wavefront error, instrument"),
        "WFESEED": ("mean" if optics.seed is None else optics.seed, "draw of the wavefront"),
        "NWAVES": (len(band.weights), "number of wavelengths"),
    }
    for i, (wavelength, weight) in enumerate(zip(*band, strict=True)):
        keywords[f"WAVE{i}"] = (float(wavelength), "[m] wavelength")
        keywords[f"WGHT{i}"] = (float(weight), "share of the photons")
    return keywords

"""The image of one source at an offset from a star, with what it was made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lyot.analysis.mode import transmission_of
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.headers import ExposureInfo
from lyot.instruments import instrument_named
from lyot.instruments.filters import RAYLEIGH_JEANS, Spectrum
from lyot.instruments.offaxis import Optics, PsfAndTransmission
from lyot.references.star import guess_star

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


@threads.calculation
def source_image(
    info: ExposureInfo,
    at_xy_arcsec: tuple[float, float],
    /,
    *,
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
        The image, which sums to the share of the whole PSF's flux that lies on it (STAMPFRC),
        without the transmission of the mask (TRANSMIS), and the keywords that describe it.

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
    through = transmission_of(replace(info, filter=camera.filter(info.filter).name), None, spectrum)
    optics = replace(through.optics.sampled_for(pixels), seed=seed)
    star = guess_star(info, None)
    scale = optics.detector.pixel_scale_arcsec
    from_star = np.subtract(star.yx, info.mask_yx(star))[::-1]
    x, y = np.add(at_xy_arcsec, from_star * scale)
    along, across = mask.along_axes(float(x), float(y))
    place = along + through.mask_xy_arcsec[0], across + through.mask_xy_arcsec[1]
    psf = optics.psf(mask.along_detector(*place), n_pixels=pixels, oversample=oversample)
    keywords = {
        "INSTRUME": camera.name,
        "FILTER": info.filter,
        "CORONMSK": mask.name,
        "SPECTRUM": spectrum.name,
        "OFFSETX": (float(at_xy_arcsec[0]), "[arcsec] source from the star along x"),
        "OFFSETY": (float(at_xy_arcsec[1]), "[arcsec] source from the star along y"),
        "MASKX": (place[0], "[arcsec] source from the middle of the mask"),
        "MASKY": (place[1], "[arcsec] along the axes of the mask"),
        "STAMPFRC": (psf.stamp_fraction, "share of the flux of the PSF on the image"),
        "TRANSMIS": (psf.transmission, "transmission of the mask; not in the image"),
        "OVERSAMP": (oversample, "samples per detector pixel and axis"),
    }
    return SourceImage(psf, keywords | _made_of(optics, pixels, oversample))


def _made_of(optics: Optics, pixels: int, oversample: int) -> dict[str, Any]:
    """Keywords that say what the image was made of."""
    (x, y), detector, budget = optics.detector.pixel_scale_arcsec, optics.detector, optics.wavefront
    band = optics.with_enough_wavelengths(pixels).band
    keywords: dict[str, Any] = {
        "PIXELSCL": (float(np.sqrt(x * y)) / oversample, "[arcsec] scale of a sample"),
        "PIXSCL_X": (x, "[arcsec] scale of a detector pixel along x"),
        "PIXSCL_Y": (y, "[arcsec] scale of a detector pixel along y"),
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

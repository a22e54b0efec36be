"""What an analysis works on: the exposures of a run, the off-axis PSF, the mask, the star."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.analysis.psf import OffAxisPSF, best_psf, psf_from_image
from lyot.analysis.response import Box, SubtractedExposure, exposure_of_run, inject
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.headers import ExposureInfo
from lyot.files.run import open_products, read_image
from lyot.instruments.filters import Filter
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.instruments.transmission import Transmission
from lyot.parameters import SubtractRecipe, from_dict

log = logging.getLogger(__name__)

ROLL_ERR_DEG = 0.1
SCALE_ERR = 1e-3
"""Errors of the roll and of the pixel scale (relative) that enter astrometry."""


@dataclass(frozen=True)
class StarBrightness:
    """How bright the star would be without the mask.

    Attributes
    ----------
    jy : float
        Flux density [Jy].
    magnitude : float or None
        Vega magnitude; None where the filter has no zero point.
    origin : str
        Where it comes from, in words.
    """

    jy: float
    magnitude: float | None
    origin: str


def brightness_of(
    filter: Filter, /, *, jy: float | None = None, magnitude: float | None = None, origin: str = ""
) -> StarBrightness:
    """Make the brightness of the star from a flux density or a magnitude.

    Parameters
    ----------
    filter : Filter
        The filter.
    jy : float, optional
        Flux density [Jy].
    magnitude : float, optional
        Vega magnitude.
    origin : str, optional
        Where it comes from.

    Returns
    -------
    StarBrightness
        Both, where the filter has a zero point.

    Raises
    ------
    LyotError
        If not one of both is given, it is not positive, or the filter has no zero point.
    """
    if (jy is None) == (magnitude is None):
        raise LyotError(
            "The brightness of the star is needed to speak of contrast; give one of --star-mag, "
            "--star-flux and --star-frame."
        )
    zero = filter.vega_jy
    if magnitude is not None:
        if zero is None:
            raise LyotError(f"{filter.name} has no zero point in the table; give the flux in Jy.")
        origin = origin or f"{filter.name} = {magnitude:g} mag"
        return StarBrightness(zero * 10 ** (-0.4 * magnitude), magnitude, origin)
    if jy is None or not jy > 0:
        raise LyotError(f"The flux of the star is {jy} Jy; it must be positive.")
    mag = None if zero is None else float(-2.5 * np.log10(jy / zero))
    return StarBrightness(float(jy), mag, origin or f"{jy:g} Jy")


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A finished run on disk and the values it is analyzed with: what a worker is sent.

    PSF, transmission and star are carried, never derived again: another computer may have another
    PSF (stpsf, its data), and even the same model differs there in the last digits.

    Attributes
    ----------
    folder : str
        Folder of the products.
    recipe : SubtractRecipe
        How the exposures are subtracted.
    psf : OffAxisPSF
        Image of an off-axis source.
    transmission : Transmission
        Transmission of the mask.
    star : StarBrightness or None
        How bright the star is.
    """

    folder: str
    recipe: SubtractRecipe
    psf: OffAxisPSF
    transmission: Transmission
    star: StarBrightness | None

    @contextmanager
    def open(self) -> Iterator[Observation]:
        """Read the products and subtract them with the values that are carried."""
        with open_products(self.folder) as (product, runs):
            yield Observation(
                product,
                [exposure_of_run(run, self.recipe) for run in runs],
                self.psf,
                self.transmission,
                self.star,
                self.recipe,
                self.folder,
            )


@dataclass(frozen=True, eq=False)
class Observation:
    """A reduction that can be asked what it would do to a source.

    Attributes
    ----------
    product : str
        Name of the product.
    exposures : list of SubtractedExposure
        The science exposures.
    psf : OffAxisPSF
        Image of an off-axis source.
    transmission : Transmission
        Transmission of the mask.
    star : StarBrightness or None
        How bright the star is; contrasts need it.
    recipe : SubtractRecipe
        How it was subtracted.
    folder : str or None
        Where its products lie, for other processes; None where its pixels are on no disk.
    """

    product: str
    exposures: list[SubtractedExposure]
    psf: OffAxisPSF
    transmission: Transmission
    star: StarBrightness | None
    recipe: SubtractRecipe
    folder: str | None = None

    def __repr__(self) -> str:
        """Say what it is, without its pixels."""
        return (
            f"<Observation {self.product}: {len(self.exposures)} exposures, {self.band}, "
            f"{self.recipe.method}, {', '.join(map(str, self.n_modes))} modes>"
        )

    @property
    def stored(self) -> StoredRun | None:
        """What another process needs to work on it; None where its pixels are on no disk."""
        if self.folder is None:
            return None
        return StoredRun(self.folder, self.recipe, self.psf, self.transmission, self.star)

    @property
    def n_modes(self) -> tuple[int, ...]:
        """The numbers of modes."""
        return self.recipe.n_modes

    @property
    def band(self) -> str:
        """Name of the filter."""
        return self.exposures[0].target.info.filter

    @property
    def pixel_scale_arcsec(self) -> float:
        """Pixel scale [arcsec]."""
        return self.exposures[0].target.info.pixel_scale_arcsec

    @property
    def fwhm_pix(self) -> float:
        """FWHM of the off-axis PSF [pixel]."""
        return self.psf.fwhm_pix

    @cached_property
    def jy_per_unit(self) -> float:
        """Flux density of one unit of flux, MJy/sr times pixel [Jy]."""
        return 1e6 * (self.pixel_scale_arcsec / ARCSEC_PER_RADIAN) ** 2

    @property
    def star_flux(self) -> float:
        """Flux of the star without the mask [MJy/sr times pixel]; an error where not known."""
        if self.star is None:
            raise LyotError(
                "The brightness of the star is needed to speak of contrast; give one of "
                "--star-mag, --star-flux and --star-frame."
            )
        return self.star.jy / self.jy_per_unit

    @property
    def reach_pix(self) -> float:
        """Largest separation at which whole circles fit on every exposure [pixel]."""
        edges = [
            min(e.star.y, e.star.x, e.shape[0] - 1 - e.star.y, e.shape[1] - 1 - e.star.x)
            for e in self.exposures
        ]
        return float(min(edges)) - 0.5 * self.fwhm_pix

    def truncation(self, n_modes: int | None, /) -> int:
        """Return the place of a number of modes; of the largest by default.

        Parameters
        ----------
        n_modes : int or None
            Number of modes.

        Returns
        -------
        int
            Its index.

        Raises
        ------
        LyotError
            If the reduction was not made with it.
        """
        if n_modes is None:
            return int(np.argmax(self.n_modes))
        if n_modes not in self.n_modes:
            raise LyotError(
                f"The reduction was made with {', '.join(map(str, self.n_modes))} modes, not "
                f"{n_modes}."
            )
        return self.n_modes.index(n_modes)

    def added(
        self, exposure: SubtractedExposure, separation_pix: float, pa_deg: float, flux: float, /
    ) -> tuple[Box, NDArray[np.float64]]:
        """Return what a source, seen through the mask, adds to an exposure.

        Parameters
        ----------
        exposure : SubtractedExposure
            One of the exposures.
        separation_pix : float
            Separation [pixel].
        pa_deg : float
            Position angle [degree].
        flux : float
            Its flux before the mask [MJy/sr times pixel].

        Returns
        -------
        box : tuple of slice
            Rows and columns.
        added : ndarray, shape (n_trunc, n_rows, n_columns)
            As from `lyot.analysis.response.inject`.
        """
        y, x = exposure.position(separation_pix, pa_deg)
        through = float(self.transmission.at(y, x, star_yx=exposure.star.yx))
        return inject(exposure, self.psf, separation_pix, pa_deg, flux=flux, transmission=through)

    def with_source(
        self, separation_arcsec: float, pa_deg: float, contrast: float, /
    ) -> Observation:
        """Return the reduction as it would be with one more source in the sky.

        Parameters
        ----------
        separation_arcsec : float
            Separation [arcsec].
        pa_deg : float
            Position angle [degree].
        contrast : float
            Flux over that of the star; negative to take a source out.

        Returns
        -------
        Observation
            The same fits, other residuals on the source's own pixels; exact where no reference
            holds the source.
        """
        r = separation_arcsec / self.pixel_scale_arcsec
        changed = []
        for exposure in self.exposures:
            box, added = self.added(exposure, r, pa_deg, contrast * self.star_flux)
            residual = exposure.residual.copy()
            residual[:, box[0], box[1]] += added
            changed.append(replace(exposure, residual=residual))
        return replace(self, exposures=changed, folder=None)


@threads.calculation
def make_observation(
    product: str,
    exposures: list[SubtractedExposure],
    recipe: SubtractRecipe,
    /,
    *,
    psf: OffAxisPSF | None = None,
    transmission: NDArray[np.floating] | None = None,
    star: StarBrightness | None = None,
) -> Observation:
    """Put together what an analysis works on.

    Parameters
    ----------
    product : str
        Name of the product.
    exposures : list of SubtractedExposure
        The science exposures.
    recipe : SubtractRecipe
        How they were subtracted.
    psf : OffAxisPSF, optional
        Image of an off-axis source; by ``stpsf`` or the package's model by default.
    transmission : ndarray, shape (n_y, n_x), optional
        Map of the mask's transmission on the pixels of the frames; the model by default.
    star : StarBrightness, optional
        How bright the star is.

    Returns
    -------
    Observation
        Ready to be asked.

    Raises
    ------
    LyotError
        If the PSF is larger than the frames, or the map of another shape.
    """
    if not exposures:
        raise LyotError("There is no exposure to analyse.")
    info, shape = exposures[0].target.info, exposures[0].shape
    if psf is None:
        # Rounded, so that exposures whose pixel areas differ in the last digit share a model.
        scale = round(info.pixel_scale_arcsec, 6)
        instrument = info.instrument_value
        psf = best_psf(instrument, info.coronagraph_value, instrument.filter(info.filter), scale)
        psf = psf.cropped((min(shape) - 1) // 4)
    if 2 * psf.half_pix + 1 > min(shape):
        raise LyotError(
            f"The PSF is {2 * psf.half_pix + 1} pixels wide and the frames are {shape[1]} x "
            f"{shape[0]}; cut it smaller."
        )
    if transmission is not None and transmission.shape != shape:
        raise LyotError(
            f"The transmission map is {transmission.shape} pixels and the frames are {shape}."
        )
    through = _transmission(info, transmission)
    return Observation(product, exposures, psf, through, star, recipe)


def _transmission(info: ExposureInfo, image: NDArray[np.floating] | None) -> Transmission:
    """Take the user's map, else the model; 1 everywhere for a coronagraph without a model."""
    coronagraph, width, origin = info.coronagraph_value, np.nan, "model of the package"
    if image is not None:
        origin = "map of the user's"
    elif not coronagraph.is_modeled:
        origin = "none: the coronagraph is not known"
        log.warning("Coronagraph %r is not known: its transmission counts as 1.", info.coronagraph)
    else:
        instrument = info.instrument_value
        width = instrument.lambda_over_d_arcsec(instrument.filter(info.filter))
    return Transmission(
        coronagraph=coronagraph,
        lambda_over_d_arcsec=width,
        pixel_scale_arcsec=info.pixel_scale_arcsec,
        origin=origin,
        image=None if image is None else np.asarray(image, dtype=np.float64),
    )


@contextmanager
def open_run(
    folder: str | Path,
    /,
    *,
    n_modes: tuple[int, ...] | None = None,
    psf: str | Path | None = None,
    transmission: str | Path | None = None,
    star_jy: float | None = None,
    star_magnitude: float | None = None,
    star_frame: str | Path | None = None,
) -> Iterator[Observation]:
    """Read a finished run for the analysis.

    Parameters
    ----------
    folder : path
        Where `lyot run` wrote the products.
    n_modes : tuple of int, optional
        Numbers of modes; those of the run by default.
    psf : path, optional
        FITS file of the off-axis PSF; OVERSAMP or DET_SAMP in its header is its oversampling.
    transmission : path, optional
        FITS file of the mask's transmission, or a PSFMASK file aligned with the frames.
    star_jy, star_magnitude : float, optional
        Brightness of the star [Jy], or its Vega magnitude.
    star_frame : path, optional
        FITS image of the star without the mask, in the unit of the exposures.

    Yields
    ------
    Observation
        To be used within the context, because the references stay on disk.

    Raises
    ------
    LyotError
        If a file is missing or not what it should be.
    """
    with open_products(folder) as (product, runs):
        recipe: SubtractRecipe = from_dict(SubtractRecipe, runs[0].recipe)
        if n_modes is not None:
            recipe = replace(recipe, n_modes=tuple(n_modes))
        exposures = [exposure_of_run(run, recipe) for run in runs]
        observation = make_observation(
            product,
            exposures,
            recipe,
            psf=None if psf is None else read_psf(psf),
            transmission=None if transmission is None else read_image(transmission)[0],
        )
        given = [v for v in (star_jy, star_magnitude, star_frame) if v is not None]
        if len(given) > 1:
            raise LyotError("Give one of the star's flux, its magnitude, and its frame.")
        info = observation.exposures[0].target.info
        if star_frame is not None:
            flux = flux_in_frame(observation, read_image(star_frame)[0])
            star = brightness_of(
                info.instrument_value.filter(info.filter),
                jy=flux * observation.jy_per_unit,
                origin=f"{Path(star_frame).name}",
            )
            observation = replace(observation, star=star)
        elif given:
            filter = info.instrument_value.filter(info.filter)
            star = brightness_of(filter, jy=star_jy, magnitude=star_magnitude)
            observation = replace(observation, star=star)
        yield replace(observation, folder=str(Path(folder).resolve()))


def read_psf(path: str | Path, /) -> OffAxisPSF:
    """Read an off-axis PSF of the user's.

    Parameters
    ----------
    path : path
        A FITS image; OVERSAMP or DET_SAMP in its header is its oversampling.

    Returns
    -------
    OffAxisPSF
        The PSF.
    """
    image, header = read_image(path)
    over = int(header.get("OVERSAMP") or header.get("DET_SAMP") or 1)
    return psf_from_image(image, oversample=over, origin=f"{Path(path).name}")


def flux_in_frame(observation: Observation, frame: NDArray[np.floating], /) -> float:
    """Measure the flux of a star in an image without the mask, by its PSF.

    Parameters
    ----------
    observation : Observation
        For its PSF.
    frame : ndarray, shape (n_y, n_x)
        Image of the star; NaN is left out.

    Returns
    -------
    float
        Flux [unit of the frame times pixel].

    Raises
    ------
    LyotError
        If the image has no positive peak.
    """
    from scipy.optimize import minimize

    good = np.isfinite(frame)
    if not good.any() or not np.nanmax(frame) > 0:
        raise LyotError("The frame of the star has no positive pixel.")
    peak = np.unravel_index(int(np.nanargmax(np.where(good, frame, -np.inf))), frame.shape)
    half = int(np.ceil(2.0 * observation.fwhm_pix))

    def _fit(at: Any) -> tuple[float, float]:
        box, image = observation.psf.place(float(at[0]), float(at[1]), frame.shape, half_pix=half)
        data, ok = frame[box], good[box]
        flux = float((data * image)[ok].sum() / (image[ok] ** 2).sum())
        return float(((data - flux * image)[ok] ** 2).sum()), flux

    def _cost(at: NDArray[np.float64]) -> float:
        return _fit(at)[0]

    start = np.asarray(peak, dtype=np.float64)
    best = minimize(_cost, start, method="Nelder-Mead")
    return _fit(best.x)[1]

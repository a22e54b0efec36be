"""What an analysis works on: subtracted exposures, off-axis PSF, transmission, star."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import east_north
from lyot.analysis.brightness import StarBrightness, star_brightness, star_flux_in
from lyot.analysis.exposure import SubtractedExposure, exposure_of_run
from lyot.analysis.grid import SkyGrid, sky_grid
from lyot.analysis.mode import mode_of, transmission_of
from lyot.analysis.psf import OffAxisPSF, best_psf, psf_from_image
from lyot.analysis.response import Added, PointSource
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.headers import ExposureInfo
from lyot.files.run import open_products, read_image
from lyot.files.spectrum import read_spectrum, source_spectrum
from lyot.instruments.filters import RAYLEIGH_JEANS, Filter, Spectrum
from lyot.instruments.instrument import mode_optics
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.instruments.transmission import Transmission
from lyot.parameters import ObservationParameters, SubtractRecipe, from_dict
from lyot.subtraction.result import Subtracted
from lyot.types import Array, Box

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 64
"""Rows of the sky whose positions a thread computes."""
MIN_TRANSMISSION = 1e-3
"""Below it a source is not compared with itself at another roll."""


class Located(NamedTuple):
    """Positions of the sky on the frames of the exposures, ``(n_exp, ...)``."""

    yx: Array  # (n_exp, 2, ...) [pixel]
    inside: NDArray[np.bool_]
    transmission: Array  # of the mask; 0 beyond the frames


@dataclass(frozen=True, eq=False)
class Observation:
    """A subtracted observation that tells what its subtraction would do to a source.

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
    scale_err : bool
        Whether the errors that ERR states are multiplied by the scatter of the blank sky over them.

    Examples
    --------
    >>> with_companion = observation.with_source(1.5, 40.0, 1e-4)
    >>> with_companion.n_modes == observation.n_modes
    True
    >>> flux = 1e-4 * observation.star_flux
    >>> round(observation.contrast_of(flux), 6)
    0.0001
    """

    product: str
    exposures: list[SubtractedExposure]
    psf: OffAxisPSF
    transmission: Transmission
    star: StarBrightness | None
    recipe: SubtractRecipe
    folder: str | None = None
    scale_err: bool = True

    def __repr__(self) -> str:
        """Say what it is, without its pixels."""
        name = f"{self.filter.name}, " if self.exposures else ""
        return (
            f"<Observation {self.product}: {len(self.exposures)} exposures, {name}"
            f"{self.recipe.method}, {', '.join(map(str, self.n_modes))} modes>"
        )

    @property
    def without_pixels(self) -> Observation | None:
        """What another process needs to open the run again; None where it is on no disk.

        PSF, transmission and star travel, they are not derived again: another computer may have
        another PSF (stpsf, its data), and even the same model differs there in the last digits.
        """
        return None if self.folder is None else replace(self, exposures=[])

    @contextmanager
    def with_pixels(self) -> Iterator[Observation]:
        """Read the products of `folder` again, and subtract them."""
        with open_products(str(self.folder)) as (_, runs):
            yield replace(self, exposures=[exposure_of_run(run, self.recipe) for run in runs])

    @cached_property
    def kept(self) -> dict[str, object]:
        """What was made of it and is used again (`lyot.analysis.peaks.flux_maps`)."""
        return {}

    @cached_property
    def grid(self) -> SkyGrid:
        """Return the grid of the sky, on the nominal pixel scale, that holds all frames."""
        edges = (exposure.edges_pix.max() for exposure in self.exposures)
        return sky_grid(max(int(np.ceil(edge - 1e-6)) for edge in edges))

    @cached_property
    def sky(self) -> Located:
        """Locate its positions on the frames."""
        radius, pa = self.grid.polar
        parts = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(radius), ROWS_AT_ONCE)]
        rows = threads.map_ordered(lambda part: self.located(radius[part], pa[part]), parts)
        return Located(*(np.concatenate(arrays, axis=-2) for arrays in zip(*rows, strict=True)))

    @property
    def farthest_pix(self) -> float:
        """Largest separation on any frame [pixel]."""
        return max(float(exposure.corners_pix.max()) for exposure in self.exposures)

    @property
    def n_modes(self) -> tuple[int, ...]:
        """The numbers of modes."""
        return self.recipe.n_modes

    @property
    def n_modes_used(self) -> tuple[int, ...]:
        """For each of them, the number that was used: the largest of all exposures."""
        used = (exposure.n_modes_used for exposure in self.exposures)
        return tuple(max(numbers) for numbers in zip(*used, strict=True))

    @property
    def filter(self) -> Filter:
        """The filter of the exposures."""
        info = self.exposures[0].target.info
        return info.instrument_value.filter(info.filter)

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
        """Flux of the star without the mask [MJy/sr times pixel]; an error where it is unknown."""
        if self.star is None:
            raise LyotError(
                "Contrast needs the star's brightness; give its Vega magnitude, its flux density "
                "or an image of it without the mask.",
                parameter="star_magnitude",
            )
        return self.star.jy / self.jy_per_unit

    def contrast_of(self, flux: float, /) -> float:
        """Return a flux over that of the star; NaN where the star's brightness is unknown."""
        return flux / self.star_flux if self.star is not None else float("nan")

    def sees(self, separation_arcsec: float, pa_deg: float, /) -> bool:
        """Return whether a place of the sky lies on the frames of all exposures."""
        r = separation_arcsec / self.pixel_scale_arcsec
        return all(e.contains(*map(float, e.position(r, pa_deg))) for e in self.exposures)

    @property
    def reach_pix(self) -> float:
        """Largest separation at which whole circles fit on every exposure [pixel]."""
        return min(float(e.edges_pix.min()) for e in self.exposures) - 0.5 * self.fwhm_pix

    def stated_variance(self, exposure: SubtractedExposure, truncation: int, box: Box, /) -> Array:
        """Return the variance of the mean residual on a box by ERR, as it is or scaled."""
        factor = exposure.sky[truncation].factor if self.scale_err else 1.0
        return np.asarray(exposure.variance[truncation][box] * factor**2)

    def origins(self) -> dict[str, str]:
        """Return where PSF, transmission and brightness of the star come from."""
        return {
            "psf": self.psf.origin,
            "transmission": self.transmission.origin,
            "star": self.star.origin if self.star else "",
        }

    def truncation(self, n_modes: int | None, /) -> int:
        """Return the index of a number of modes, by default of the largest."""
        if n_modes is None:
            return int(np.argmax(self.n_modes))
        if n_modes not in self.n_modes:
            raise LyotError(
                f"The subtraction was made with {', '.join(map(str, self.n_modes))} modes, not "
                f"{n_modes}."
            )
        return self.n_modes.index(n_modes)

    def of_modes(self, n_modes: int | None, /) -> Observation:
        """Return the observation with one of its numbers of modes alone, by default the largest."""
        t = self.truncation(n_modes)
        if len(self.n_modes) == 1:
            return self
        recipe = replace(self.recipe, n_modes=self.n_modes[t : t + 1])
        return replace(self, recipe=recipe, exposures=[e.of_truncation(t) for e in self.exposures])

    def located(self, separation_pix: Array, pa_deg: Array, /) -> Located:
        """Return positions of the sky on the frames of the exposures."""
        east, north = east_north(separation_pix, pa_deg)
        shape = len(self.exposures), *east.shape
        yx, inside, through = (
            np.empty((shape[0], 2, *east.shape)),
            np.empty(shape, bool),
            np.zeros(shape),
        )
        for e, exposure in enumerate(self.exposures):
            scale = exposure.target.info.pixel_scale_arcsec
            yx[e] = exposure.plane.pixel(scale * east, scale * north)
            inside[e] = on_it = exposure.contains(*yx[e])
            at = yx[e][:, on_it]
            through[e][on_it] = self.transmission.at(*at, mask_yx=exposure.mask_yx)
        return Located(yx, inside, through)

    def added(
        self, exposure: SubtractedExposure, separation_pix: float, pa_deg: float, flux: float, /
    ) -> Added:
        """Return what a source behind the mask adds to an exposure, and on which pixels.

        The flux [MJy/sr times pixel] is that before the mask.
        """
        source = self.source(exposure, separation_pix, pa_deg)
        return exposure.response.added(source, flux=flux)

    def source(
        self, exposure: SubtractedExposure, separation_pix: float, pa_deg: float, /
    ) -> PointSource:
        """Return a source, seen through the mask, that can be put into an exposure."""
        [source] = self.sources(exposure, np.array([separation_pix]), np.array([pa_deg]))
        return source

    def sources(
        self, exposure: SubtractedExposure, separation_pix: Array, pa_deg: Array, /
    ) -> list[PointSource]:
        """Return sources at places ``(n,)``."""
        mask_yx = exposure.mask_yx
        y, x = exposure.position(separation_pix, pa_deg)
        along = self.transmission.along_mask(y, x, mask_yx=mask_yx)
        through = self.transmission.at(y, x, mask_yx=mask_yx)

        def _at_roll(
            r: float, pa: float, share: float, turn_deg: float
        ) -> tuple[OffAxisPSF, float]:
            there = self.source(exposure, r, pa - turn_deg)
            return there.psf, there.transmission / max(share, MIN_TRANSMISSION)

        values = np.stack([separation_pix, pa_deg, y, x, *along, through]).T.tolist()
        return [
            PointSource(
                self.psf.behind((u, v)),
                r,
                pa,
                share,
                partial(_at_roll, r, pa, share),
                (row, column),
            )
            for r, pa, row, column, u, v, share in values
        ]

    def with_source(
        self, separation_arcsec: float, pa_deg: float, contrast: float, /
    ) -> Observation:
        """Return the observation as it would be with one more source in the sky.

        At a separation [arcsec] and position angle [degree east of north], of a contrast: its flux
        over that of the star, negative to remove a source. The fits are the same: exact where no
        reference contains the source.
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
    spectrum: Spectrum = RAYLEIGH_JEANS,
) -> Observation:
    """Put together what an analysis works on: its pixels are on no disk.

    PSF and transmission, a map on the pixels of the frames, are models by default, the PSF for
    companions of a spectrum.
    """
    if not exposures:
        raise LyotError("There is no exposure to analyze.")
    info, shape = exposures[0].target.info, exposures[0].shape
    if psf is None:
        psf = best_psf(*mode_of(info), spectrum).cropped((min(shape) - 1) // 4)
    if 2 * psf.half_pix + 1 > min(shape):
        raise LyotError(
            f"The PSF is {2 * psf.half_pix + 1} pixels wide and the frames are {shape[1]} x "
            f"{shape[0]}; cut it smaller."
        )
    if transmission is not None and transmission.shape != shape:
        raise LyotError(
            f"The transmission map is {transmission.shape} pixels and the frames are {shape}."
        )
    through = transmission_of(info, transmission, spectrum)
    return Observation(product, exposures, psf, through, star, recipe)


@contextmanager
def open_run(
    folder: str | Path,
    parameters: ObservationParameters | None = None,
    /,
    *,
    subtracted: Mapping[str, Subtracted] | None = None,
    **given: object,
) -> Iterator[Observation]:
    """Open a finished run for the analysis.

    Parameters
    ----------
    folder : path
        Folder of the run's products.
    parameters : ObservationParameters, optional
        PSF, transmission, star and numbers of modes; as the run and the models have them by
        default.
    subtracted : mapping of str to Subtracted, optional
        Subtractions that the run has just done, by the name of the flagged exposure (crfints): they
        are not done again, unless other numbers of modes are asked for.
    **given
        Parameters by name, instead of `parameters`: see `lyot.parameters.ObservationParameters`.

    Yields
    ------
    Observation
        To be used within the context, because the references stay on disk.

    Raises
    ------
    LyotError
        If a file is missing or not what it should be, or the brightness is given twice.

    Examples
    --------
    >>> with open_run(folder, star_magnitude=5.0) as observation:
    ...     print(observation.filter.name, round(observation.fwhm_pix, 1))
    F444W 2.7
    """
    if parameters is None:
        given = {k: str(v) if isinstance(v, Path) else v for k, v in given.items()}
        parameters = from_dict(ObservationParameters, given)
    spectrum = source_spectrum(parameters)
    if parameters.psf is not None and spectrum is not RAYLEIGH_JEANS:
        raise LyotError(
            "The spectrum of the source is that of the model of the PSF; give it or a PSF.",
            parameter="psf",
        )
    with open_products(folder) as (product, runs):
        of_run: SubtractRecipe = from_dict(SubtractRecipe, runs[0].recipe)
        n_modes, map_file = parameters.n_modes, parameters.transmission
        recipe = of_run if n_modes is None else replace(of_run, n_modes=n_modes)
        done = subtracted if subtracted is not None and recipe == of_run else {}
        exposures = [exposure_of_run(run, recipe, done.get(run.target.info.name)) for run in runs]
        observation = make_observation(
            product,
            exposures,
            recipe,
            psf=None if parameters.psf is None else read_psf(parameters.psf, runs[0].target.info),
            transmission=None if map_file is None else read_image(map_file)[0],
            spectrum=spectrum,
        )
        star, scale_err = _star(observation, parameters), not parameters.keep_err
        for exposure in exposures:
            on_sky = exposure.sky[observation.truncation(None)]._replace(is_applied=scale_err)
            if text := on_sky.warning(exposure.name):
                log.warning(text)
        yield replace(
            observation, star=star, folder=str(Path(folder).resolve()), scale_err=scale_err
        )


def _star(observation: Observation, parameters: ObservationParameters) -> StarBrightness | None:
    """How bright the star is, as parameters tell it."""
    jy, magnitude = parameters.star_jy, parameters.star_magnitude
    frame, spectrum = parameters.star_frame, parameters.star_spectrum
    given = sum(value is not None for value in (jy, magnitude, frame, spectrum))
    if given > 1:
        raise LyotError("Give one of the star's magnitude, flux density, spectrum and frame.")
    if given == 0:
        return None
    origin = ""
    if frame is not None:
        flux = star_flux_in(read_image(frame)[0], observation.psf)
        jy, origin = flux * observation.jy_per_unit, Path(frame).name
    if spectrum is not None:
        jy, origin = observation.filter.flux_density(read_spectrum(spectrum)), Path(spectrum).name
    made = star_brightness(observation.filter, jy=jy, magnitude=magnitude, origin=origin)
    return replace(made, err=parameters.star_err or 0.0, is_measured=frame is not None)


def read_psf(path: str | Path, info: ExposureInfo, /) -> OffAxisPSF:
    """Read a FITS image of an off-axis PSF, with OVERSAMP or DET_SAMP as its oversampling.

    STAMPFRC is the share of the PSF's flux on the image; that of the model, where there is none.
    The source lies in the middle of an image of `lyot.analysis.source_image`, which tells where it
    is behind the mask, and at its centroid in others.
    """
    image, header = read_image(path)
    over = int(header.get("OVERSAMP") or header.get("DET_SAMP") or 1)
    share = header.get("STAMPFRC")
    if share is None and info.filter_value is not None:
        share = mode_optics(*mode_of(info)).stamp_fraction(min(image.shape) / over)
    share = float(share or 1.0)
    middle = 0.5 * (image.shape[0] - 1), 0.5 * (image.shape[-1] - 1)
    return psf_from_image(
        image,
        origin=f"{Path(path).name}, {share:.3f} of the flux; not checked against a real star",
        oversample=over,
        stamp_fraction=share,
        source_yx=middle if "MASKX" in header else None,
    )

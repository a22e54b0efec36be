"""A subtracted exposure of which an analysis asks: residual, error, fits, and its response."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lyot.algorithms.geometry import detector_offset
from lyot.analysis.response import LinearResponse, UpdatedResponse
from lyot.compute import threads
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import Cube
from lyot.files.run import ExposureProducts
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.disc import on_detector
from lyot.subtraction.fit import Fit
from lyot.subtraction.pixels import RefPixels
from lyot.subtraction.result import Subtracted
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones
from lyot.types import Array


@dataclass(frozen=True, eq=False)
class FitMaps:
    """Images that an exposure was subtracted with, each of shape (n_y, n_x) or None.

    Attributes
    ----------
    fit_weight, zone_map : ndarray or None
        Weight of each pixel in the fits, and labels of the zones.
    disc : ndarray or None
        A model of a disc, without which the coefficients are fitted [unit of the exposure].
    """

    fit_weight: NDArray[np.floating] | None = None
    zone_map: NDArray[np.floating] | None = None
    disc: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class SubtractedExposure:
    """A subtracted exposure, ready for sources to be put into it.

    Attributes
    ----------
    name : str
        Name of its psfsub product.
    target : Cube
        The exposure as its coefficients were fitted, without the model of a disc.
    aligned : AlignedArrays
        Its references.
    star : StarPosition
        The star on its pixels.
    pa_y_deg : float
        Position angle of its y axis [degree].
    recipe : SubtractRecipe
        How it was subtracted.
    bad : ndarray of bool, shape (n_int, n_y, n_x)
        True where there is no residual.
    missing : ndarray of bool, shape (n_int, n_pix)
        Pixels that no fit uses: bad in the target, or in every reference.
    fits : list of Fit
        The fits.
    frames : dict of int to RefPixels
        What the method made of each set of references, where it combines other frames than they.
    residual : ndarray, shape (n_trunc, n_y, n_x)
        Mean of the integrations for each number of modes; NaN where there is none.
    variance : ndarray, shape (n_trunc, n_y, n_x)
        Propagated variance of that mean.
    integrations : list of ndarray, shape (n_int, n_y, n_x)
        The integrations, for each number of modes.
    n_modes_used : tuple of int
        Numbers of modes that were used, at most the rank of the references.
    maps : FitMaps
        The images that it was subtracted with.
    """

    name: str
    target: Cube
    aligned: AlignedArrays
    star: StarPosition
    pa_y_deg: float
    recipe: SubtractRecipe
    bad: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    fits: list[Fit]
    frames: dict[int, RefPixels]
    residual: NDArray[np.float64]
    variance: NDArray[np.float64]
    integrations: list[NDArray[np.floating]]
    n_modes_used: tuple[int, ...]
    maps: FitMaps = field(default_factory=FitMaps)

    @classmethod
    def of(
        cls,
        target: Cube,
        aligned: AlignedArrays,
        star: StarPosition,
        recipe: SubtractRecipe,
        subtracted: Subtracted,
        /,
        *,
        pa_y_deg: float,
        name: str = "",
        maps: FitMaps | None = None,
    ) -> SubtractedExposure:
        """Take a finished subtraction, made with ``keep_fits = True``, without doing it again."""
        maps = maps or FitMaps()
        results = subtracted.results
        if maps.disc is not None:
            disc = maps.disc.astype(np.float32)
            results = [replace(r, sci=r.sci + disc) for r in results]
        bad = target.bad(recipe.bad_bits) | ~np.isfinite(results[0].sci)
        n_good = np.sum(~bad, axis=0)
        n_safe = np.maximum(n_good, 1)
        residual, variance = [], []
        for result in results:
            mean = np.where(bad, 0.0, result.sci).sum(axis=0, dtype=np.float64) / n_safe
            # Integrations share the noise of the references, which is not averaged down.
            own = np.where(bad, 0.0, np.square(result.err, dtype=np.float64)).sum(axis=0) / n_safe
            own = np.maximum(own - np.nan_to_num(result.variance_refs), 0.0) / n_safe
            residual.append(np.where(n_good > 0, mean, np.nan))
            total = own + np.nan_to_num(result.variance_refs_coherent)
            variance.append(np.where(n_good > 0, total, np.nan))
        return cls(
            name=name,
            target=target,
            aligned=aligned,
            star=star,
            pa_y_deg=pa_y_deg,
            recipe=recipe,
            bad=bad,
            missing=subtracted.missing,
            fits=subtracted.fits,
            frames=subtracted.frames,
            residual=np.array(residual),
            variance=np.array(variance),
            integrations=[r.sci for r in results],
            n_modes_used=tuple(r.n_kept for r in results),
            maps=maps,
        )

    @property
    def n_modes(self) -> tuple[int, ...]:
        """The numbers of modes."""
        return self.recipe.n_modes

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_y, n_x)`` of the frames."""
        return self.target.frame_shape

    @cached_property
    def n_good(self) -> NDArray[np.int64]:
        """Number of good integrations of each pixel."""
        return np.asarray(np.sum(~self.bad, axis=0))

    @cached_property
    def holds_source(self) -> NDArray[np.bool_]:
        """True for each reference that shows the science target, and any source about its star."""
        ref_info = self.aligned.ref_info
        return np.zeros(0, bool) if ref_info is None else ref_info.show(self.target.info.target)

    @cached_property
    def response(self) -> LinearResponse | UpdatedResponse:
        """What a source adds to the residual; by whether references hold the source too."""
        return UpdatedResponse(self) if self.holds_source.any() else LinearResponse(self)

    def position(self, separation_pix: Array | float, pa_deg: Array | float, /) -> Any:
        """Return where a separation and position angle fall on the detector."""
        dy, dx = detector_offset(separation_pix, pa_deg, self.pa_y_deg)
        return self.star.y + dy, self.star.x + dx


@threads.calculation
def make_exposure(
    target: Cube,
    aligned: AlignedArrays,
    star: StarPosition,
    recipe: SubtractRecipe,
    /,
    *,
    pa_y_deg: float,
    name: str = "",
    maps: FitMaps | None = None,
    dtype: DTypeLike = np.float32,
) -> SubtractedExposure:
    """Subtract an exposure and keep what sources need."""
    maps = maps or FitMaps()
    zones = make_zones(
        recipe,
        target.frame_shape,
        star,
        target.info.pixel_scale_arcsec,
        labels=None if maps.zone_map is None else maps.zone_map.astype(int),
        fit_weight=maps.fit_weight,
    )
    if maps.disc is not None:
        target = replace(target, sci=target.sci - maps.disc.astype(np.float32))
    subtracted = subtract(target, aligned, zones, recipe, keep_fits=True, dtype=dtype)
    return SubtractedExposure.of(
        target, aligned, star, recipe, subtracted, pa_y_deg=pa_y_deg, name=name, maps=maps
    )


def exposure_of_run(
    run: ExposureProducts, recipe: SubtractRecipe, /, subtracted: Subtracted | None = None
) -> SubtractedExposure:
    """Open an exposure of a finished run for the analysis."""
    target, disc = run.target, None
    if run.disc_model is not None:
        disc = run.disc_scale * on_detector(
            run.disc_model, run.star, run.pa_y_deg, target.frame_shape
        )
    maps = FitMaps(run.fit_weight, run.zone_map, disc)
    if subtracted is None:
        return make_exposure(
            target, run.aligned, run.star, recipe, pa_y_deg=run.pa_y_deg, name=run.name, maps=maps
        )
    if disc is not None:
        target = replace(target, sci=target.sci - disc.astype(np.float32))
    return SubtractedExposure.of(
        target,
        run.aligned,
        run.star,
        recipe,
        subtracted,
        pa_y_deg=run.pa_y_deg,
        name=run.name,
        maps=maps,
    )


def without_refs(
    exposure: SubtractedExposure, left_out: NDArray[np.bool_], /
) -> SubtractedExposure:
    """Subtract an exposure again without some of its references."""
    target, disc = exposure.target, exposure.maps.disc
    if disc is not None:
        target = replace(target, sci=target.sci + disc.astype(np.float32))
    return make_exposure(
        target,
        exposure.aligned.without(left_out),
        exposure.star,
        exposure.recipe,
        pa_y_deg=exposure.pa_y_deg,
        name=exposure.name,
        maps=exposure.maps,
    )

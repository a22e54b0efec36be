"""A subtracted exposure of which an analysis asks: residual, error, fits, and its response."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lyot.algorithms.geometry import TangentPlane, east_north
from lyot.algorithms.zones import Zone
from lyot.analysis.mode import extended_image
from lyot.analysis.response import LinearResponse, UpdatedResponse
from lyot.compute import threads
from lyot.errors import readable
from lyot.files.aligned import AlignedArrays
from lyot.files.astrometry import header_plane
from lyot.files.exposure import Cube
from lyot.files.run import ExposureProducts
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe, from_dict
from lyot.subtraction.fit import Fit
from lyot.subtraction.pixels import RefPixels
from lyot.subtraction.recorded import Recorded, restored
from lyot.subtraction.result import SkyNoise, Subtracted, sky_noise
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones
from lyot.types import Array


@dataclass(frozen=True, eq=False)
class FitMaps:
    """Images ``(n_y, n_x)`` that an exposure was subtracted with."""

    fit_weight: NDArray[np.floating] | None = None
    zone_map: NDArray[np.floating] | None = None
    disc: NDArray[np.floating] | None = None  # taken off before the fit [unit of the exposure]


@dataclass(frozen=True, eq=False, kw_only=True)
class SubtractedExposure:
    """A subtracted exposure, ready for sources to be put into it.

    The model of a disc, where there is one, has been taken off the target. The variance is that
    of the mean of the integrations, as it propagates through the subtraction.
    """

    name: str  # of its psfsub product
    target: Cube
    aligned: AlignedArrays
    star: StarPosition
    plane: TangentPlane  # the sky about the star
    recipe: SubtractRecipe
    bad: NDArray[np.bool_]  # (n_int, n_y, n_x), True where there is no residual
    missing: NDArray[np.bool_]  # (n_int, n_pix), bad in the target, or in every reference
    fits: list[Fit]
    frames: dict[int, RefPixels]  # what a method makes of each set of references
    residual: NDArray[np.float64]  # (n_trunc, n_y, n_x), mean; NaN where there is none
    variance: NDArray[np.float64]  # (n_trunc, n_y, n_x)
    sky: tuple[SkyNoise, ...]  # for each number of modes, what the blank sky says of the variance
    integrations: list[NDArray[np.floating]]  # (n_int, n_y, n_x) for each number of modes
    n_modes_used: tuple[int, ...]  # at most the rank of the references
    maps: FitMaps = field(default_factory=FitMaps)

    @property
    def n_modes(self) -> tuple[int, ...]:
        """The numbers of modes."""
        return self.recipe.n_modes

    @property
    def mask_yx(self) -> tuple[float, float]:
        """Where the mask's place for stars lies on its pixels [pixel, 0-based]."""
        return self.target.info.mask_yx(self.star)

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
        """Return ``(y, x)`` [pixel, 0-based] of a separation and position angle [degree].

        The separation counts in pixels of the nominal scale, as an angle on the sky.
        """
        scale = self.target.info.pixel_scale_arcsec
        return self.plane.pixel(*east_north(np.multiply(separation_pix, scale), pa_deg))

    @property
    def edges_pix(self) -> NDArray[np.float64]:
        """The separations of the four edges of the frame, ``(4,)`` [pixel of the nominal scale]."""
        (y, x), (n_y, n_x) = self.star.yx, self.shape
        offsets = self.plane.offset([0.0, n_y - 1.0, y, y], [x, x, 0.0, n_x - 1.0])
        return np.hypot(*offsets) / self.target.info.pixel_scale_arcsec

    @property
    def corners_pix(self) -> NDArray[np.float64]:
        """The separations of the four corners of the frame, likewise."""
        n_y, n_x = self.shape
        offsets = self.plane.offset([0.0, 0.0, n_y - 1.0, n_y - 1.0], [0.0, n_x - 1.0] * 2)
        return np.hypot(*offsets) / self.target.info.pixel_scale_arcsec

    def contains(self, y: Array | float, x: Array | float, /) -> Any:
        """Return whether positions lie on the frames."""
        return (y >= 0) & (y <= self.shape[0] - 1) & (x >= 0) & (x <= self.shape[1] - 1)

    def of_truncation(self, truncation: int, /) -> SubtractedExposure:
        """Return the exposure with one of its numbers of modes alone."""
        one = slice(truncation, truncation + 1)
        return replace(
            self,
            recipe=replace(self.recipe, n_modes=self.n_modes[one]),
            residual=self.residual[one],
            variance=self.variance[one],
            sky=self.sky[one],
            integrations=self.integrations[one],
            n_modes_used=self.n_modes_used[one],
        )

    def without_refs(self, left_out: NDArray[np.bool_], /) -> SubtractedExposure:
        """Subtract again without some references; shifts and fills stay as they are."""
        target, disc = self.target, self.maps.disc
        return make_exposure(
            target if disc is None else replace(target, sci=target.sci + disc.astype(np.float32)),
            self.aligned.without(left_out),
            self.star,
            self.recipe,
            plane=self.plane,
            name=self.name,
            maps=self.maps,
        )


@threads.calculation
def make_exposure(
    target: Cube,
    aligned: AlignedArrays,
    star: StarPosition,
    recipe: SubtractRecipe,
    subtracted: Subtracted | None = None,
    /,
    *,
    plane: TangentPlane | None = None,
    name: str = "",
    maps: FitMaps | None = None,
    dtype: DTypeLike = np.float32,
) -> SubtractedExposure:
    """Subtract an exposure and keep what sources need.

    What has been `subtracted` already, from the target without the model of the disc and with its
    fits, is not done again. References that show the target of the exposure hold its sources too.
    The `plane` is that of the headers by default.
    """
    maps, plane = maps or FitMaps(), plane or header_plane(target.info, star)
    disc = None if maps.disc is None else maps.disc.astype(np.float32)
    if disc is not None:
        target = replace(target, sci=target.sci - disc)
    if subtracted is None:
        zones = _zones_of(recipe, target.frame_shape, plane, maps)
        subtracted = subtract(target, aligned, zones, recipe, keep_fits=True, dtype=dtype)
    results = subtracted.results
    if disc is not None:
        results = [replace(r, sci=r.sci + disc) for r in results]
    bad = target.bad(recipe.bad_bits) | ~np.isfinite(results[0].sci)
    means = [result.mean() for result in results]
    separation = plane.separations(target.frame_shape)
    return SubtractedExposure(
        name=name,
        target=target,
        aligned=aligned,
        star=star,
        plane=plane,
        recipe=recipe,
        bad=bad,
        missing=subtracted.missing,
        fits=subtracted.fits,
        frames=subtracted.frames,
        residual=np.array([residual for residual, _ in means]),
        variance=np.array([variance for _, variance in means]),
        sky=tuple(sky_noise(*each, separation) for each in means),
        integrations=[r.sci for r in results],
        n_modes_used=tuple(r.n_kept for r in results),
        maps=maps,
    )


def exposure_of_run(
    run: ExposureProducts, recipe: SubtractRecipe, /, subtracted: Subtracted | None = None
) -> SubtractedExposure:
    """Open an exposure of a finished run; one just `subtracted` is not subtracted again.

    Nor is one whose products record its fits, unless the recipe is another.
    """
    info, shape, disc = run.target.info, run.target.frame_shape, None
    maps = FitMaps(run.fit_weight, run.zone_map)
    if run.disc_model is not None:
        disc = run.disc_scale * extended_image(run.disc_model, info, run.star, run.plane, shape)
        maps = replace(maps, disc=disc)
    elif subtracted is None and recipe == from_dict(SubtractRecipe, run.recipe):
        products = [
            Recorded(view.data, view.err, view.provenance["steps"]["klip"])
            for view in run.views
            if view.data is not None and view.err is not None
        ]
        with readable(run.views[0].path, "run the pipeline again"):
            zones = _zones_of(recipe, shape, run.plane, maps)
            subtracted = restored(products, run.target, run.aligned, zones, recipe)
    return make_exposure(
        run.target,
        run.aligned,
        run.star,
        recipe,
        subtracted,
        plane=run.plane,
        name=run.name,
        maps=maps,
    )


def _zones_of(
    recipe: SubtractRecipe, shape: tuple[int, int], plane: TangentPlane, maps: FitMaps
) -> list[Zone]:
    labels = None if maps.zone_map is None else maps.zone_map.astype(int)
    return make_zones(recipe, shape, plane, labels=labels, fit_weight=maps.fit_weight)

r"""The response of a subtraction to a source: exact, without a second pass over the pixels.

Shifts, bad pixels, what fills them, and the choice of references are frozen. Where no reference
holds the source the response is linear, :math:`p - C_p R`. Where some do, the Gram matrix follows
the source exactly, :math:`G(a) = G + a (M R^T + R M^T) + a^2 M M^T` with its images M at unit flux
(`lyot.algorithms.injection`), and the response depends on the flux a.

`lyot.analysis.exposure.SubtractedExposure.response` is one object of either class; nothing else
asks which references hold the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import injection
from lyot.analysis.lights import Light, References, add_fit, area, groups_of, hull, onto_box
from lyot.analysis.psf import OffAxisPSF
from lyot.compute import memory, threads
from lyot.errors import LyotError
from lyot.subtraction.fit import Fit
from lyot.subtraction.methods import SourceFrames, method_of
from lyot.types import Array, Box

if TYPE_CHECKING:
    from lyot.analysis.exposure import SubtractedExposure

MAX_HELD_BYTES = 2**26
"""Pixels of a set of references up to which they are read once for many sources."""


class PointSource(NamedTuple):
    """A source in the sky, as an exposure sees it."""

    psf: OffAxisPSF
    separation_pix: float
    pa_deg: float
    transmission: float = 1.0  # fraction of its light that the mask lets through
    at_roll: Callable[[float], tuple[OffAxisPSF, float]] | None = None
    """PSF, and transmission over that of the exposure, where the detector is turned [degree]."""
    yx: tuple[float, float] | None = None  # where it is on the exposure [pixel], if that is known

    def on(self, exposure: SubtractedExposure, turn_deg: float = 0.0) -> tuple[Box, Array]:
        """Return its pixels on an exposure, or one that is turned, and its image at unit flux."""
        place = None if turn_deg else self.yx
        y, x = place or exposure.position(self.separation_pix, self.pa_deg - turn_deg)
        psf, share = self.at_roll(turn_deg) if turn_deg and self.at_roll else (self.psf, 1.0)
        box, image = psf.place(float(y), float(x), exposure.shape)
        return box, self.transmission * share * image


class Added(NamedTuple):
    """What a source adds to the residual, ``(n_trunc, n_rows, n_columns)`` on the pixels of a box.

    NaN where there is no residual; exactly zero at flux zero.
    """

    box: Box
    pixels: NDArray[np.float64]


Whiten = Callable[[Array], Array]
"""Whitens values on the pixels of a patch, ``(n_pix,)`` or ``(n_pix, n)``."""
WhiteResponse = Callable[[PointSource, float], Array]
"""From a source and the flux at which the response is taken: what it adds per unit flux, white."""


class LinearResponse:
    """The response where no reference holds the source: proportional to its flux."""

    is_linear: ClassVar[bool] = True

    def __init__(self, exposure: SubtractedExposure) -> None:
        """Answer for an exposure."""
        self.exposure = exposure

    def added(self, source: PointSource, /, *, flux: float = 1.0) -> Added:
        """Return what a source adds, on the pixels of its own image."""
        box, image = source.on(self.exposure)
        return Added(box, flux * self.of_images(box, image[None], box)[:, 0])

    def per_flux(
        self, sources: Sequence[PointSource], wanted: Sequence[Box], /, *, flux: Sequence[float]
    ) -> list[Array]:
        """Return what each source adds to its wanted pixels per unit flux, at any flux."""
        del flux
        placed = [source.on(self.exposure) for source in sources]
        lights = [
            Light(box, image[None], where)
            for (box, image), where in zip(placed, wanted, strict=True)
        ]
        return [added[:, 0] for added in self.of_lights(lights)]

    def whitened(self, wanted: Box, truncation: int, whiten: Whiten, /) -> WhiteResponse:
        """Return the response on `wanted` to a source."""

        def _response(source: PointSource, _: float) -> Array:
            box, image = source._replace(transmission=1.0).on(self.exposure)
            [[out]] = self.of_images(box, image[None], wanted, truncation=truncation)
            return whiten(np.nan_to_num(out).ravel()) * source.transmission

        return _response

    def of_images(
        self,
        box: Box,
        images: NDArray[np.float64] | None,
        wanted: Box,
        /,
        *,
        truncation: int | None = None,
    ) -> NDArray[np.float64]:
        """Return what images ``(n_s, n_rows, n_columns)`` on `box` add, as `of_lights`."""
        [added] = self.of_lights([Light(box, images, wanted)], truncation=truncation)
        return added

    @threads.calculation
    def of_lights(
        self, lights: Sequence[Light], /, *, truncation: int | None = None
    ) -> list[NDArray[np.float64]]:
        """Return what lights add to the residual, exactly; NaN where the residual is.

        Each ``(n_trunc, n_s, n_rows_wanted, n_columns_wanted)``; for images None the operator on
        any image. The pixels of the references in the boxes are read once for each set of
        references; nothing else is.
        """
        exposure = self.exposure
        n_modes = exposure.n_modes if truncation is None else exposure.n_modes[truncation:][:1]
        out: list[NDArray[np.float64]] = [np.zeros(0)] * len(lights)
        if not lights:
            return out
        near = [hull([light.box, light.wanted]) for light in lights]
        n_refs = 1 + max(int(fit.refs.max()) for fit in exposure.fits)
        batches = [list(range(len(lights)))]
        if n_refs * area(hull(near)) * np.dtype(np.float64).itemsize > MAX_HELD_BYTES:
            batches = [[number] for number in batches[0]]
        asked = [(hull([near[k] for k in b]), groups_of(lights, b, len(n_modes))) for b in batches]
        for number, fits_of_set in groupby(exposure.fits, key=attrgetter("reference_set")):
            memory.relieve()
            fits = list(fits_of_set)
            for bounds, groups in asked:
                refs = References.of(self._pixels(number, bounds), bounds)
                for fit in fits:
                    add_fit(fit, refs.filled(fit), groups, exposure, n_modes)
        for _, groups in asked:
            for group in groups:
                for number, added in zip(group.numbers, group.averaged(exposure), strict=True):
                    out[number] = added
        return out

    def _pixels(self, number: int, box: Box) -> NDArray[np.float64]:
        """What the fits to one set of references combine, ``(n, n_rows, n_columns)``."""
        exposure, aligned = self.exposure, self.exposure.aligned
        if number in exposure.frames:
            planes = exposure.frames[number].sci.reshape(-1, *exposure.shape)[:, *box]
        else:
            planes = aligned.planes(number)[:, *box]
        held = threads.workspace("references", planes.shape)
        held[...] = planes
        return held if aligned.pick is None or number in exposure.frames else held[aligned.pick]


class UpdatedResponse:
    """The response where references hold the source too: the Gram matrix is updated exactly."""

    is_linear: ClassVar[bool] = False

    def __init__(self, exposure: SubtractedExposure) -> None:
        """Answer for an exposure, some of whose references hold its sources."""
        self.exposure = exposure
        self.method = method_of(exposure.recipe)
        if not self.method.follows_source:
            raise LyotError(
                "Sources in references that hold them too cannot be followed through method = "
                f"{exposure.recipe.method}; analyse a run with strategy = rdi, or with method = "
                "klip."
            )

    def per_flux(
        self, sources: Sequence[PointSource], wanted: Sequence[Box], /, *, flux: Sequence[float]
    ) -> list[Array]:
        """Return what each source, of some flux, adds to its wanted pixels over that flux."""
        added = (self.added(source, flux=f) for source, f in zip(sources, flux, strict=True))
        return [
            onto_box(pixels, box, where) / f
            for (box, pixels), where, f in zip(added, wanted, flux, strict=True)
        ]

    def whitened(self, wanted: Box, truncation: int, whiten: Whiten, /) -> WhiteResponse:
        """Return the response on `wanted` to a source."""

        def _response(source: PointSource, flux: float) -> Array:
            [added] = self.per_flux([source], [wanted], flux=[flux])
            return whiten(np.nan_to_num(added[truncation]).ravel())

        return _response

    @threads.calculation
    def added(self, source: PointSource, /, *, flux: float = 1.0) -> Added:
        """Return what a source adds: the residual with it less that without it."""
        exposure, stamps = self.exposure, _Stamps.of(self.exposure, source)
        total = np.zeros((len(exposure.n_modes), stamps.in_box.size))
        pixels_out = stamps.at[stamps.in_box]
        good_out = ~exposure.bad.reshape(len(exposure.bad), -1)[:, pixels_out]
        frames_of = lru_cache(maxsize=1)(lambda number: self._frames(number, stamps, flux))
        for fit in exposure.fits:
            share = fit.zone.share.ravel()[pixels_out]
            if not share.any():
                continue
            frames = SourceFrames(*(part[fit.refs] for part in frames_of(fit.reference_set)))
            for number, row in enumerate(fit.rows):
                changes = self._changes(fit, number, stamps, frames, flux)
                for t, change in enumerate(changes):
                    total[t] += share * good_out[row] * change[stamps.in_box]
        shape = tuple(s.stop - s.start for s in stamps.box)
        n_good = good_out.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(n_good > 0, total / n_good, np.nan)
        return Added(stamps.box, mean.reshape(len(total), *shape))

    def _frames(self, number: int, stamps: _Stamps, flux: float) -> SourceFrames:
        """What the fits to one set combine, on the stamps, and what the source adds to it."""
        refs = stamps.cut(self.exposure.aligned.section(number, *stamps.bounds))
        if number not in self.exposure.frames:
            return SourceFrames(refs, stamps.in_refs)
        frames = self.exposure.frames[number]
        return self.method.with_source(frames, stamps.at, refs, stamps.in_refs, flux)

    def _changes(
        self, fit: Fit, number: int, stamps: _Stamps, frames: SourceFrames, flux: float
    ) -> list[Array]:
        """Change of the residual of one target on the stamps, for each number of modes."""
        row, at = fit.rows[number], stamps.at
        missing = self.exposure.missing[row][at]
        science = self.exposure.target.sci[row].ravel()[at] - fit.mean_target[number]
        center = (fit.mean_ref + fit.offset)[:, None]
        frozen = injection.FrozenFit(
            fit.gram,
            fit.cross[number],
            np.where(missing, 0.0, science).astype(np.float64),
            np.where(np.isfinite(frames.frames), frames.frames - center, 0.0),
            np.where(missing, 0.0, fit.zone.weight.ravel()[at]),
            fit.weight_sum,
        )
        changes = []
        for n_modes in self.exposure.n_modes:
            before, after = (
                injection.update(
                    frozen,
                    stamps.in_target,
                    frames.added,
                    a,
                    n_modes=n_modes,
                    matrix_of=lambda gram: self.method.compute(gram, gram).matrix,
                )
                for a in (0.0, flux)
            )
            change = after.residual - before.residual
            if fit.n_level.any():
                in_level = fit.zone.level.ravel()[at] & ~missing
                light = (stamps.in_target[in_level].sum(), frames.added[:, in_level].sum(axis=1))
                change = change - (
                    _level(fit, number, after, flux, *light)
                    - _level(fit, number, before, 0.0, *light)
                )
            changes.append(change)
        return changes


class _Stamps(NamedTuple):
    """A source of unit flux on all pixels where it has light, in the target or in a reference."""

    box: Box  # of its image in the target
    at: NDArray[np.intp]  # (n_at,), the pixels, flattened
    in_box: NDArray[np.intp]  # which of them are those of the box
    in_target: Array  # (n_at,)
    in_refs: Array  # (n_ref, n_at)
    bounds: Box  # that hold all pixels
    cells: tuple[NDArray[np.intp], NDArray[np.intp]]  # their rows and columns within the bounds

    @classmethod
    def of(cls, exposure: SubtractedExposure, source: PointSource) -> _Stamps:
        """Place the source in the target and, by their rolls, in the references that hold it."""
        shape, holds, ref_info = exposure.shape, exposure.holds_source, exposure.aligned.ref_info
        assert ref_info is not None
        box, image = source.on(exposure)
        frame = np.zeros(shape)
        frame[box] = image
        in_refs = np.zeros((len(holds), *shape))
        # The sky turns about the star, the detector with its distortion and mask does not.
        turns = ref_info.pa_y_deg - exposure.target.info.pa_y_deg
        for turn in np.unique(turns[holds]):
            there, view = source.on(exposure, float(turn))
            for k in np.flatnonzero(holds & (turns == turn)):
                in_refs[k][there] = view
        wanted = np.zeros(shape, bool)
        wanted[box] = True
        at = np.flatnonzero((wanted | (frame != 0) | (in_refs != 0).any(axis=0)).ravel())
        rows, columns = np.unravel_index(at, shape)
        top, left = rows.min(), columns.min()
        return cls(
            box=box,
            at=at,
            in_box=np.flatnonzero(wanted.ravel()[at]),
            in_target=frame.ravel()[at],
            in_refs=in_refs.reshape(len(in_refs), -1)[:, at],
            bounds=(slice(top, rows.max() + 1), slice(left, columns.max() + 1)),
            cells=(rows - top, columns - left),
        )

    def cut(self, section: Array) -> Array:
        """Take these pixels from what lies within the bounds."""
        return section[:, self.cells[0], self.cells[1]]


def _level(
    fit: Fit, number: int, update: injection.Updated, flux: float, in_target: float, in_refs: Array
) -> float:
    """Mean of a residual where the level is taken, by the light of the source in that area."""
    n = fit.n_level[number]
    target = fit.level_target[number] + flux * in_target / n - update.target_mean
    refs = fit.level_offset[number] - fit.offset - update.ref_means
    refs = refs + flux * in_refs / n
    return float(target - update.coefs @ refs)

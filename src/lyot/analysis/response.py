r"""The response of a subtraction to a source: exact, without a second pass over the pixels.

Shifts, bad pixels, what fills them, and the choice of references are frozen. Where no reference
holds the source the response is linear, :math:`p - C_p R`. Where some do, the Gram matrix follows
the source exactly, :math:`G(a) = G + a (M R^T + R M^T) + a^2 M M^T` with its images M at unit flux
(`lyot.algorithms.injection`), and the response depends on the flux a.

`lyot.analysis.exposure.SubtractedExposure.response` is one object of either class; nothing else
asks which references hold the source.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import injection
from lyot.analysis.psf import OffAxisPSF
from lyot.compute import memory, threads
from lyot.errors import LyotError
from lyot.subtraction.fit import Fit
from lyot.subtraction.methods import SourceFrames, method_of
from lyot.types import Array, Box

if TYPE_CHECKING:
    from lyot.analysis.exposure import SubtractedExposure


class PointSource(NamedTuple):
    """A source in the sky, as an exposure sees it."""

    psf: OffAxisPSF
    separation_pix: float
    pa_deg: float
    transmission: float = 1.0  # fraction of its light that the mask lets through
    at_roll: Callable[[float], tuple[OffAxisPSF, float]] | None = None
    """PSF, and transmission over that of the exposure, where the detector is turned [degree]."""

    def on(self, exposure: SubtractedExposure, turn_deg: float = 0.0) -> tuple[Box, Array]:
        """Return its pixels on an exposure, or one that is turned, and its image at unit flux."""
        y, x = exposure.position(self.separation_pix, self.pa_deg - turn_deg)
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

    def per_flux(self, source: PointSource, wanted: Box, /, *, flux: float) -> Array:
        """Return what a source adds to some pixels per unit flux, at any flux."""
        del flux
        box, image = source.on(self.exposure)
        return self.of_images(box, image[None], wanted)[:, 0]

    def whitened(self, wanted: Box, truncation: int, whiten: Whiten, /) -> WhiteResponse:
        """Return the response on `wanted` to a source."""

        def _response(source: PointSource, _: float) -> Array:
            box, image = source._replace(transmission=1.0).on(self.exposure)
            [[out]] = self.of_images(box, image[None], wanted, truncation=truncation)
            return whiten(np.nan_to_num(out).ravel()) * source.transmission

        return _response

    @threads.calculation
    def of_images(
        self,
        box: Box,
        images: NDArray[np.float64] | None,
        wanted: Box,
        /,
        *,
        truncation: int | None = None,
    ) -> NDArray[np.float64]:
        """Return what images ``(n_s, n_rows, n_columns)`` on `box` add to the residual.

        Exactly, ``(n_trunc, n_s, n_rows_wanted, n_columns_wanted)``; NaN where the residual is. For
        None, one image in each pixel: the operator on any. The pixels of the references in both
        boxes are read once for each set of references; nothing else is.
        """
        exposure = self.exposure
        size = (box[0].stop - box[0].start, box[1].stop - box[1].start)
        n_s = size[0] * size[1] if images is None else len(images)
        flat = None if images is None else images.reshape(n_s, -1)
        n_modes = exposure.n_modes if truncation is None else exposure.n_modes[truncation:][:1]
        shape = (wanted[0].stop - wanted[0].start, wanted[1].stop - wanted[1].start)
        total = np.zeros((len(n_modes), n_s, shape[0] * shape[1]))
        good_out = ~exposure.bad[:, wanted[0], wanted[1]].reshape(len(exposure.bad), -1)
        unit = np.eye(n_s) if flat is None else flat
        direct = onto_box(unit.reshape(n_s, *size), box, wanted).reshape(n_s, -1)

        @lru_cache(maxsize=1)  # the fits to one set of references follow one another
        def _sections(number: int) -> tuple[Array, Array]:
            memory.relieve()
            pixels_in = self._section(number, box)
            if _holds(box, wanted):
                pixels_out = pixels_in[:, _within(wanted[0], box[0]), _within(wanted[1], box[1])]
            else:
                pixels_out = self._section(number, wanted)
            return pixels_in.reshape(len(pixels_in), -1), pixels_out.reshape(len(pixels_in), -1)

        for fit in exposure.fits:
            share = fit.zone.share[wanted].ravel()
            if not share.any():
                continue
            refs_in, pixels_out = _sections(fit.reference_set)
            refs_out = _centered(pixels_out, fit)
            if flat is None:
                refs_in, offset = _centered(refs_in, fit), fit.offset
            else:  # a mean is taken off the products, not off each pixel
                refs_in, offset = _picked(refs_in, fit), fit.mean_ref + fit.offset
            for members in _alike(fit, exposure, good_out, box):
                row = fit.rows[members[0]]
                good_in = ~exposure.missing[row].reshape(exposure.shape)[box].ravel()
                w = fit.zone.weight[box].ravel() * good_in
                mean = (w if flat is None else flat @ w) / fit.weight_sum
                cross = injection.source_products(flat, w, refs_in, offset)
                if not np.isfinite(cross).all():  # pixels that are bad in all references
                    refs_in = np.where(np.isfinite(refs_in), refs_in, 0.0)
                    cross = injection.source_products(flat, w, refs_in, offset)
                for t, n in enumerate(n_modes):
                    model = injection.linear_response(
                        cross, refs_out, fit.offset, fit.operator.matrix, n_modes=n
                    )
                    constant = mean
                    if fit.n_level.any():
                        constant = _far_level(fit, members, box, good_in, flat, model.coefs)
                    out = direct - model.pixels - constant[:, None]
                    total[t] += len(members) * share * good_out[row] * out
        return _averaged(total, good_out).reshape(len(n_modes), n_s, *shape)

    def _section(self, number: int, box: Box) -> Array:
        """The pixels of one set of references on a box, ``(n_ref, n_rows, n_columns)``."""
        exposure = self.exposure
        if number in exposure.frames:
            frames = exposure.frames[number].sci.reshape(-1, *exposure.shape)
            pixels = frames[:, box[0], box[1]].astype(np.float64)
        else:
            pixels = exposure.aligned.section(number, *box)
        return pixels.reshape(-1, *(part.stop - part.start for part in box))


def _far_level(
    fit: Fit, members: list[int], box: Box, good: Array, images: Array | None, coefs: Array
) -> Array:
    """Mean of the response where the level is taken, over targets that answer alike."""
    per_pixel = float(np.mean(1.0 / fit.n_level[members]))
    offset = fit.level_offset[members].mean(axis=0) - fit.offset
    in_level = (fit.zone.level[box].ravel() & good).astype(np.float64)
    light = in_level if images is None else images @ in_level
    return np.asarray(light * per_pixel - coefs @ offset)


def _averaged(total: Array, good: NDArray[np.bool_]) -> Array:
    """Mean over the good integrations of each pixel; NaN where there is none."""
    n_good = good.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n_good > 0, total / n_good, np.nan)


def _centered(pixels: Array, fit: Fit) -> NDArray[np.float64]:
    """The references of a fit less their means; zero where a pixel is bad in all of them."""
    centered = _picked(pixels, fit) - fit.mean_ref[:, None]
    if not np.isfinite(centered.sum()):
        centered[~np.isfinite(centered)] = 0.0
    return centered


def _picked(pixels: Array, fit: Fit) -> Array:
    """The references of a fit, of those of its set."""
    return pixels if len(fit.refs) == len(pixels) else pixels[fit.refs]


def _alike(
    fit: Fit, exposure: SubtractedExposure, good_out: NDArray[np.bool_], box: Box
) -> list[list[int]]:
    """Group the targets of a fit that answer alike: the same gaps in the boxes."""
    groups: dict[tuple[bytes, bytes], list[int]] = {}
    for number, i in enumerate(fit.rows):
        inside = exposure.missing[i].reshape(exposure.shape)[box]
        groups.setdefault((inside.tobytes(), good_out[i].tobytes()), []).append(number)
    return list(groups.values())


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

    def per_flux(self, source: PointSource, wanted: Box, /, *, flux: float) -> Array:
        """Return what a source of some flux adds to some pixels, over that flux."""
        box, pixels = self.added(source, flux=flux)
        return onto_box(pixels, box, wanted) / flux

    def whitened(self, wanted: Box, truncation: int, whiten: Whiten, /) -> WhiteResponse:
        """Return the response on `wanted` to a source."""

        def _response(source: PointSource, flux: float) -> Array:
            added = self.per_flux(source, wanted, flux=flux)[truncation]
            return whiten(np.nan_to_num(added).ravel())

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
        return Added(stamps.box, _averaged(total, good_out).reshape(len(total), *shape))

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


def onto_box(images: Array, box: Box, wanted: Box, /) -> NDArray[np.float64]:
    """Cut images ``(n, n_rows, n_columns)`` from one box to another, zero where they have none."""
    out = np.zeros((len(images), *(s.stop - s.start for s in wanted)))
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, wanted, strict=True)
    )
    if rows.start < rows.stop and columns.start < columns.stop:
        out[:, _within(rows, wanted[0]), _within(columns, wanted[1])] = images[
            :, _within(rows, box[0]), _within(columns, box[1])
        ]
    return out


def _holds(box: Box, other: Box) -> bool:
    """Whether a box holds another."""
    return all(b.start <= o.start and o.stop <= b.stop for b, o in zip(box, other, strict=True))


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)

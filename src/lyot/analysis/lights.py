"""Lights on boxes of an exposure, and what the fits of its subtraction make of them.

Lights of one shape are taken together, and all products with a set of references are made while its
pixels are at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lyot.algorithms import injection, klip
from lyot.algorithms.zones import Zone
from lyot.subtraction.fit import Fit
from lyot.types import Array, Box

if TYPE_CHECKING:
    from lyot.analysis.exposure import SubtractedExposure


class Light(NamedTuple):
    """Images on the pixels of a box, and the pixels where it is wanted what they add."""

    box: Box
    images: NDArray[np.float64] | None  # (n_s, n_rows, n_columns); None for one in each pixel
    wanted: Box


class References(NamedTuple):
    """The pixels of a set of references within bounds."""

    pixels: NDArray[np.float64]  # (n, n_rows, n_columns)
    bounds: Box
    gaps: NDArray[np.bool_]  # (n_rows, n_columns): True where some of them are not known
    known: NDArray[np.bool_]  # (n, n_gap)

    @classmethod
    def of(cls, pixels: NDArray[np.float64], bounds: Box) -> References:
        """Look for gaps: most often those of one reference are those of all."""
        gaps = np.asarray(~np.isfinite(pixels[0]))
        held = pixels[:, gaps]
        pixels[:, gaps] = 0.0
        is_all = np.isfinite(pixels.sum())
        pixels[:, gaps] = held
        if not is_all:
            gaps = np.asarray(~np.isfinite(pixels).all(axis=0))
        return cls(pixels, bounds, gaps, np.isfinite(pixels[:, gaps]))

    def filled(self, fit: Fit) -> References:
        """Set what is not known to the means that a fit takes off, in place."""
        if self.gaps.any():
            means = np.zeros((len(self.pixels), 1))
            means[fit.refs, 0] = fit.mean_ref
            self.pixels[:, self.gaps] = np.where(self.known, self.pixels[:, self.gaps], means)
        return self

    def on(self, box: Box, fit: Fit) -> NDArray[np.float64]:
        """Return those that a fit uses on a box, ``(n_ref, n_rows, n_columns)``."""
        cut = self.pixels[:, *inside(box, self.bounds)]
        return cut if len(fit.refs) == len(cut) else cut[fit.refs]


class _Boxes(NamedTuple):
    """Boxes of one shape, whose pixels are taken from frames at once."""

    each: list[Box]
    corners: NDArray[np.intp]  # (2, n), first rows and columns

    @classmethod
    def of(cls, boxes: list[Box]) -> _Boxes:
        """List the corners of boxes."""
        return cls(boxes, np.array([[part.start for part in box] for box in boxes]).T)

    def of_some(self, pick: NDArray[np.intp]) -> _Boxes:
        """Return some of the boxes."""
        return _Boxes([self.each[k] for k in pick], self.corners[:, pick])

    def pixels(self, frames: Array) -> Array:
        """Return pixels of frames, ``(..., n, n_rows, n_columns)``."""
        windows = sliding_window_view(frames, _shape(self.each[0]), axis=(-2, -1))
        return np.asarray(windows[..., self.corners[0], self.corners[1], :, :])


class _OnZone(NamedTuple):
    """Those lights of a group that a zone takes, on its pixels."""

    pick: NDArray[np.intp]
    boxes: _Boxes
    wanted: _Boxes
    images: Array | None
    direct: Array
    weight: Array  # (n, n_rows, n_columns), of the fit
    level: Array  # likewise, True where the level is taken
    share: Array  # (n, n_rows, n_columns), of the result, where it is wanted


@dataclass(frozen=True, eq=False)
class Group:
    """Lights of one shape, and what they add over all integrations so far."""

    numbers: list[int]
    boxes: _Boxes
    wanted: _Boxes
    images: Array | None  # (n, n_s, n_rows, n_columns); None for one in each pixel
    direct: Array  # (n, n_s, n_rows, n_columns), the light itself where it is wanted
    total: Array  # (n_trunc, n, n_s, n_rows, n_columns)
    on_zones: dict[tuple[int, ...], _OnZone] = field(default_factory=dict)

    def on(self, zone: Zone) -> _OnZone:
        """Return what a zone takes; its arrays live as long as the fits."""
        key = id(zone.share), id(zone.weight), id(zone.level)
        if key not in self.on_zones:
            share = self.wanted.pixels(zone.share)
            pick = np.flatnonzero(share.any(axis=(1, 2)))
            boxes = self.boxes.of_some(pick)
            weight = self.boxes.pixels(zone.weight)[pick]
            level = np.zeros(weight.shape, bool)
            if zone.level.size:
                level = self.boxes.pixels(zone.level)[pick]
            self.on_zones[key] = _OnZone(
                pick,
                boxes,
                self.wanted.of_some(pick),
                None if self.images is None else self.images[pick],
                self.direct[pick],
                weight,
                level,
                share[pick],
            )
        return self.on_zones[key]

    def averaged(self, exposure: SubtractedExposure) -> Array:
        """Mean over the good integrations of each pixel, of each light; NaN where there is none."""
        n_good = self.wanted.pixels(exposure.n_good)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(n_good > 0, self.total / n_good, np.nan).swapaxes(0, 1)


def groups_of(lights: Sequence[Light], numbers: list[int], n_trunc: int) -> list[Group]:
    """Put lights of one shape together."""
    alike: dict[object, list[int]] = {}
    for k in numbers:
        box, images, wanted = lights[k]
        n = -1 if images is None else len(images)
        alike.setdefault((n, _shape(box), _shape(wanted)), []).append(k)
    return [_group([lights[k] for k in own], own, n_trunc) for own in alike.values()]


def _group(lights: list[Light], numbers: list[int], n_trunc: int) -> Group:
    images = None
    if lights[0].images is not None:
        images = np.stack([light.images for light in lights])  # type: ignore[misc]
    direct = [
        onto_box(np.eye(area(box)).reshape(-1, *_shape(box)) if own is None else own, box, wanted)
        for box, own, wanted in lights
    ]
    return Group(
        numbers,
        _Boxes.of([light.box for light in lights]),
        _Boxes.of([light.wanted for light in lights]),
        images,
        np.stack(direct),
        np.zeros((n_trunc, len(lights), *direct[0].shape)),
    )


class _Part(NamedTuple):
    """What targets of a fit, which answer alike, are asked about lights of one shape."""

    group: Group
    refs: References
    members: list[int]
    good: NDArray[np.bool_]  # (n_member, n, n_rows, n_columns), where it is wanted
    cross: Array  # (n, n_s, n_ref)
    light: Array  # (n, n_s), sums of the light with the weight of the fit
    in_level: Array  # (n, n_s), light where the level is taken

    @classmethod
    def of(
        cls,
        fit: Fit,
        members: list[int],
        group: Group,
        refs: References,
        exposure: SubtractedExposure,
    ) -> _Part:
        """Take the products of lights with the references."""
        on, rows = group.on(fit.zone), fit.rows[members]
        good_in = ~on.boxes.pixels(exposure.missing[rows[0]].reshape(exposure.shape))
        weight, level = on.weight * good_in, (on.level & good_in).astype(np.float64)
        near = [refs.on(box, fit) for box in on.boxes.each]
        center = fit.mean_ref + fit.offset  # taken off the products, not off each pixel
        if on.images is None:
            light, in_level = (part.reshape(len(part), -1) for part in (weight, level))
            pairs = zip(weight, near, strict=True)
            cross = np.stack([injection.all_products(*one, center) for one in pairs])
        else:
            light, in_level = (np.einsum("nsij,nij->ns", on.images, w) for w in (weight, level))
            cross = injection.source_products(on.images, weight, light, near, center)
        good = ~on.wanted.pixels(exposure.bad[rows])
        return cls(group, refs, members, good, cross, light, in_level)

    def add(self, fit: Fit, coefs: Array) -> None:
        """Add what lights add by coefficients ``(n_trunc, n, n_s, n_ref)``, over the targets."""
        on, center = self.group.on(fit.zone), fit.mean_ref + fit.offset
        share, count = on.share[:, None], self.good.sum(axis=0)[:, None]
        near = [self.refs.on(box, fit) for box in on.wanted.each]
        for own, total in zip(coefs, self.group.total, strict=True):
            constant = self.light[..., None] / fit.weight_sum
            if fit.n_level.any():  # the mean of the response where the level is taken
                level = (fit.level_offset[self.members] - fit.offset).T
                constant = self.in_level[..., None] / fit.n_level[self.members] - own @ level
            changed = on.direct - injection.linear_response(own, near, center)
            if constant.shape[-1] == 1:
                total[on.pick] += (changed - constant[..., None]) * (share * count)
            else:
                over_targets = np.einsum("nst,tnij->nsij", constant, self.good)
                total[on.pick] += share * (changed * count - over_targets)


def _alike(fit: Fit, exposure: SubtractedExposure, boxes: _Boxes) -> list[list[int]]:
    """Group the targets of a fit that answer alike: the same gaps in all boxes."""
    if len(fit.rows) == 1:
        return [[0]]
    groups: dict[bytes, list[int]] = {}
    for number, row in enumerate(fit.rows):
        gaps = boxes.pixels(exposure.missing[row].reshape(exposure.shape))
        groups.setdefault(gaps.tobytes(), []).append(number)
    return list(groups.values())


def add_fit(
    fit: Fit,
    refs: References,
    groups: list[Group],
    exposure: SubtractedExposure,
    n_modes: tuple[int, ...],
    /,
) -> None:
    """Add what one fit makes of lights; coefficients of all of them come of one product."""
    parts = [
        _Part.of(fit, members, group, refs, exposure)
        for group in groups
        if group.on(fit.zone).pick.size
        for members in _alike(fit, exposure, group.on(fit.zone).boxes)
    ]
    if not parts:
        return
    flat = [part.cross.reshape(-1, part.cross.shape[-1]) for part in parts]
    ends = np.cumsum([len(cross) for cross in flat])[:-1]
    cross, matrix = np.concatenate(flat), fit.operator.matrix
    coefs = np.stack([klip.coefficients(cross, matrix, n_modes=n) for n in n_modes])
    for part, own in zip(parts, np.split(coefs, ends, axis=1), strict=True):
        part.add(fit, own.reshape(len(n_modes), *part.cross.shape))


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


def hull(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds others."""
    rows, columns = (
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )
    return rows, columns


def _shape(box: Box) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def area(box: Box) -> int:
    """Return the number of pixels of a box."""
    n_rows, n_columns = _shape(box)
    return n_rows * n_columns


def inside(box: Box, bounds: Box) -> Box:
    """A box on the pixels of one that holds it."""
    return _within(box[0], bounds[0]), _within(box[1], bounds[1])


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)

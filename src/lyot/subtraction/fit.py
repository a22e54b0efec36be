"""The fit of a zone: products over its pixels, and what follows for any choice of references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import imputation, klip, nmf, repair, selection
from lyot.algorithms.statistics import median_variance
from lyot.algorithms.zones import Zone
from lyot.compute import devices, threads
from lyot.files.aligned import AlignedFrames, ReferenceInfo
from lyot.parameters import (
    BY_CORRELATION,
    BY_RESIDUAL,
    BY_TIME,
    IMPUTATION,
    MEAN,
    MEDIAN,
    NMF,
    PROPAGATED,
    SubtractRecipe,
)
from lyot.references.aligner import learn_from
from lyot.types import Array

Rows = slice | NDArray[np.intp]


class Targets(NamedTuple):
    """Rows of target pixels that share their references.

    Attributes
    ----------
    sci, bad, variance : ndarray, shape (n_t, n_pix)
        Their pixels, which are bad, and their variance.
    """

    sci: Array
    bad: Array
    variance: Array

    def centered(self, at: Any, mean: Array) -> Array:
        """Return pixels less the mean of their row, zero where they are missing.

        Parameters
        ----------
        at : slice or ndarray of int
            Which pixels.
        mean : ndarray, shape (n,)
            What is taken off each row.

        Returns
        -------
        ndarray, shape (n_t, n_at)
            Centered pixels.
        """
        data = self.sci[:, at] - mean[:, None]
        missing = self.bad[:, at]
        return np.where(missing, 0.0, data) if missing.any() else data

    def rows(self, pick: Rows) -> Targets:
        """Return some of the rows.

        Parameters
        ----------
        pick : slice or ndarray of int
            Which.

        Returns
        -------
        Targets
            Those rows.
        """
        return Targets(self.sci[pick], self.bad[pick], self.variance[pick])

    def part(self, at: Array) -> Targets:
        """Return some of the pixels, side by side.

        Parameters
        ----------
        at : ndarray of int
            Which pixels.

        Returns
        -------
        Targets
            All rows of them.
        """
        return Targets(*(_columns(array, at) for array in self))


@dataclass(frozen=True, eq=False)
class RefPixels:
    """References as rows of pixels, filled where some are bad; where all are, they read as zero.

    Attributes
    ----------
    sci, variance : ndarray, shape (n_all, n_pix), float32
        All references, and their variance.
    nowhere : ndarray of bool, shape (n_pix,)
        True where every reference is bad.
    pick : ndarray of int, shape (n_ref,), or None
        Which of them are meant; None for all.
    median_of : tuple of ndarray, or None
        For the median of references: the level and the factor of each that went into it.
    made_of : ndarray, shape (n_all, n_ref), or None
        For components of references: how much of each reference is in each; the variance is
        then that of the references.
    """

    sci: NDArray[np.float32]
    variance: NDArray[np.float32]
    nowhere: NDArray[np.bool_]
    pick: NDArray[np.intp] | None = None
    median_of: tuple[Array, Array] | None = None
    made_of: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Return their number."""
        return len(self.sci) if self.pick is None else len(self.pick)

    def of(self, pick: NDArray[np.intp]) -> RefPixels:
        """Return some of the references; no pixel is copied.

        Parameters
        ----------
        pick : ndarray of int
            Which.

        Returns
        -------
        RefPixels
            Those references.
        """
        return self if len(pick) == len(self.sci) else replace(self, pick=pick)

    def part(self, at: Array) -> RefPixels:
        """Return some of the pixels, side by side: references are then picked much quicker.

        Indexing would leave the pixels of a reference far apart.

        Parameters
        ----------
        at : ndarray of int
            Which pixels.

        Returns
        -------
        RefPixels
            All references there.
        """
        sci, variance = (_columns(array, at) for array in (self.sci, self.variance))
        return replace(self, sci=sci, variance=variance, nowhere=self.nowhere[at])

    def _part(self, array: Array, at: Any) -> Array:
        part = array[:, at]
        return part if self.pick is None else np.take(part, self.pick, axis=0)

    def centered(self, at: Any, mean: Array) -> Array:
        """Return pixels less the mean of their row, in a thread's own memory.

        Parameters
        ----------
        at : slice or ndarray of int
            Which pixels.
        mean : ndarray, shape (n,)
            What is taken off each row.

        Returns
        -------
        ndarray, shape (n_ref, n_at)
            Centered pixels; valid until the thread asks again.
        """
        rows = self._part(self.sci, at)
        out = np.subtract(rows, mean[:, None], out=threads.workspace.array("rows", rows.shape))
        out[:, self.nowhere[at]] = 0.0
        return out

    def variance_at(self, at: Any) -> Array:
        """Return variances, zero where every reference is bad.

        A copy: rows a multiple of 64 KiB apart, as those of 640 x 640 pixels are, get in each
        other's way in the cache of the processor, and a product reads them many times.

        Parameters
        ----------
        at : slice or ndarray of int
            Which pixels.

        Returns
        -------
        ndarray, shape (n_ref, n_at)
            Variances.
        """
        whole = self.pick is None or self.made_of is not None
        rows = self.variance[:, at] if whole else self._part(self.variance, at)
        nowhere = self.nowhere[at]
        if whole and isinstance(at, slice):
            rows = rows.copy()
        return np.where(nowhere, np.float32(0), rows) if nowhere.any() else rows

    def in_references(self, factors: Array) -> Array:
        """Turn factors of what is subtracted into those of the references it is made of.

        Parameters
        ----------
        factors : ndarray, shape (n, n_ref)
            Factors.

        Returns
        -------
        ndarray, shape (n, n_all)
            The same ones, unless these are components.
        """
        if self.made_of is None:
            return factors
        return factors @ (self.made_of if self.pick is None else self.made_of[self.pick])

    @classmethod
    def from_frames(cls, frames: AlignedFrames) -> RefPixels:
        """Take the references of one set, filled where some are bad.

        Parameters
        ----------
        frames : AlignedFrames
            The references.

        Returns
        -------
        RefPixels
            Finite, but for pixels that are bad in all.
        """
        n_ref = len(frames.sci)
        sci, variance = frames.sci.reshape(n_ref, -1), frames.variance.reshape(n_ref, -1)
        missing = ~np.isfinite(sci)
        nowhere = np.asarray(missing.all(axis=0))
        at = np.flatnonzero(missing.any(axis=0) & ~nowhere)
        if at.size:
            prediction = learn_from(sci, variance, missing)
            sci, variance = sci.copy(), variance.copy()
            sci[:, at], variance[:, at] = repair.fill_from_others(
                sci[:, at], variance[:, at], missing[:, at], prediction
            )
        return cls(sci, variance, nowhere)


def _columns(array: Array, at: Array) -> Array:
    """Some columns of an array, each row of the result in one piece."""
    out = np.empty((len(array), len(at)), array.dtype)

    def _take(rows: slice) -> None:
        np.take(array[rows], at, axis=1, out=out[rows], mode="clip")

    step = max(-(-len(array) // threads.n_threads()), 1)
    threads.map_ordered(_take, [slice(i, i + step) for i in range(0, len(array), step)])
    return out


def stand_in(refs: RefPixels, recipe: SubtractRecipe, /) -> RefPixels:
    """Return what a method subtracts in the place of the references themselves.

    Parameters
    ----------
    refs : RefPixels
        The references.
    recipe : SubtractRecipe
        For its method.

    Returns
    -------
    RefPixels
        Their median as one frame, or their non-negative components; else the references.
    """
    if recipe.method == MEDIAN:
        return _median(refs)
    if recipe.method == NMF:
        return _components(refs, max(recipe.n_modes))
    return refs


def scaled_median(sci: Array, scaling: tuple[Array, Array], /) -> NDArray[np.float64]:
    """Return the median of references that were brought to one level and brightness.

    Parameters
    ----------
    sci : ndarray, shape (n_ref, n_pix)
        References.
    scaling : tuple of ndarray, shape (n_ref,)
        The level of each, and the factor after it is taken off.

    Returns
    -------
    ndarray, shape (n_pix,)
        Their median.
    """
    level, factor = scaling
    scaled = np.subtract(sci, level[:, None], dtype=np.float64) * factor[:, None]
    return np.asarray(np.median(scaled, axis=0))


def _median(refs: RefPixels) -> RefPixels:
    """The median of the references as one frame."""
    level, factor = _scaling(refs)
    median = np.empty(refs.sci.shape[1], refs.sci.dtype)
    variance = np.empty(median.shape, np.float32)

    def _block(at: slice) -> None:
        sci = np.where(refs.nowhere[at], 0.0, refs.sci[:, at])
        median[at] = scaled_median(sci, (level, factor))
        scaled = (sci - level[:, None]) * factor[:, None]
        variance[at] = median_variance(scaled, refs.variance_at(at) * factor[:, None] ** 2)

    threads.map_ordered(_block, threads.pixel_blocks(len(median)))
    return RefPixels(median[None], variance[None], refs.nowhere, median_of=(level, factor))


def _scaling(refs: RefPixels) -> tuple[Array, Array]:
    """Level of each reference, and what brings it to the mean brightness of all."""
    good = refs.sci[:, ~refs.nowhere]
    size = np.sqrt(np.var(good, axis=1, dtype=np.float64))
    factor = np.divide(size.mean(), size, out=np.zeros_like(size), where=size > 0)
    return good.mean(axis=1, dtype=np.float64), factor


def _components(refs: RefPixels, n_components: int) -> RefPixels:
    """Factorise the references; the start is the positive part of their leading directions."""
    n = max(min(n_components, len(refs.sci)), 1)
    weight = (~refs.nowhere).astype(np.float64)
    pixels = np.where(refs.nowhere, 0.0, refs.sci).astype(np.float64)
    _, vectors = np.linalg.eigh(pixels @ pixels.T)
    leading = vectors[:, ::-1][:, :n]
    sign = np.where((np.maximum(leading, 0) ** 2).sum(axis=0) >= 0.5, 1.0, -1.0)
    start = np.maximum(leading * sign, 0.0) + 1e-3
    found = nmf.factorize(pixels, weight, start)
    scale = np.sqrt(weight.sum())  # so that float32 holds them well
    return RefPixels(
        (scale * found.pixels).astype(np.float32),
        refs.variance,
        refs.nowhere,
        made_of=scale * np.linalg.pinv(found.factors),
    )


@dataclass(eq=False)
class ZoneProducts:
    """What the pixels of a zone give, for all targets of a set and all references.

    Attributes
    ----------
    zone : Zone
        The zone.
    index : ndarray of int or slice
        Its pixels in the frame.
    targets, refs : Targets, RefPixels
        Their pixels in the zone, side by side; all there are, where the zone is the frame.
    weight : ndarray, shape (n_zone_pix,)
        Weight of each in the fit.
    mean_target, mean_ref : ndarray, shape (n_t,), (n_ref,)
        What is taken off.
    weight_sum : float
        Sum of the weights; infinity where no mean is subtracted.
    weight_left : ndarray, shape (n_t,)
        Sum of the weights of the good pixels of each target; infinity likewise.
    gram, whole_gram : ndarray, shape (n_ref, n_ref)
        Gram matrix in the fit, and over all pixels of the zone.
    cross : ndarray, shape (n_t, n_ref)
        Products of the targets with the references.
    own_grams : list of ndarray, or None
        For each target the Gram matrix without its missing pixels, equal ones the same object;
        None where nothing is missing.
    own_offset : ndarray, shape (n_t, n_ref)
        Mean of each centered reference over the good pixels of each target.
    level_target, level_offset : ndarray, shape (n_t,), (n_t, n_ref)
        Means of centered targets and references where the level is taken.
    has_level : bool
        Whether that is elsewhere than in the zone.
    target_square : ndarray, shape (n_t,)
        Product of each centered target with itself over its good pixels.
    typical_variance : ndarray, shape (n_zone_pix,)
        Mean variance of the targets.
    noise_scale : ndarray, shape (n_t,)
        Variance of each target over that.
    noise_gram : ndarray, shape (n_ref, n_ref), or None
        Gram matrix with the weight ``w^2 var`` of the typical noise, where references are chosen:
        the noise of any coefficients follows from it.
    """

    zone: Zone
    index: Array | slice
    targets: Targets
    refs: RefPixels
    weight: Array
    mean_target: Array
    mean_ref: Array
    weight_sum: float
    weight_left: Array
    gram: Array
    whole_gram: Array
    cross: Array
    own_grams: list[Array] | None
    own_offset: Array
    level_target: Array
    level_offset: Array
    has_level: bool
    target_square: Array
    typical_variance: Array
    noise_scale: Array
    noise_gram: Array | None = None

    def of(self, rows: NDArray[np.intp]) -> ZoneProducts:
        """Return the products of some targets.

        Parameters
        ----------
        rows : ndarray of int
            Which.

        Returns
        -------
        ZoneProducts
            Theirs alone.
        """
        own = self.own_grams
        per_target = [
            "mean_target",
            "weight_left",
            "cross",
            "own_offset",
            "level_target",
            "level_offset",
            "target_square",
            "noise_scale",
        ]
        return replace(
            self,
            own_grams=None if own is None else [own[i] for i in rows],
            targets=self.targets if len(rows) == len(self.cross) else self.targets.rows(rows),
            **{name: getattr(self, name)[rows] for name in per_target},
        )

    def gram_of(self, target: int) -> Array:
        """Return the Gram matrix of one target.

        Parameters
        ----------
        target : int
            Its number.

        Returns
        -------
        ndarray, shape (n_ref, n_ref)
            Without the pixels that it misses.
        """
        return self.gram if self.own_grams is None else self.own_grams[target]


def zone_products(
    targets: Targets,
    refs: RefPixels,
    zone: Zone,
    recipe: SubtractRecipe,
    device: devices.Device,
    /,
) -> ZoneProducts:
    """Touch the pixels of a zone for the first of two times.

    Parameters
    ----------
    targets : Targets
        The targets.
    refs : RefPixels
        The references.
    zone : Zone
        The zone.
    recipe : SubtractRecipe
        How to subtract.
    device : lyot.compute.devices.Device
        Where the products are computed.

    Returns
    -------
    ZoneProducts
        Enough for any sub-block of the references.
    """
    share, weight = zone.share.ravel(), zone.weight.ravel()
    whole = zone.whole.ravel() if zone.whole.size else weight
    used = (share > 0) | (weight > 0) | (whole > 0)
    index: Array | slice = slice(None)
    part, pixels = targets, refs
    if not used.all():
        index = np.flatnonzero(used)
        part, pixels = targets.part(index), refs.part(index)
    missing = part.bad
    nothing = pixels.nowhere | missing.all(axis=0)
    weight = np.where(nothing, 0.0, weight[index])
    whole = np.where(pixels.nowhere, 0.0, whole[index]) if zone.whole.size else weight
    weight_t = np.array([weight.sum() - weight[row].sum() for row in missing])
    mean_target, rough_mean = np.zeros(len(part.sci)), np.zeros(len(refs))
    if recipe.subtract_mean:
        mean_target = _good_mean(part.sci, missing, weight, weight_t)
        rough_mean = _rough_mean(pixels.sci, weight)

    def _products(with_weight: Array) -> klip.Products:
        plain = bool((with_weight == 1.0).all())

        def _block(at: slice) -> klip.Products:
            rows = pixels.centered(at, rough_mean)
            data = part.centered(at, mean_target)
            root = np.sqrt(with_weight[at])
            if not plain:
                rows *= root
                data *= root
            products: klip.Products = device.run(klip.block_products, data, rows, root)
            return products

        parts = threads.map_ordered(_block, threads.pixel_blocks(len(weight)))
        return klip.Products(*(sum(p) for p in zip(*parts, strict=True)))

    gram, cross, ref_sum = _products(weight)
    whole_gram = gram
    if zone.whole.size:
        whole_gram, _, whole_sum = _products(whole)
        if recipe.subtract_mean and whole.any():
            whole_gram, _ = klip.recenter(whole_gram, whole_sum, float(whole.sum()))
    weight_sum, mean_ref = np.inf, rough_mean
    if recipe.subtract_mean and weight.any():
        weight_sum = float(weight.sum())
        gram, rest = klip.recenter(gram, ref_sum, weight_sum)
        mean_ref = rough_mean + rest
    typical = part.variance.mean(axis=0, dtype=np.float64)
    brightness = targets.variance.mean(axis=1, dtype=np.float64)
    weight_left = weight_t if recipe.subtract_mean else np.full(len(weight_t), np.inf)
    own_grams, own_offset = _own_grams(
        gram, missing & (weight > 0), pixels.sci, weight, mean_ref, weight_left
    )
    made = ZoneProducts(
        zone=zone,
        index=index,
        targets=part,
        refs=pixels,
        weight=weight,
        mean_target=mean_target,
        mean_ref=mean_ref,
        weight_sum=weight_sum,
        weight_left=weight_left,
        gram=gram,
        whole_gram=whole_gram if zone.whole.size else gram,
        cross=cross,
        own_grams=own_grams,
        own_offset=own_offset,
        level_target=np.zeros(len(targets.sci)),
        level_offset=own_offset,
        has_level=recipe.subtract_mean and bool(zone.level.any()),
        target_square=_squares(part.sci, missing, mean_target, weight),
        typical_variance=typical,
        noise_scale=brightness / max(brightness.mean(), np.finfo(float).tiny),
    )
    if recipe.fits_each and recipe.error == PROPAGATED:
        made.noise_gram = _noise_gram(pixels, mean_ref, weight**2 * typical)
    if made.has_level:
        made.level_target, made.level_offset = _levels(targets, refs, made)
    return made


MAX_NOISE_PIXELS = 1024


def _noise_gram(refs: RefPixels, mean_ref: Array, weight: Array) -> NDArray[np.float64]:
    """Gram matrix with a weight, from pixels evenly spread: it corrects squares of coefficients."""
    every = max(len(weight) // MAX_NOISE_PIXELS, 1)
    at = slice(None, None, every)
    rows = refs.centered(at, mean_ref) * np.sqrt(weight[at])
    return np.asarray(rows @ rows.T * (weight.sum() / max(weight[at].sum(), 1e-300)))


def choose(
    products: ZoneProducts,
    allowed: NDArray[np.bool_] | None,
    recipe: SubtractRecipe,
    ref_info: ReferenceInfo | None,
    mjd: float,
    /,
) -> NDArray[np.bool_]:
    """Choose the references of each target.

    Parameters
    ----------
    products : ZoneProducts
        The products of the zone.
    allowed : ndarray of bool, shape (n_ref,), or None
        References that may be chosen; None for all.
    recipe : SubtractRecipe
        How to choose.
    ref_info : ReferenceInfo or None
        When the references were taken.
    mjd : float
        When the targets were taken [day].

    Returns
    -------
    ndarray of bool, shape (n_t, n_ref)
        The references of each target.
    """
    n_t, n_ref = products.cross.shape
    free = np.ones(n_ref, bool) if allowed is None else allowed
    chosen = np.empty((n_t, n_ref), bool)
    for i in range(n_t):
        taken = free
        gram, cross = products.gram_of(i), products.cross[i]
        if recipe.select == BY_CORRELATION or recipe.min_correlation > -1.0:
            alike = selection.correlations(gram, cross, float(products.target_square[i]))
            taken = taken & (alike >= recipe.min_correlation)
            if recipe.select == BY_CORRELATION:
                taken = selection.highest(alike, taken, recipe.n_refs)
        if recipe.select == BY_RESIDUAL:
            taken = selection.stepwise(gram, cross, taken, recipe.n_refs)
        elif recipe.select == BY_TIME and ref_info is not None:
            late = np.abs(ref_info.mjd - mjd)
            taken = selection.highest(
                -np.where(np.isfinite(late), late, np.inf), taken, recipe.n_refs
            )
        elif recipe.method == NMF:
            taken = taken & nmf.non_negative(gram, cross)
        chosen[i] = taken
    return chosen


@dataclass(eq=False)
class ZoneFit:
    """What the fit of one zone leaves to be applied, for any number of modes.

    Attributes
    ----------
    index, weight, weight_sum : ndarray or slice, ndarray, float
        As in `ZoneProducts`.
    share : ndarray, shape (n_zone_pix,)
        Share of the result that each pixel takes.
    mean_target, mean_ref : ndarray, shape (n_t,), (n_ref,)
        What is taken off.
    cross : ndarray, shape (n_t, n_ref)
        Products of the targets with the references.
    offset, level_target : ndarray, shape (n_t, n_ref), (n_t,)
        Means of centered references and targets where the level is taken.
    common : lyot.algorithms.klip.Modes
        Decomposition over all pixels, from which eigenvalues are recorded.
    mode_matrix : ndarray, shape (n_kept, n_ref)
        Turns references into modes.
    own_matrices : list of ndarray, or None
        The same for each target, where some miss pixels.
    typical_variance : ndarray, shape (n_zone_pix,)
        Mean variance of the targets.
    noise_scale : ndarray, shape (n_t,)
        Variance of each target over that.
    each : _EachFit or None
        Where targets have references of their own: what differs from one to the other.
    residual_power : ndarray, shape (n_t, n_kept + 1)
        Weighted sum of the squared residual of each target with 0, 1, ... modes.
    """

    index: Array | slice
    share: Array
    weight: Array
    weight_sum: float
    mean_target: Array
    mean_ref: Array
    cross: Array
    offset: Array
    level_target: Array
    common: klip.Modes
    mode_matrix: Array
    own_matrices: list[Array] | None
    typical_variance: Array
    noise_scale: Array
    each: _EachFit | None
    residual_power: Array

    @property
    def n_kept(self) -> int:
        """Number of modes that there are, at most the largest number asked for."""
        return len(self.mode_matrix)

    def blocks(self) -> list[tuple[slice, Any]]:
        """Divide the zone's pixels: where each block is in the zone, and in the frame."""
        blocks = threads.pixel_blocks(len(self.share))
        if isinstance(self.index, slice):
            return [(block, block) for block in blocks]
        return [(block, self.index[block]) for block in blocks]

    def coefs(self, n_modes: int) -> Array:
        """Return the coefficients with a number of modes.

        Parameters
        ----------
        n_modes : int
            That number.

        Returns
        -------
        ndarray, shape (n_t, n_ref)
            Factor of each reference in the model of each target.
        """
        if self.each is not None:
            return self.each.coefs[n_modes]
        if self.own_matrices is None:
            return klip.coefficients(self.cross, self.mode_matrix, n_modes=n_modes)
        rows = [
            klip.coefficients(row[None], matrix, n_modes=n_modes)
            for row, matrix in zip(self.cross, self.own_matrices, strict=True)
        ]
        return np.concatenate(rows)


def solve(
    products: ZoneProducts,
    share: Array,
    rows: Rows,
    pick: NDArray[np.intp],
    recipe: SubtractRecipe,
    device: devices.Device,
    /,
) -> ZoneFit:
    """Fit some targets with some references: algebra on a sub-block of the Gram matrix.

    Parameters
    ----------
    products : ZoneProducts
        The products of the zone.
    share : ndarray, shape (n_y, n_x)
        Share of the result that each pixel takes from this fit.
    rows : slice or ndarray of int
        The targets.
    pick : ndarray of int
        The references.
    recipe : SubtractRecipe
        How to subtract.
    device : lyot.compute.devices.Device
        Where matrices are decomposed.

    Returns
    -------
    ZoneFit
        Ready to be applied.
    """
    block = np.ix_(pick, pick)
    gram, whole = products.gram, products.whole_gram
    everything = len(pick) == len(gram)
    if not everything:
        same = whole is gram
        gram = gram[block]
        whole = gram if same else whole[block]
    common, matrix = _matrix(gram, whole, None, recipe, device)
    own: list[Array] | None = None
    if products.own_grams is not None:
        known: dict[int, Array] = {id(products.gram): matrix}
        own = []
        for target in np.arange(len(products.cross))[rows]:
            full = products.own_grams[target]
            if id(full) not in known:
                part = full if everything else full[block]
                known[id(full)] = _matrix(part, whole, common, recipe, device)[1]
            own.append(known[id(full)])
    kept = matrix[: max(recipe.n_modes)]
    return ZoneFit(
        index=products.index,
        share=share.ravel()[products.index],
        weight=products.weight,
        weight_sum=products.weight_sum,
        mean_target=products.mean_target[rows],
        mean_ref=products.mean_ref[pick],
        cross=products.cross[rows][:, pick],
        offset=products.level_offset[rows][:, pick],
        level_target=products.level_target[rows],
        common=common,
        mode_matrix=kept,
        own_matrices=own,
        typical_variance=products.typical_variance,
        noise_scale=products.noise_scale[rows],
        each=None,
        residual_power=_left_by_modes(
            products.cross[rows][:, pick],
            own or [kept] * len(products.cross[rows]),
            products.target_square[rows],
            len(kept),
        ),
    )


class _EachFit(NamedTuple):
    """What differs between targets that have references of their own.

    Attributes
    ----------
    coefs : dict of int to ndarray, shape (n_t, n_ref)
        Coefficients with each number of modes, zero where a reference was not chosen.
    own_noise : dict of int to ndarray, shape (n_t, n_ref)
        Variance that the noise of a typical target gives to each; of the references that they
        are made of, where they are components.
    picks : list of ndarray of int
        The references of each target.
    matrices : list of ndarray, shape (n_kept, n_pick)
        What turns them into modes.
    """

    coefs: dict[int, Array]
    own_noise: dict[int, Array]
    picks: list[NDArray[np.intp]]
    matrices: list[Array]


def solve_each(
    products: ZoneProducts,
    share: Array,
    chosen: NDArray[np.bool_],
    recipe: SubtractRecipe,
    made_of: NDArray[np.float64] | None = None,
    /,
) -> tuple[ZoneFit, NDArray[np.intp]]:
    """Fit each target with references of its own: many small problems, solved together.

    Parameters
    ----------
    products : ZoneProducts
        The products of the zone.
    share : ndarray, shape (n_y, n_x)
        Share of the result that each pixel takes from this fit.
    chosen : ndarray of bool, shape (n_t, n_ref)
        The references of each target, at least one.
    recipe : SubtractRecipe
        How to subtract.
    made_of : ndarray, shape (n_ref, n_all), optional
        What the references are made of, where they are components of others.

    Returns
    -------
    fit : ZoneFit
        Ready to be applied with the references of any target.
    union : ndarray of int
        Those references.

    Notes
    -----
    The mode matrix, and with it the leverage of the pixels, is that of the first target that has
    most modes.
    """
    n_t, most = len(chosen), max(recipe.n_modes)
    union = np.flatnonzero(chosen.any(axis=0))
    place = np.zeros(chosen.shape[1], np.intp)
    place[union] = np.arange(len(union))
    coefs = {n: np.zeros((n_t, len(union))) for n in recipe.n_modes}
    n_noise = len(union) if made_of is None else made_of.shape[1]
    noise = {n: np.zeros((n_t, n_noise)) for n in recipe.n_modes}
    picks: list[NDArray[np.intp]] = [np.flatnonzero(row) for row in chosen]
    matrices: list[Array] = [np.empty((0, 0))] * n_t
    values: list[Array] = [np.empty(0)] * n_t
    counts = chosen.sum(axis=1)
    n_kept = min(most, int(counts.max()))
    for count in np.unique(counts):
        rows = np.flatnonzero(counts == count)
        pick = np.stack([picks[i] for i in rows])
        square = (pick[:, :, None], pick[:, None, :])
        grams = products.gram[square]
        if products.own_grams is not None:
            grams = np.stack(
                [products.own_grams[i][np.ix_(p, p)] for i, p in zip(rows, pick, strict=True)]
            )
        w, spectra = _matrices(grams, products.whole_gram[square], recipe)
        cross = np.take_along_axis(products.cross[rows], pick, axis=1)
        along = np.matmul(w, cross[:, :, None])[:, :, 0]
        at = place[pick]
        for n in recipe.n_modes:
            part = w[:, :n]
            found = np.matmul(along[:, None, :n], part)[:, 0]
            coefs[n][rows[:, None], at] = found
            if products.noise_gram is not None:
                inner = np.matmul(
                    np.matmul(part, products.noise_gram[square]), np.swapaxes(part, 1, 2)
                )
                if made_of is None:
                    noise[n][rows[:, None], at] = (part * np.matmul(inner, part)).sum(axis=1)
                else:
                    real = np.matmul(part, made_of[pick])
                    noise[n][rows] = (real * np.matmul(inner, real)).sum(axis=1)
        for k, i in enumerate(rows):
            real = np.flatnonzero(np.any(w[k] != 0.0, axis=1))
            matrices[i] = w[k][: real[-1] + 1 if real.size else 0]
            values[i] = spectra[k]
    lead = max(range(n_t), key=lambda i: len(matrices[i]))
    mode_matrix = np.zeros((len(matrices[lead]), len(union)))
    mode_matrix[:, place[picks[lead]]] = matrices[lead]
    own_cross = [row[pick] for row, pick in zip(products.cross, picks, strict=True)]
    n_dropped = int(max(len(p) - np.count_nonzero(v) for p, v in zip(picks, values, strict=True)))
    return (
        ZoneFit(
            index=products.index,
            share=share.ravel()[products.index],
            weight=products.weight,
            weight_sum=products.weight_sum,
            mean_target=products.mean_target,
            mean_ref=products.mean_ref[union],
            cross=products.cross[:, union],
            offset=products.level_offset[:, union],
            level_target=products.level_target,
            common=klip.Modes(values[-1], np.empty((0, 0)), n_dropped),
            mode_matrix=mode_matrix,
            own_matrices=None,
            typical_variance=products.typical_variance,
            noise_scale=products.noise_scale,
            each=_EachFit(coefs, noise, picks, matrices),
            residual_power=_left_by_modes(own_cross, matrices, products.target_square, n_kept),
        ),
        union,
    )


def _matrices(
    grams: Array, wholes: Array, recipe: SubtractRecipe
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What turns references into modes, and the eigenvalues; zero rows where there is none."""
    most = min(max(recipe.n_modes), grams.shape[-1])
    if recipe.method in (MEAN, IMPUTATION):
        out = np.zeros((len(grams), most, grams.shape[-1]))
        spectra = np.zeros((len(grams), grams.shape[-1]))
        device = devices.device("cpu")
        for k, (gram, whole) in enumerate(zip(grams, wholes, strict=True)):
            modes, matrix = _matrix(gram, whole, None, recipe, device)
            out[k, : len(matrix)] = matrix[:most]
            spectra[k, : len(modes.values)] = modes.values
        return out, spectra
    values, vectors = np.linalg.eigh(grams)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    good = (values > klip.EIGENVALUE_FLOOR * values[:, :1]) & (values > 0)
    root = np.divide(1.0, np.sqrt(np.where(good, values, 1.0)), where=good, out=0.0 * values)
    turned = np.swapaxes(vectors, 1, 2)[:, :most] * root[:, :most, None]
    return turned, np.where(good, values, 0.0)


def _left_by_modes(
    cross: Array | list[Array], matrices: list[Array], squares: Array, n_kept: int
) -> NDArray[np.float64]:
    """What is left of each target's square with 0, 1, ... modes, which are orthonormal."""
    left = np.empty((len(cross), n_kept + 1))
    for row, products, matrix, square in zip(left, cross, matrices, squares, strict=True):
        power = (matrix[:n_kept] @ products) ** 2
        row[0] = square
        row[1 : len(power) + 1] = square - np.cumsum(power)
        row[len(power) + 1 :] = row[len(power)]
    return np.maximum(left, 0.0)


def _matrix(
    gram: Array,
    whole: Array,
    common: klip.Modes | None,
    recipe: SubtractRecipe,
    device: devices.Device,
) -> tuple[klip.Modes, Array]:
    """Decompose, and return what turns references into modes; `common` is that of `whole`."""
    if recipe.method == IMPUTATION:
        modes = common or device.run(klip.decompose, whole)
        return modes, imputation.anchored(modes, gram)
    modes = device.run(klip.decompose, gram)
    if recipe.method == MEAN:
        return modes, klip.mean_matrix(gram)
    return modes, klip.to_modes(modes)


@dataclass(frozen=True, eq=False)
class KeptFit:
    """What the fit of one zone to one set of references does to anything added to the targets.

    Attributes
    ----------
    rows : sequence of int
        The integrations that the fit serves.
    set_number : int
        The integration whose references these are.
    refs : ndarray of int, shape (n_ref,)
        Which of the references are used.
    stand_in : RefPixels or None
        What is subtracted in the place of the references, where it is not they.
    zone : Zone
        The zone.
    missing : ndarray of bool, shape (n_t, n_pix)
        Pixels that are left out: bad in the target, or in every reference.
    mean_target : ndarray, shape (n_t,)
        What is taken off each target.
    mean_ref : ndarray, shape (n_ref,)
        What is taken off each reference.
    weight_left : ndarray, shape (n_t,)
        Sum of the weights of the good pixels of each integration; infinity where no mean is
        subtracted.
    offset : ndarray, shape (n_t, n_ref)
        Mean of each centered reference over the good pixels of each integration.
    level_at : ndarray of int, shape (n_level,)
        Pixels, flattened, where the level is taken; none for the zone's own mean.
    n_level : ndarray, shape (n_t,)
        How many of them are good in each integration, at least 1.
    level_target : ndarray, shape (n_t,)
        Mean of each centered target over those of them that are good.
    level_offset : ndarray, shape (n_t, n_ref)
        Mean of each centered reference over them.
    mode_matrices : list of ndarray, shape (n_kept, n_ref)
        For each integration, what turns references into modes.
    grams : list of ndarray, shape (n_ref, n_ref)
        For each integration, its Gram matrix about its own mean.
    cross : ndarray, shape (n_t, n_ref)
        Products of the targets with the references.
    """

    rows: Sequence[int]
    set_number: int
    refs: NDArray[np.intp]
    stand_in: RefPixels | None
    zone: Zone
    missing: NDArray[np.bool_]
    mean_target: Array
    mean_ref: Array
    weight_left: Array
    offset: Array
    level_at: Array
    n_level: Array
    level_target: Array
    level_offset: Array
    mode_matrices: list[Array]
    grams: list[Array]
    cross: Array


def keep(
    products: ZoneProducts,
    matrices: list[Array],
    share: Array,
    rows: NDArray[np.intp],
    pick: NDArray[np.intp],
    missing: NDArray[np.bool_],
    first: int,
    stand_in: RefPixels | None,
    /,
) -> KeptFit:
    """Keep of a fit what sources put into its targets need.

    Parameters
    ----------
    products : ZoneProducts
        The products of the zone.
    matrices : list of ndarray, shape (n_kept, n_pick)
        For each target, what turns its references into modes.
    share : ndarray, shape (n_y, n_x)
        Share of the result that each pixel takes from it.
    rows, pick : ndarray of int
        Its targets within their set, and its references.
    missing : ndarray of bool, shape (n_t, n_pix)
        Pixels that are left out, of these targets.
    first : int
        The first integration of the set.
    stand_in : RefPixels or None
        What is subtracted in the place of the references.

    Returns
    -------
    KeptFit
        It holds no pixel of the references themselves.
    """
    zone = products.zone._replace(share=share)
    level_at = np.flatnonzero(zone.level) if products.has_level else np.empty(0, np.intp)
    grams = [products.gram_of(int(i)) for i in rows]
    everything = len(pick) == products.cross.shape[1]
    return KeptFit(
        rows=[first + int(i) for i in rows],
        set_number=first,
        refs=pick,
        stand_in=stand_in,
        zone=zone,
        missing=missing,
        mean_target=products.mean_target[rows],
        mean_ref=products.mean_ref[pick],
        weight_left=products.weight_left[rows],
        offset=products.own_offset[rows][:, pick],
        level_at=level_at,
        n_level=np.maximum(level_at.size - missing[:, level_at].sum(axis=1), 1),
        level_target=products.level_target[rows],
        level_offset=products.level_offset[rows][:, pick],
        mode_matrices=matrices,
        grams=grams if everything else [gram[np.ix_(pick, pick)] for gram in grams],
        cross=products.cross[rows][:, pick],
    )


def _levels(targets: Targets, refs: RefPixels, made: ZoneProducts) -> tuple[Array, Array]:
    """Mean of each centered target and, over its good pixels, of each centered reference."""
    at = np.flatnonzero(made.zone.level.ravel() & ~refs.nowhere)
    targets_mean = np.zeros(len(targets.sci))
    refs_mean = np.zeros((len(targets.sci), len(refs.sci)))
    rows = refs.sci[:, at] - made.mean_ref[:, None]
    every = rows.sum(axis=1)
    for i, (image, bad) in enumerate(zip(targets.sci, targets.bad, strict=True)):
        gaps = bad[at]
        n = max(at.size - int(gaps.sum()), 1)
        targets_mean[i] = image[at[~gaps]].sum(dtype=np.float64) / n - made.mean_target[i]
        refs_mean[i] = (every - rows[:, gaps].sum(axis=1)) / n
    return targets_mean, refs_mean


def _good_mean(rows: Array, missing: Array, weight: Array, total: Array) -> Array:
    """Weighted mean of each row over the pixels that are not missing."""
    means = np.zeros(len(rows))
    for i, (row, gaps) in enumerate(zip(rows, missing, strict=True)):
        data = np.where(gaps, 0.0, row) if gaps.any() else row.astype(np.float64)
        means[i] = data @ weight / total[i] if total[i] > 0 else 0.0
    return means


def _squares(rows: Array, missing: Array, means: Array, weight: Array) -> NDArray[np.float64]:
    """Weighted sum of the squares of each row about its mean, over the pixels not missing."""
    return np.array(
        [
            float(np.where(gaps, 0.0, row - mean).astype(np.float64) ** 2 @ weight)
            for row, gaps, mean in zip(rows, missing, means, strict=True)
        ]
    )


def _rough_mean(rows: Array, weight: Array) -> Array:
    """Weighted mean of each row over every 64th pixel: it takes off the pedestal."""
    every = slice(None, None, 64)
    w = weight[every]
    total = float(w.sum())
    pixels = np.where(w > 0, rows[:, every], 0.0)
    return np.asarray(pixels @ w / total if total > 0 else np.zeros(len(rows)))


def _own_grams(
    gram: Array,
    missing: Array,
    rows: Array,
    weight: Array,
    mean_ref: Array,
    weight_left: Array,
) -> tuple[list[Array] | None, Array]:
    """Gram matrices of targets that miss pixels; equal gaps share one."""
    n_t = len(missing)
    offset = np.zeros((n_t, len(gram)))
    if not missing.any():
        return None, offset
    known: dict[bytes, tuple[Array, Array]] = {}
    grams = []
    for i in range(n_t):
        key = np.packbits(missing[i]).tobytes()
        if key not in known:
            at = np.flatnonzero(missing[i])
            if at.size == 0:
                known[key] = (gram, offset[i])
            else:
                known[key] = klip.leave_out(
                    gram,
                    rows[:, at] - mean_ref[:, None],
                    weight[at],
                    weight_left[i] if weight_left[i] > 0 else np.inf,
                )
        grams.append(known[key][0])
        offset[i] = known[key][1]
    return grams, offset

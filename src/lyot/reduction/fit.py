"""The fit of a zone: products over its pixels, and what follows for any choice of references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot import execution
from lyot.algorithms import choice, imputation, klip, nmf, repair
from lyot.algorithms.errors import median_variance
from lyot.algorithms.zones import Zone
from lyot.models.aligned import AlignedFrames, RefFacts
from lyot.recipe import (
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
from lyot.reduction.align import learn_from

Array = NDArray[Any]
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

    def centred(self, at: Any, mean: Array) -> Array:
        """Return pixels less the mean of their row, zero where they are missing."""
        data = self.sci[:, at] - mean[:, None]
        missing = self.bad[:, at]
        return np.where(missing, 0.0, data) if missing.any() else data

    def rows(self, pick: Rows) -> Targets:
        """Return some of the rows."""
        return Targets(self.sci[pick], self.bad[pick], self.variance[pick])

    def part(self, at: Array) -> Targets:
        """Return some of the pixels, side by side."""
        return Targets(self.sci[:, at], self.bad[:, at], self.variance[:, at])


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
        """Return some of the references; no pixel is copied."""
        return self if len(pick) == len(self.sci) else replace(self, pick=pick)

    def part(self, at: Array) -> RefPixels:
        """Return some of the pixels, side by side: references are then picked much quicker."""
        return replace(
            self, sci=self.sci[:, at], variance=self.variance[:, at], nowhere=self.nowhere[at]
        )

    def held(self) -> RefPixels:
        """Return the references picked, side by side: for several passes over few pixels."""
        if self.pick is None or self.made_of is not None:
            return self
        variance = np.take(self.variance, self.pick, axis=0)
        return RefPixels(np.take(self.sci, self.pick, axis=0), variance, self.nowhere)

    def _part(self, array: Array, at: Any) -> Array:
        if self.pick is None:
            return array[:, at]
        if isinstance(at, slice):
            return np.take(array[:, at], self.pick, axis=0)
        return array[np.ix_(self.pick, at)]

    def centred(self, at: Any, mean: Array) -> Array:
        """Return pixels less the mean of their row, in a thread's own memory."""
        rows = self._part(self.sci, at)
        out = np.subtract(rows, mean[:, None], out=execution.workspace.array("rows", rows.shape))
        out[:, self.nowhere[at]] = 0.0
        return out

    def variance_at(self, at: Any) -> Array:
        """Return variances, zero where every reference is bad.

        A copy: rows a multiple of 64 KiB apart, as those of 640 x 640 pixels are, get in each
        other's way in the cache of the processor, and a product reads them many times.
        """
        whole = self.pick is None or self.made_of is not None
        rows = self.variance[:, at] if whole else self._part(self.variance, at)
        nowhere = self.nowhere[at]
        if whole and isinstance(at, slice):
            rows = rows.copy()
        return np.where(nowhere, np.float32(0), rows) if nowhere.any() else rows

    def in_references(self, factors: Array) -> Array:
        """Turn factors of what is subtracted into those of the references it is made of."""
        if self.made_of is None:
            return factors
        return factors @ (self.made_of if self.pick is None else self.made_of[self.pick])

    @classmethod
    def from_frames(cls, frames: AlignedFrames) -> RefPixels:
        """Take the references of one set, filled where some are bad."""
        n_ref = len(frames.sci)
        sci, variance = frames.sci.reshape(n_ref, -1), frames.variance.reshape(n_ref, -1)
        missing = ~np.isfinite(sci)
        nowhere = np.asarray(missing.all(axis=0))
        at = np.flatnonzero(missing.any(axis=0) & ~nowhere)
        if at.size:
            likeness = learn_from(sci, variance, missing)
            sci, variance = sci.copy(), variance.copy()
            sci[:, at], variance[:, at] = repair.fill_from_others(
                sci[:, at], variance[:, at], missing[:, at], likeness
            )
        return cls(sci, variance, nowhere)


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

    execution.map_ordered(_block, execution.pixel_blocks(len(median)))
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
    found = nmf.factorise(pixels, weight, start)
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
        Mean of each centred reference over the good pixels of each target.
    level_target, level_offset : ndarray, shape (n_t,), (n_t, n_ref)
        Means of centred targets and references where the level is taken.
    has_level : bool
        Whether that is elsewhere than in the zone.
    target_square : ndarray, shape (n_t,)
        Product of each centred target with itself over its good pixels.
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

    def gram_of(self, target: int) -> Array:
        """Return the Gram matrix of one target."""
        return self.gram if self.own_grams is None else self.own_grams[target]


def zone_products(
    targets: Targets,
    refs: RefPixels,
    zone: Zone,
    recipe: SubtractRecipe,
    device: execution.Device,
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
    device : lyot.execution.Device
        Where the products are computed.

    Returns
    -------
    ZoneProducts
        Enough for any sub-block of the references.
    """
    share, weight = zone.share.ravel(), zone.weight.ravel()
    whole = zone.whole.ravel() if zone.whole.size else weight
    used = (share > 0) | (weight > 0) | (whole > 0)
    index: Array | slice = slice(None) if used.all() else np.flatnonzero(used)
    missing = targets.bad[:, index]
    nothing = refs.nowhere[index] | missing.all(axis=0)
    weight = np.where(nothing, 0.0, weight[index])
    whole = np.where(refs.nowhere[index], 0.0, whole[index]) if zone.whole.size else weight
    weight_t = np.array([weight.sum() - weight[row].sum() for row in missing])
    mean_target, mean_ref = np.zeros(len(targets.sci)), np.zeros(len(refs))
    if recipe.subtract_mean:
        mean_target = _good_mean(targets.sci[:, index], missing, weight, weight_t)
        mean_ref = _rough_mean(refs.sci, index, weight)
    blocks = zone_blocks(index, len(weight))

    def _products(with_weight: Array) -> klip.Products:
        plain = bool((with_weight == 1.0).all())

        def _block(block: tuple[slice, Any]) -> klip.Products:
            inside, at = block
            rows = refs.centred(at, mean_ref)
            data = targets.centred(at, mean_target)
            root = np.sqrt(with_weight[inside])
            if not plain:
                rows *= root
                data *= root
            products: klip.Products = device.run(klip.block_products, data, rows, root)
            return products

        parts = execution.map_ordered(_block, blocks)
        return klip.Products(*(sum(p) for p in zip(*parts, strict=True)))

    gram, cross, ref_sum = _products(weight)
    whole_gram = gram
    if zone.whole.size:
        whole_gram, _, whole_sum = _products(whole)
        if recipe.subtract_mean and whole.any():
            whole_gram, _ = klip.recentre(whole_gram, whole_sum, float(whole.sum()))
    weight_sum, rough_mean = np.inf, mean_ref
    if recipe.subtract_mean and weight.any():
        weight_sum = float(weight.sum())
        gram, rest = klip.recentre(gram, ref_sum, weight_sum)
        mean_ref = mean_ref + rest
    typical = targets.variance[:, index].mean(axis=0, dtype=np.float64)
    brightness = targets.variance.mean(axis=1, dtype=np.float64)
    weight_left = weight_t if recipe.subtract_mean else np.full(len(weight_t), np.inf)
    own_grams, own_offset = _own_grams(
        gram, missing & (weight > 0), refs.sci, index, weight, mean_ref, weight_left
    )
    made = ZoneProducts(
        zone=zone,
        index=index,
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
        target_square=_squares(targets.sci[:, index], missing, mean_target, weight),
        typical_variance=typical,
        noise_scale=brightness / max(brightness.mean(), np.finfo(float).tiny),
    )
    if recipe.chooses and recipe.error == PROPAGATED:
        noise, _, noise_sum = _products(weight**2 * typical)
        moved = mean_ref - rough_mean
        made.noise_gram = (
            noise
            - np.outer(noise_sum, moved)
            - np.outer(moved, noise_sum)
            + float((weight**2 * typical).sum()) * np.outer(moved, moved)
        )
    if made.has_level:
        made.level_target, made.level_offset = _levels(targets, refs, made)
    return made


def zone_blocks(index: Array | slice, n_pix: int, /) -> list[tuple[slice, Any]]:
    """Divide the pixels of a zone into blocks.

    Parameters
    ----------
    index : ndarray of int or slice
        Where they are in the frame.
    n_pix : int
        Their number.

    Returns
    -------
    list of (slice, slice or ndarray)
        Where each block is in the zone, and in the frame.
    """
    blocks = execution.pixel_blocks(n_pix)
    if isinstance(index, slice):
        return [(block, block) for block in blocks]
    return [(block, index[block]) for block in blocks]


def choose(
    products: ZoneProducts,
    allowed: NDArray[np.bool_] | None,
    recipe: SubtractRecipe,
    facts: RefFacts | None,
    mjd: float,
    /,
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Choose the references of each target, and group the targets that share theirs.

    Parameters
    ----------
    products : ZoneProducts
        The products of the zone.
    allowed : ndarray of bool, shape (n_ref,), or None
        References that may be chosen; None for all.
    recipe : SubtractRecipe
        How to choose.
    facts : RefFacts or None
        When the references were taken.
    mjd : float
        When the targets were taken [day].

    Returns
    -------
    list of (ndarray of int, ndarray of int)
        Targets, and their references, by number.
    """
    n_t, n_ref = products.cross.shape
    free = np.ones(n_ref, bool) if allowed is None else allowed
    groups: dict[bytes, list[int]] = {}
    chosen: dict[bytes, NDArray[np.intp]] = {}
    for i in range(n_t):
        taken = free
        gram, cross = products.gram_of(i), products.cross[i]
        if recipe.select == BY_CORRELATION or recipe.min_correlation > -1.0:
            alike = choice.correlations(gram, cross, float(products.target_square[i]))
            taken = taken & (alike >= recipe.min_correlation)
            if recipe.select == BY_CORRELATION:
                taken = choice.highest(alike, taken, recipe.n_refs)
        if recipe.select == BY_RESIDUAL:
            taken = choice.stepwise(gram, cross, taken, recipe.n_refs)
        elif recipe.select == BY_TIME and facts is not None:
            late = np.abs(facts.mjd - mjd)
            taken = choice.highest(-np.where(np.isfinite(late), late, np.inf), taken, recipe.n_refs)
        elif recipe.method == NMF:
            taken = taken & nmf.non_negative(gram, cross)
        key = np.packbits(taken).tobytes()
        groups.setdefault(key, []).append(i)
        chosen[key] = np.flatnonzero(taken)
    return [(np.array(groups[key], np.intp), chosen[key]) for key in groups]


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
        Means of centred references and targets where the level is taken.
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
    mode_noise : ndarray, shape (n_kept, n_kept), or None
        Covariance of the mode coordinates of a typical target; None where it is still to be
        summed over the pixels.
    residual_power : ndarray, shape (n_t, n_kept + 1)
        Weighted sum of the squared residual of each target with 0, 1, ... modes.
    is_part : bool
        Whether targets and references hold the zone's pixels alone, side by side.
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
    mode_noise: Array | None
    residual_power: Array
    is_part: bool

    @property
    def n_kept(self) -> int:
        """Number of modes that there are, at most the largest number asked for."""
        return len(self.mode_matrix)

    @property
    def read_index(self) -> Array | slice:
        """Where the zone's pixels are in the targets and references."""
        return slice(None) if self.is_part else self.index

    def blocks(self) -> list[tuple[slice, Any, Any]]:
        """Blocks of the zone's pixels: in the zone, in targets and references, in the frame."""
        blocks = zone_blocks(self.index, len(self.share))
        return [(inside, inside if self.is_part else at, at) for inside, at in blocks]

    def coefs(self, n_modes: int) -> Array:
        """Return the coefficients with a number of modes."""
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
    device: execution.Device,
    /,
    *,
    is_part: bool = False,
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
    device : lyot.execution.Device
        Where matrices are decomposed.
    is_part : bool, optional
        Whether it will be applied to the zone's pixels alone, side by side.

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
    noise = None
    if products.noise_gram is not None:
        noise = kept @ products.noise_gram[block] @ kept.T
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
        mode_noise=noise,
        residual_power=_left_by_modes(
            products.cross[rows][:, pick],
            own or [kept] * len(products.cross[rows]),
            products.target_square[rows],
            len(kept),
        ),
        is_part=is_part,
    )


def _left_by_modes(
    cross: Array, matrices: list[Array], squares: Array, n_kept: int
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
    device: execution.Device,
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
        Mean of each centred reference over the good pixels of each integration.
    level_at : ndarray of int, shape (n_level,)
        Pixels, flattened, where the level is taken; none for the zone's own mean.
    n_level : ndarray, shape (n_t,)
        How many of them are good in each integration, at least 1.
    level_target : ndarray, shape (n_t,)
        Mean of each centred target over those of them that are good.
    level_offset : ndarray, shape (n_t, n_ref)
        Mean of each centred reference over them.
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
    fit: ZoneFit,
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
    fit : ZoneFit
        The fit.
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
        mean_target=fit.mean_target,
        mean_ref=fit.mean_ref,
        weight_left=products.weight_left[rows],
        offset=products.own_offset[rows][:, pick],
        level_at=level_at,
        n_level=np.maximum(level_at.size - missing[:, level_at].sum(axis=1), 1),
        level_target=fit.level_target,
        level_offset=fit.offset,
        mode_matrices=fit.own_matrices or [fit.mode_matrix] * len(rows),
        grams=grams if everything else [gram[np.ix_(pick, pick)] for gram in grams],
        cross=fit.cross,
    )


def _levels(targets: Targets, refs: RefPixels, made: ZoneProducts) -> tuple[Array, Array]:
    """Mean of each centred target and, over its good pixels, of each centred reference."""
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


def _rough_mean(rows: Array, index: Array | slice, weight: Array) -> Array:
    """Weighted mean of each row over every 64th pixel: it takes off the pedestal."""
    every = slice(None, None, 64)
    at = every if isinstance(index, slice) else index[every]
    w = weight[every]
    total = float(w.sum())
    pixels = np.where(w > 0, rows[:, at], 0.0)
    return np.asarray(pixels @ w / total if total > 0 else np.zeros(len(rows)))


def _own_grams(
    gram: Array,
    missing: Array,
    ref_rows: Array,
    index: Array | slice,
    weight: Array,
    mean_ref: Array,
    weight_left: Array,
) -> tuple[list[Array] | None, Array]:
    """Gram matrices of targets that miss pixels; equal gaps share one."""
    n_t = len(missing)
    offset = np.zeros((n_t, len(gram)))
    if not missing.any():
        return None, offset
    rows = ref_rows[:, index]
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

"""The fit: the one object between references and residual, error, response and record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms import klip, selection
from lyot.algorithms.zones import Zone
from lyot.parameters import BY_CORRELATION, BY_RESIDUAL, BY_TIME
from lyot.subtraction.methods import Operator
from lyot.subtraction.products import Run, TargetSet, ZoneProducts
from lyot.types import Array


@dataclass(frozen=True, eq=False)
class Fit:
    """Targets that share references and gaps, fitted in one zone.

    Coefficients with K modes are ``C_K = B W_K^T W_K``, with B = `cross` and W the matrix of the
    `operator`; the residual of a target is ``T - mean - C_K (R - mean_ref)`` plus a level. Shared
    references are a fit for each pattern of gaps, chosen ones a fit for each target.
    """

    rows: NDArray[np.intp]  # (n_t,): the integrations that it serves
    reference_set: int  # the integration to whose pixels the references are aligned
    refs: NDArray[np.intp]  # (n_ref,): the references, or frames made of them, that are used
    zone: Zone
    mean_target: Array  # (n_t,), subtracted from each target
    mean_ref: Array  # (n_ref,), subtracted from each reference
    weight_sum: float  # over the good pixels; infinity where no mean is subtracted
    offset: Array  # (n_ref,): mean of each centered reference over the good pixels
    level_target: Array  # (n_t,): mean of each centered target where the level is taken
    level_offset: Array  # (n_t, n_ref): of each centered reference there
    n_level: NDArray[np.intp]  # (n_t,): number of good pixels there; zero: that of the fit
    gram: Array  # (n_ref, n_ref), over the good pixels
    cross: Array  # (n_t, n_ref): products of the targets with the references
    target_square: Array  # (n_t,): products of the targets with themselves
    operator: Operator

    def coefs(self, n_modes: int) -> Array:
        """Return the coefficients of each target, the same whatever other targets there are."""
        # One target at a time: in a matrix product the rounding of a row depends on the others.
        matrix = self.operator.matrix
        coordinates = np.matmul(matrix, self.cross[:, :, None])[:, None, :n_modes, 0]
        return np.asarray(np.matmul(coordinates, matrix[:n_modes])[:, 0])

    def residual_power(self, n_modes: int) -> NDArray[np.float64]:
        """Return ``|T|^2`` of each residual with 0, 1, ... `n_modes` orthonormal modes."""
        power = np.empty((len(self.rows), n_modes + 1))
        matrix = self.operator.matrix[:n_modes]
        for row, cross, square in zip(power, self.cross, self.target_square, strict=True):
            explained = (matrix @ cross) ** 2
            row[0] = square
            row[1 : len(explained) + 1] = square - np.cumsum(explained)
            row[len(explained) + 1 :] = row[len(explained)]
        return np.maximum(power, 0.0)


class AreaFits(NamedTuple):
    """The fits of one area to one set of references, which together serve its targets."""

    fits: list[Fit]  # none where no target has a reference
    lead: Operator  # on `refs`; its leverage, eigenvalues and number of modes stand for all fits
    refs: NDArray[np.intp]  # all references that are used
    rows: NDArray[np.intp]  # integrations that are fitted
    without: NDArray[np.intp]  # integrations that have no reference
    one_by_one: bool  # whether references were chosen for each target

    @property
    def n_kept(self) -> int:
        """Number of modes that there are, at most the largest number asked for."""
        return len(self.lead.matrix)

    def stack(self, values: Callable[[Fit], Array]) -> Array:
        """Put together what each fit says of its targets and references, zero elsewhere."""
        out = np.zeros((len(self.rows), len(self.refs)))
        for fit in self.fits:
            rows = np.searchsorted(self.rows, fit.rows)
            out[rows[:, None], np.searchsorted(self.refs, fit.refs)] = values(fit)
        return out

    def coefs(self, n_modes: int) -> Array:
        """Return the coefficients of all targets, zero for references that were not chosen."""
        if len(self.fits) == 1 and not self.one_by_one:
            [fit] = self.fits
            return np.asarray(klip.coefficients(fit.cross, fit.operator.matrix, n_modes=n_modes))
        return self.stack(lambda fit: fit.coefs(n_modes))

    def residual_power(self, n_modes: int) -> Array:
        """Return the power of all residuals, as `Fit.residual_power`."""
        out = np.empty((len(self.rows), n_modes + 1))
        for fit in self.fits:
            out[np.searchsorted(self.rows, fit.rows)] = fit.residual_power(n_modes)
        return out


def fit_shared(run: Run, first: int, products: ZoneProducts, /) -> AreaFits:
    """Fit all targets, from the `first` on, with all references: a fit for each pattern of gaps."""
    gram = products.gram
    # The operator without gaps is always made: its leverage and eigenvalues stand for all.
    grams = [gram, *(each for each in products.grams if each is not gram)]
    of_modes, kernel = products.mode_gram, run.device.run
    found = run.device.map(lambda g: run.method.compute(g, of_modes, kernel), grams)
    n_modes = max(run.recipe.n_modes)
    operators = {id(g): each.truncated(n_modes) for g, each in zip(grams, found, strict=True)}
    refs = np.arange(len(gram))
    fits = [
        _fit(
            products, first, np.flatnonzero(products.pattern == p), refs, each, operators[id(each)]
        )
        for p, each in enumerate(products.grams)
    ]
    rows = first + np.arange(len(products.pattern))
    return AreaFits(fits, operators[id(gram)], refs, rows, rows[:0], one_by_one=False)


def fit_each(run: Run, first: int, products: ZoneProducts, chosen: Array, /) -> AreaFits:
    """Fit each target with its own references; the lead is the first target with most modes."""
    counts, n_modes = chosen.sum(axis=1), max(run.recipe.n_modes)
    fits: dict[int, Fit] = {}
    for count in np.unique(counts[counts > 0]):
        targets = np.flatnonzero(counts == count)
        picks = np.stack([np.flatnonzero(chosen[i]) for i in targets])
        square = (picks[:, :, None], picks[:, None, :])
        grams = products.gram[square]
        if len(products.grams) > 1:
            of_targets = zip(targets, picks, strict=True)
            grams = np.stack([products.gram_of(int(i))[np.ix_(p, p)] for i, p in of_targets])
        found = run.method.compute_stack(grams, products.mode_gram[square], n_modes)
        for i, pick, gram, operator in zip(targets, picks, grams, found, strict=True):
            row, operator = np.array([i]), operator.truncated(n_modes)
            fits[int(i)] = _fit(products, first, row, pick, gram, operator)
    union = np.flatnonzero(chosen.any(axis=0))
    in_order = [fits[i] for i in sorted(fits)]
    lead = Operator(np.empty((0, len(union))), np.empty(0), 0)
    if in_order:
        longest = max(in_order, key=lambda fit: len(fit.operator.matrix))
        matrix = np.zeros((len(longest.operator.matrix), len(union)))
        matrix[:, np.searchsorted(union, longest.refs)] = longest.operator.matrix
        n_dropped = max(fit.operator.n_dropped for fit in in_order)
        lead = Operator(matrix, in_order[-1].operator.values, n_dropped)
    fitted, without = (first + np.flatnonzero(rows) for rows in (counts > 0, counts == 0))
    return AreaFits(in_order, lead, union, fitted, without, one_by_one=True)


def _fit(
    products: ZoneProducts,
    first: int,
    targets: NDArray[np.intp],
    refs: NDArray[np.intp],
    gram: Array,
    operator: Operator,
) -> Fit:
    """Take from the products what concerns some targets with equal gaps, and some references."""
    pattern = products.pattern[targets[0]]
    return Fit(
        rows=first + targets,
        reference_set=first,
        refs=refs,
        zone=products.zone,
        mean_target=products.mean_target[targets],
        mean_ref=products.mean_ref[refs],
        weight_sum=float(products.weight_sums[pattern]),
        offset=products.offsets[pattern][refs],
        level_target=products.level_target[targets],
        level_offset=products.level_offset[targets][:, refs],
        n_level=products.n_level[targets],
        gram=gram,
        cross=products.cross[targets][:, refs],
        target_square=products.target_square[targets],
        operator=operator,
    )


def choose(
    run: Run, target_set: TargetSet, products: ZoneProducts, allowed: NDArray[np.bool_] | None, /
) -> NDArray[np.bool_]:
    """Return the references of each target ``(n_t, n_ref)``, of those that are allowed."""
    recipe, method = run.recipe, run.method
    n_t, n_ref = products.cross.shape
    chosen = np.empty((n_t, n_ref), bool)
    for i in range(n_t):
        taken = np.ones(n_ref, bool) if allowed is None else allowed
        gram, cross = products.gram_of(i), products.cross[i]
        if recipe.select == BY_CORRELATION or recipe.min_correlation > -1.0:
            correlation = selection.correlations(gram, cross, float(products.target_square[i]))
            taken = taken & (correlation >= recipe.min_correlation)
            if recipe.select == BY_CORRELATION:
                taken = selection.highest(correlation, taken, recipe.n_refs)
        if recipe.select == BY_RESIDUAL:
            taken = selection.stepwise(gram, cross, taken, recipe.n_refs)
        elif recipe.select == BY_TIME and target_set.days is not None:
            distance = np.where(np.isfinite(target_set.days), target_set.days, np.inf)
            taken = selection.highest(-distance, taken, recipe.n_refs)
        chosen[i] = taken & method.select(gram, cross) if method.selects else taken
    return chosen

"""Fits applied to the pixels of an area: the second of two times that pixels are touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lyot.algorithms import klip
from lyot.compute import threads
from lyot.subtraction.fit import AreaFits
from lyot.subtraction.pixels import RefPixels, Targets
from lyot.subtraction.products import Noise, Run, ZoneProducts
from lyot.types import Array


class AreaPixels(NamedTuple):
    """The pixels to which the fits of one area are applied, those of its zone."""

    where: Array | slice  # pixels of the frame
    targets: Targets  # those that are fitted
    refs: RefPixels  # those in use
    mean_target: Array  # (n_t,), subtracted from each target
    mean_ref: Array  # (n_ref,), subtracted from each reference
    weight: Array  # (n_zone_pix,), in the fit
    share: Array  # (n_zone_pix,), of the result
    weight_sum: float  # infinity where no mean is subtracted
    noise: Noise

    @classmethod
    def of(cls, products: ZoneProducts, fits: AreaFits, share: Array) -> AreaPixels:
        """Take the targets and references that the fits use; no pixel is copied for all of them."""
        pixels, noise = products.pixels, products.noise
        targets, mean_target = pixels.targets, products.means.target
        if fits.without.size:
            rows = fits.rows - fits.first
            targets, mean_target = targets.rows(rows), mean_target[rows]
            noise = noise._replace(scale=noise.scale[rows])
        return cls(
            pixels.where,
            targets,
            pixels.refs.of(fits.refs),
            mean_target,
            products.grams.mean_ref[fits.refs],
            pixels.weight,
            share.ravel()[pixels.where],
            products.grams.weight_sum,
            noise,
        )


OfBlock = Callable[[slice, Array, Array], Any]


class Residuals(NamedTuple):
    """Residuals times the share of each pixel, and what a function of blocks returned."""

    sci: list[Array]
    of_blocks: list[Any]


def residuals(
    run: Run,
    area: AreaPixels,
    fits: AreaFits,
    coefs: list[Array],
    of_block: OfBlock | None = None,
    /,
) -> Residuals:
    """Subtract the models with several numbers of modes in one pass over the pixels.

    The model is coefficients times references. Where one fit serves all targets, and modes are
    made of the pixels anyway, it is also coordinates times modes, which is shorter:
    ``C_K R = (B W_K^T) (W_K R)``.

    `of_block` is called with each block, its centered references and the modes there.
    """
    by_modes = of_block is not None and len(fits.fits) == 1 and not fits.one_by_one
    used = [min(n, fits.n_kept) for n in run.recipe.n_modes]
    offset = fits.stack(lambda fit: fit.level_offset)
    level_target = np.empty(len(fits.rows))
    for fit in fits.fits:
        level_target[np.searchsorted(fits.rows, fit.rows)] = fit.level_target
    level = [(c * offset).sum(axis=1) - level_target for c in coefs]
    factors = coefs
    if by_modes:
        factors = [fits.fits[0].cross @ fits.lead.matrix[:n].T for n in used]
    sci = [np.empty(area.targets.sci.shape, run.dtype) for _ in used]
    full_share = bool((area.share == 1.0).all())

    def _block(inside: slice) -> Any:
        rows = area.refs.centered(inside, area.mean_ref)
        modes = rows
        if of_block is not None:
            modes = threads.workspace.array("modes", (fits.n_kept, rows.shape[1]))
            np.matmul(fits.lead.matrix, rows, out=modes)
        data = area.targets.centered(inside, area.mean_target)
        for k, n in enumerate(used):
            basis = modes[:n] if by_modes else rows
            out = run.device.run(klip.residual, data, basis, factors[k], level[k])
            sci[k][:, inside] = out if full_share else area.share[inside] * out
        return None if of_block is None else of_block(inside, rows, modes)

    return Residuals(sci, threads.map_ordered(_block, threads.pixel_blocks(len(area.share))))

r"""Data imputation: the modes of all pixels, met by a target at its anchor pixels alone.

Where a disc lies, the target does not tell what the star is. The KL modes Z are made from
whole references, and the coordinates of a target are fitted by least squares over the anchor
pixels, those outside the disc: with the weight a of the anchors, the coordinates are
:math:`(T a Z^T)(Z a Z^T)^{-1}`, and the modes carry the model into the disc (Ren 2023,
doi:10.1051/0004-6361/202347354, arXiv:2308.16912; Ren et al. 2020, doi:10.3847/1538-4357/ab7024,
for the idea with other components).

With :math:`Z a Z^T = L L^T` the rows of :math:`L^{-1} Z` are orthonormal over the anchors and,
because L is triangular, the first K of them span the first K modes: they stand in the place
of KL modes in everything that follows.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from lyot.algorithms import klip

MIN_ANCHOR_SHARE = 1e-6
"""Modes of which the anchor pixels hold less than this fraction are dropped, and those after."""


def anchored(modes_of_all: klip.Modes, anchor_gram: Any, /) -> Any:
    """Return the matrix ``(n_kept, n_ref)`` that makes modes orthonormal over the anchors.

    It takes the place of `klip.to_modes`; `anchor_gram` is the Gram matrix over the anchors.
    """
    xp = array_namespace(modes_of_all.values, anchor_gram)
    modes = klip.to_modes(modes_of_all)
    seen = xp.matmul(xp.matmul(modes, anchor_gram), xp.matrix_transpose(modes))
    rows: list[Any] = []
    products: list[Any] = []
    for k in range(int(modes.shape[0])):
        row, rest = modes[k, :], seen[k, :]
        for other, product in zip(rows, products, strict=True):
            # The product of an earlier row with this mode, over the anchors.
            share = product[k]
            row, rest = row - share * other, rest - share * product
        size = float(rest[k])
        if size < MIN_ANCHOR_SHARE:
            break
        rows.append(row / size**0.5)
        products.append(rest / size**0.5)
    if not rows:
        return xp.zeros((0, int(modes.shape[1])), dtype=modes.dtype, device=device(modes))
    return xp.stack(rows)

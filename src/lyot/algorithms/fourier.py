"""Sub-pixel shift of images by a phase ramp, and its derivatives.

An image of shape ``(n_y, n_x)`` is laid on a larger periodic grid of odd length in both axes.
The gap between its far edges is bridged smoothly, so nothing wraps around; an odd grid has no
Nyquist term, so the shift is a real, exactly invertible rotation of phases.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

MIN_GAP = 16
"""Smallest number of pixels between the far edges of an image on the periodic grid."""


ALL_ROWS = slice(None)


class ShiftedImage(NamedTuple):
    """An image under a shift, and its derivatives with respect to that shift [1/pixel]."""

    value: Any  # (..., n_rows, n_x)
    d_y: Any
    d_x: Any


def odd_grid_length(n: int, /) -> int:
    """Return the smallest odd length of at least ``n + MIN_GAP`` with prime factors up to 11."""
    length = n + MIN_GAP + (n + MIN_GAP + 1) % 2
    while not _is_smooth(length):
        length += 2
    return length


def _is_smooth(n: int) -> bool:
    for prime in (3, 5, 7, 11):
        while n % prime == 0:
            n //= prime
    return n == 1


def spectrum(images: Any, /) -> Any:
    """Transform finite images ``(..., n_y, n_x)`` to half spectra of the odd periodic grid."""
    xp = array_namespace(images)
    images = xp.astype(images, xp.float64)
    grid = odd_grid_length(images.shape[-2]), odd_grid_length(images.shape[-1])
    for axis, length in zip((-2, -1), grid, strict=True):
        images = _bridge(images, length=length, axis=axis)
    return transform(images, grid)


def transform(images: Any, grid: tuple[int, int], /) -> Any:
    """Transform real images, zero beyond their edges, to half spectra of a grid ``(m_y, m_x)``."""
    xp = array_namespace(images)
    # The same as rfftn, for which NumPy takes twice as long.
    return xp.fft.fft(xp.fft.rfft(images, n=grid[1], axis=-1), n=grid[0], axis=-2)


def _bridge(images: Any, *, length: int, axis: int) -> Any:
    """Append pixels along `axis` that lead smoothly from the last plane back to the first."""
    xp = array_namespace(images)
    gap = length - images.shape[axis]
    u = (xp.arange(gap, dtype=xp.float64, device=device(images)) + 1.0) / (gap + 1.0)
    u = u * u * (3.0 - 2.0 * u)
    if axis == -2:
        first, last, u = images[..., :1, :], images[..., -1:, :], xp.reshape(u, (gap, 1))
    else:
        first, last = images[..., :1], images[..., -1:]
    return xp.concat([images, last + (first - last) * u], axis=axis)


def shift(spectra: Any, shift_yx: Any, /, *, shape: tuple[int, int], rows: slice = ALL_ROWS) -> Any:
    r"""Shift band-limited images exactly by any fraction of a pixel: :math:`T_d r(x) = r(x - d)`.

    Parameters
    ----------
    spectra : array, shape (..., m_y, m_x // 2 + 1)
        From `spectrum`.
    shift_yx : array, shape (..., 2)
        Shift of each image along y and x [pixel]; its leading axes broadcast with those of
        `spectra`.
    shape : tuple of int
        ``(n_y, n_x)`` of the images.
    rows : slice, optional
        The rows that are wanted; fewer rows cost less.

    Returns
    -------
    array, shape (..., n_rows, n_x)
        The shifted images, in the precision of the spectra: complex64 leaves errors of 2e-7 of an
        image's largest value. Pixels that come from outside the frame hold the bridge between its
        edges; `outside` tells which they are.

    Examples
    --------
    >>> import numpy as np
    >>> y, x = np.mgrid[:32, :32]
    >>> image = np.exp(-((y - 15.0) ** 2 + (x - 16.0) ** 2) / 8.0)
    >>> moved = shift(spectrum(image), np.array([0.5, -2.0]), shape=(32, 32))
    >>> expected = np.exp(-((y - 15.5) ** 2 + (x - 14.0) ** 2) / 8.0)
    >>> bool(np.abs(moved - expected).max() < 1e-3)
    True
    """
    xp = array_namespace(spectra, shift_yx)
    along_y, along_x = _phases(xp, spectra, shift_yx, shape)
    columns = _along_y(xp, spectra, along_y, shape, rows)
    return _finish(xp, columns * along_x[..., None, :], shape)


def cut(spectra: Any, /, *, shape: tuple[int, int], rows: slice, columns: slice) -> Any:
    """Return the spectra of a part of images, on a periodic grid of its own."""
    xp = array_namespace(spectra)
    part = _finish(xp, xp.fft.ifft(spectra, axis=-2)[..., rows, :], shape)[..., columns]
    return xp.astype(spectrum(part), spectra.dtype, copy=False)


def shift_with_derivatives(
    spectra: Any, shift_yx: Any, /, *, shape: tuple[int, int], rows: slice = ALL_ROWS
) -> ShiftedImage:
    """Shift images as `shift` does, and differentiate the result with respect to the shift."""
    orders = ((0, 0), (0, 1), (1, 0))
    along_x, along_y = _derivatives(spectra, shift_yx, shape, rows, orders)
    return ShiftedImage(along_x[..., 0, :, :], along_y[..., 0, :, :], along_x[..., 1, :, :])


def _finish(xp: Any, columns: Any, shape: tuple[int, int]) -> Any:
    """Return rows of images from their transforms back along y alone."""
    return xp.fft.irfft(columns, n=odd_grid_length(shape[1]), axis=-1)[..., : shape[1]]


class Terms(NamedTuple):
    """Factors of a spectrum along y and x: one row for each order of an expansion."""

    along_y: Any  # (order + 1, m_y)
    along_x: Any  # (order + 1, m_x // 2 + 1)


MAX_REACH_PIX = 0.5


def chebyshev_terms(spectra: Any, reach_yx: Any, /, *, shape: tuple[int, int], order: int) -> Terms:
    r"""Return the factors of an expansion in offsets of up to some pixels, `MAX_REACH_PIX` at most.

    An offset of u times the reach multiplies a spectrum by :math:`e^{wu}`, w = -i k times the
    reach, and :math:`e^{wu} = I_0(w) + 2 \sum I_n(w)\,T_n(u)` with Chebyshev's polynomials (DLMF
    10.35.2). Up to u = 1 each order leaves out half as much as that of a Taylor expansion.
    """
    xp = array_namespace(spectra, reach_yx)
    n = xp.arange(order + 1, dtype=xp.float64, device=device(spectra))[:, None]
    terms = []
    for axis, minus_ik in enumerate(_minus_ik(xp, spectra, shape)):
        half = 0.5 * minus_ik[None, :] * reach_yx[axis]
        # I_n(w) = (w/2)^n / n! sum_m (w/2)^2m n! / (m! (n + m)!), by Horner's rule
        total = 1.0
        for m in range(10, 0, -1):
            total = 1.0 + half * half * total / (m * (m + n))
        lead = [half**0]
        for k in range(1, order + 1):
            lead.append(lead[-1] * half * (2.0 if k == 1 else 1.0 / k))
        terms.append(xp.concat(lead, axis=0) * total)
    return Terms(*terms)


def expanded_images(
    spectra: Any,
    shift_yx: Any,
    terms: Terms,
    /,
    *,
    shape: tuple[int, int],
    powers: tuple[tuple[int, int], ...],
    rows: slice = ALL_ROWS,
    keep: Callable[[Any], Any] | None = None,
) -> Any:
    r"""Expand shifted images about a shift d: ``(..., n_powers, n_rows, n_x)``.

    For the orders (a, b), ascending in a, of `terms` from `chebyshev_terms`,
    :math:`T_{d + \delta} r \approx \sum T_a(\delta_y / R_y)\,T_b(\delta_x / R_x)\,r_{ab}`. `keep`
    takes from images what is wanted of them, such as some pixels ``(..., n_powers, n_pix)``.
    """
    images = _derivatives(spectra, shift_yx, shape, rows, powers, terms, keep)
    axis = images[0].ndim - (3 if keep is None else 2)
    return array_namespace(spectra).concat(images, axis=axis)


def _derivatives(
    spectra: Any,
    shift_yx: Any,
    shape: tuple[int, int],
    rows: slice,
    orders: tuple[tuple[int, int], ...],
    terms: Terms | None = None,
    keep: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """Differentiate shifted images ``(a, b)`` times along y and x, or take other `terms` of them.

    Return images ``(..., n_b, n_rows, n_x)`` for each ``a``, which are transformed at once.
    """
    xp = array_namespace(spectra, shift_yx)
    factors = terms or (xp.stack([ik**0, ik]) for ik in _minus_ik(xp, spectra, shape))
    along_y, along_x = (
        phase[..., None, :] * xp.astype(factor, spectra.dtype, copy=False)
        for phase, factor in zip(_phases(xp, spectra, shift_yx, shape), factors, strict=True)
    )
    images = []
    for a, group in groupby(orders, key=itemgetter(0)):
        columns = _along_y(xp, spectra, along_y[..., a, :], shape, rows)[..., None, :, :]
        last = [b for _, b in group][-1]  # they begin with 0
        block = _finish(xp, columns * along_x[..., : last + 1, None, :], shape)
        images.append(block if keep is None else keep(block))
    return images


def _along_y(xp: Any, spectra: Any, factors: Any, shape: tuple[int, int], rows: slice) -> Any:
    """Multiply spectra along y, and transform back the rows of the images along that axis."""
    columns = xp.fft.ifft(spectra * factors[..., :, None], axis=-2)
    return columns[..., : shape[0], :][..., rows, :]


def _phases(xp: Any, spectra: Any, shift_yx: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Return by what a shift multiplies spectra along y and x, in their precision."""
    along_y, along_x = (
        xp.astype(xp.exp(ik * shift_yx[..., axis][..., None]), spectra.dtype)
        for axis, ik in enumerate(_minus_ik(xp, spectra, shape))
    )
    return along_y, along_x


def _minus_ik(xp: Any, spectra: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Return by what a derivative with respect to the shift along y and x multiplies spectra."""
    return _minus_ik_of_grid(xp, spectra.shape[-2], odd_grid_length(shape[1]), device(spectra))


@lru_cache(maxsize=16)
def _minus_ik_of_grid(xp: Any, m_y: int, m_x: int, there: Any) -> tuple[Any, Any]:
    k_y, k_x = _frequencies(xp, m_y, there), _frequencies(xp, m_x, there)[: m_x // 2 + 1]
    return _imaginary(-2.0 * xp.pi * k_y), _imaginary(-2.0 * xp.pi * k_x)


class Waves(NamedTuple):
    """Half spectra back to images at n positions: the real part of ``along_y @ s @ along_x``."""

    along_y: Any  # (n, m_y)
    along_x: Any  # (m_x // 2 + 1, n), weighted


def waves(positions: Any, grid: tuple[int, int], /) -> Waves:
    """Return the matrices for positions ``(n,)`` [pixel] and an odd grid ``(m_y, m_x)``."""
    xp = array_namespace(positions)
    m_y, m_x = grid
    k_y, k_x = (2.0 * xp.pi * _frequencies(xp, m, device(positions)) for m in grid)
    k_x = k_x[: m_x // 2 + 1]
    # The other half is the conjugate of the one that is there, but for frequency zero.
    twice = (1.0 + xp.astype(k_x > 0.0, xp.float64)) / (m_y * m_x)
    along_y = xp.exp(_imaginary(positions[:, None] * k_y[None, :]))
    along_x = xp.exp(_imaginary(k_x[:, None] * positions[None, :])) * twice[:, None]
    return Waves(along_y, along_x)


def _frequencies(xp: Any, n: int, there: Any) -> Any:
    """Frequencies of an odd grid [cycles per pixel]: zero, the positive, the negative ones."""
    k = xp.arange(n, dtype=xp.float64, device=there)
    return xp.where(k > n // 2, k - n, k) / n


def _imaginary(values: Any) -> Any:
    xp = array_namespace(values)
    return 1j * xp.astype(values, xp.complex128)


def low_pass(spectra: Any, /, *, shape: tuple[int, int], cutoff: float) -> Any:
    r"""Dampen spectra by :math:`\exp(-(k / k_c)^2)`, with the cutoff in Nyquist frequencies."""
    xp = array_namespace(spectra)
    m_y, m_x = spectra.shape[-2], odd_grid_length(shape[1])
    k_y = 2.0 * _frequencies(xp, m_y, device(spectra))[:, None]
    k_x = 2.0 * _frequencies(xp, m_x, device(spectra))[: m_x // 2 + 1][None, :]
    return spectra * xp.exp(-(k_y**2 + k_x**2) / cutoff**2)

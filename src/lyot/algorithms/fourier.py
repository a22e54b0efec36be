"""Sub-pixel shift of images by a phase ramp, and its derivatives.

An image of shape ``(n_y, n_x)`` is laid on a larger periodic grid of odd length in both axes.
The gap between its far edges is bridged smoothly, so nothing wraps around; an odd grid has no
Nyquist term, so the shift is a real, exactly invertible rotation of phases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from array_api_compat import array_namespace

MIN_GAP = 16
"""Smallest number of pixels between the far edges of an image on the periodic grid."""


ALL_ROWS = slice(None)


class ShiftedImage(NamedTuple):
    """An image under a shift, and its derivatives with respect to that shift [1/pixel]."""

    value: Any  # (..., n_rows, n_x)
    d_y: Any
    d_x: Any
    columns: Any  # (..., n_y, m_x // 2 + 1), transformed back along y alone, for `finish`


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
    u = (xp.arange(gap, dtype=xp.float64) + 1.0) / (gap + 1.0)
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
    array, shape (..., n_rows, n_x), float64
        The shifted images. Pixels that come from outside the frame hold the bridge between its
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
    [image], _ = _derivatives(spectra, shift_yx, shape, rows, ((0, 0),))
    return image[..., 0, :, :]


def shift_with_derivatives(
    spectra: Any, shift_yx: Any, /, *, shape: tuple[int, int], rows: slice = ALL_ROWS
) -> ShiftedImage:
    """Shift images as `shift` does, and differentiate the result with respect to the shift."""
    orders = ((0, 0), (0, 1), (1, 0))
    (along_x, along_y), columns = _derivatives(spectra, shift_yx, shape, rows, orders)
    value, d_x = along_x[..., 0, :, :], along_x[..., 1, :, :]
    return ShiftedImage(value, along_y[..., 0, :, :], d_x, columns)


def finish(columns: Any, /, *, shape: tuple[int, int]) -> Any:
    """Return all rows ``(..., n_y, n_x)`` of a shifted image from its `ShiftedImage.columns`."""
    xp = array_namespace(columns)
    return xp.fft.irfft(columns, n=odd_grid_length(shape[1]), axis=-1)[..., : shape[1]]


def taylor_images(
    spectra: Any,
    shift_yx: Any,
    /,
    *,
    shape: tuple[int, int],
    powers: tuple[tuple[int, int], ...],
    rows: slice = ALL_ROWS,
    keep: Callable[[Any], Any] | None = None,
) -> Any:
    r"""Expand shifted images about a shift d: ``(..., n_powers, n_rows, n_x)``.

    For the powers (a, b), ascending in a, it is the derivative over :math:`a!\,b!`, so that
    :math:`T_{d + \delta} r \approx \sum \delta_y^a \delta_x^b\,r_{ab}`. `keep` takes from images
    what is wanted of them, such as some pixels ``(..., n_powers, n_pix)``.
    """
    images, _ = _derivatives(spectra, shift_yx, shape, rows, powers, _over_factorial, keep)
    axis = images[0].ndim - (3 if keep is None else 2)
    return array_namespace(spectra).concat(images, axis=axis)


def _derivatives(
    spectra: Any,
    shift_yx: Any,
    shape: tuple[int, int],
    rows: slice,
    orders: tuple[tuple[int, int], ...],
    power: Callable[[Any, int], Any] | None = None,
    keep: Callable[[Any], Any] | None = None,
) -> tuple[list[Any], Any]:
    """Differentiate shifted images ``(a, b)`` times along y and x.

    Return images ``(..., n_b, n_rows, n_x)`` for each ``a``, which are transformed at once, and the
    columns of ``a = 0``. `power` is what an order makes of frequencies: their power, by default.
    """
    xp, power = array_namespace(spectra, shift_yx), power or _power
    m_y, m_x = spectra.shape[-2], odd_grid_length(shape[1])
    ik_y = _imaginary(2.0 * xp.pi * _frequencies(xp, m_y))[:, None]
    ik_x = _imaginary(2.0 * xp.pi * _frequencies(xp, m_x)[: m_x // 2 + 1])[None, :]
    phase_y = xp.exp(-ik_y * shift_yx[..., 0][..., None, None])
    phase_x = xp.exp(-ik_x * shift_yx[..., 1][..., None, None])
    shifted = spectra * (phase_y * phase_x)
    images, all_rows = [], None
    for a, group in groupby(orders, key=itemgetter(0)):
        source = shifted if a == 0 else shifted * power(-ik_y, a)
        columns = xp.fft.ifft(source, axis=-2)[..., : shape[0], :]
        all_rows = columns if a == 0 else all_rows
        parts = columns[..., None, rows, :]
        along_x = [b for _, b in group]
        if along_x != [0]:
            parts = parts * xp.stack([power(-ik_x, b) if b else ik_x**0 for b in along_x])
        block = xp.fft.irfft(parts, n=m_x, axis=-1)[..., : shape[1]]
        images.append(block if keep is None else keep(block))
    return images, all_rows


class Waves(NamedTuple):
    """Half spectra back to images at n positions: the real part of ``along_y @ s @ along_x``."""

    along_y: Any  # (n, m_y)
    along_x: Any  # (m_x // 2 + 1, n), weighted


def waves(positions: Any, grid: tuple[int, int], /) -> Waves:
    """Return the matrices for positions ``(n,)`` [pixel] and an odd grid ``(m_y, m_x)``."""
    xp = array_namespace(positions)
    m_y, m_x = grid
    k_y = 2.0 * xp.pi * _frequencies(xp, m_y)
    k_x = 2.0 * xp.pi * _frequencies(xp, m_x)[: m_x // 2 + 1]
    # The other half is the conjugate of the one that is there, but for frequency zero.
    twice = (1.0 + xp.astype(k_x > 0.0, xp.float64)) / (m_y * m_x)
    along_y = xp.exp(_imaginary(positions[:, None] * k_y[None, :]))
    along_x = xp.exp(_imaginary(k_x[:, None] * positions[None, :])) * twice[:, None]
    return Waves(along_y, along_x)


def _power(values: Any, exponent: int) -> Any:
    """Raise to a small power by multiplying, which is many times quicker for complex numbers."""
    result = values
    for _ in range(exponent - 1):
        result = result * values
    return result


def _over_factorial(values: Any, exponent: int) -> Any:
    return _power(values, exponent) / math.factorial(exponent)


def _frequencies(xp: Any, n: int) -> Any:
    """Frequencies of an odd grid [cycles per pixel]: zero, the positive, the negative ones."""
    k = xp.arange(n, dtype=xp.float64)
    return xp.where(k > n // 2, k - n, k) / n


def _imaginary(values: Any) -> Any:
    xp = array_namespace(values)
    return 1j * xp.astype(values, xp.complex128)


def low_pass(spectra: Any, /, *, shape: tuple[int, int], cutoff: float) -> Any:
    r"""Dampen spectra by :math:`\exp(-(k / k_c)^2)`, with the cutoff in Nyquist frequencies."""
    xp = array_namespace(spectra)
    m_y, m_x = spectra.shape[-2], odd_grid_length(shape[1])
    k_y = 2.0 * _frequencies(xp, m_y)[:, None]
    k_x = 2.0 * _frequencies(xp, m_x)[: m_x // 2 + 1][None, :]
    return spectra * xp.exp(-(k_y**2 + k_x**2) / cutoff**2)


def outside(shift_yx: Any, /, *, shape: tuple[int, int]) -> Any:
    """Tell which pixels of a shifted image come from more than half a pixel beyond the frame."""
    xp = array_namespace(shift_yx)
    inside = []
    for axis in (0, 1):
        source = xp.arange(shape[axis], dtype=xp.float64) - shift_yx[axis]
        inside.append((source >= -0.5) & (source <= shape[axis] - 0.5))
    return ~(inside[0][:, None] & inside[1][None, :])

"""Sub-pixel shift of images by a phase ramp, and its derivatives.

An image of shape ``(n_y, n_x)`` is laid on a larger periodic grid of odd length in both axes.
The gap between its far edges is bridged smoothly, so nothing wraps around; an odd grid has no
Nyquist term, so the shift is a real, exactly invertible rotation of phases.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import array_namespace

MIN_GAP = 16
"""Smallest number of pixels between the far edges of an image on the periodic grid."""


class ShiftedImage(NamedTuple):
    """An image under a shift, with its derivatives with respect to that shift.

    Attributes
    ----------
    value : array, shape (..., n_y, n_x)
        The shifted image.
    d_y, d_x : array, shape (..., n_y, n_x)
        Derivative of `value` with respect to the shift along y and along x [1/pixel].
    """

    value: Any
    d_y: Any
    d_x: Any


def odd_grid_length(n: int, /) -> int:
    """Return the smallest odd length of at least ``n + MIN_GAP`` with small prime factors.

    Parameters
    ----------
    n : int
        Number of pixels along the axis.

    Returns
    -------
    int
        A product of powers of 3, 5, 7 and 11.
    """
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
    """Transform images to the spectrum that `shift` and `shift_with_derivatives` take.

    Parameters
    ----------
    images : array, shape (..., n_y, n_x)
        Finite images; float32 is raised to float64.

    Returns
    -------
    array, shape (..., m_y, m_x // 2 + 1), complex128
        Half spectrum on the odd periodic grid ``(m_y, m_x)``.

    Notes
    -----
    One forward transform per image. A NaN in the input spreads over the whole output: repair
    the image first.
    """
    xp = array_namespace(images)
    images = xp.astype(images, xp.float64)
    grid = tuple(odd_grid_length(n) for n in images.shape[-2:])
    for axis, length in zip((-2, -1), grid, strict=True):
        images = _bridge(images, length=length, axis=axis)
    return xp.fft.rfftn(images, axes=(-2, -1))


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


def shift(spectra: Any, shift_yx: Any, /, *, shape: tuple[int, int]) -> Any:
    r"""Shift images by any fraction of a pixel: :math:`T_d r(x) = r(x - d)`.

    Parameters
    ----------
    spectra : array, shape (..., m_y, m_x // 2 + 1)
        From `spectrum`.
    shift_yx : array, shape (..., 2)
        Shift of each image along y and x [pixel]; its leading axes broadcast with those of
        `spectra`.
    shape : tuple of int
        ``(n_y, n_x)`` of the images.

    Returns
    -------
    array, shape (..., n_y, n_x), float64
        The shifted images. Pixels that come from outside the frame hold the bridge between its
        edges; `outside` tells which they are.

    Notes
    -----
    One inverse transform per image; exact for band-limited images.
    """
    phase_y, phase_x, _, _ = _phases(spectra, shift_yx, shape)
    return _to_image(spectra * phase_y * phase_x, shape)


def shift_with_derivatives(
    spectra: Any, shift_yx: Any, /, *, shape: tuple[int, int]
) -> ShiftedImage:
    """Shift images and differentiate the result with respect to the shift, analytically.

    Parameters
    ----------
    spectra : array, shape (..., m_y, m_x // 2 + 1)
        From `spectrum`.
    shift_yx : array, shape (..., 2)
        Shift of each image along y and x [pixel].
    shape : tuple of int
        ``(n_y, n_x)`` of the images.

    Returns
    -------
    ShiftedImage
        Value and both derivatives, float64; three inverse transforms per image.
    """
    phase_y, phase_x, ik_y, ik_x = _phases(spectra, shift_yx, shape)
    shifted = spectra * phase_y * phase_x
    return ShiftedImage(
        _to_image(shifted, shape),
        _to_image(shifted * -ik_y, shape),
        _to_image(shifted * -ik_x, shape),
    )


def second_derivatives(
    spectra: Any, shift_yx: Any, /, *, shape: tuple[int, int]
) -> tuple[Any, Any, Any]:
    """Return the second derivatives of the shifted images with respect to the shift.

    Parameters
    ----------
    spectra : array, shape (..., m_y, m_x // 2 + 1)
        From `spectrum`.
    shift_yx : array, shape (..., 2)
        Shift of each image along y and x [pixel].
    shape : tuple of int
        ``(n_y, n_x)`` of the images.

    Returns
    -------
    d_yy, d_yx, d_xx : array, shape (..., n_y, n_x)
        Three inverse transforms per image.
    """
    phase_y, phase_x, ik_y, ik_x = _phases(spectra, shift_yx, shape)
    shifted = spectra * phase_y * phase_x
    return (
        _to_image(shifted * ik_y * ik_y, shape),
        _to_image(shifted * ik_y * ik_x, shape),
        _to_image(shifted * ik_x * ik_x, shape),
    )


def _phases(spectra: Any, shift_yx: Any, shape: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Return the phase ramps of a shift and i times the angular frequencies of both axes."""
    xp = array_namespace(spectra, shift_yx)
    m_y, m_x = spectra.shape[-2], odd_grid_length(shape[1])
    k_y = 2.0 * xp.pi * xp.fft.fftfreq(m_y, dtype=xp.float64)
    k_x = 2.0 * xp.pi * xp.fft.rfftfreq(m_x, dtype=xp.float64)
    d_y = shift_yx[..., 0][..., None]
    d_x = shift_yx[..., 1][..., None]
    phase_y = _cis(-k_y * d_y)[..., :, None]
    phase_x = _cis(-k_x * d_x)[..., None, :]
    zero_y, zero_x = xp.zeros_like(k_y), xp.zeros_like(k_x)
    return phase_y, phase_x, _complex(zero_y, k_y)[:, None], _complex(zero_x, k_x)[None, :]


def _cis(angle: Any) -> Any:
    xp = array_namespace(angle)
    return _complex(xp.cos(angle), xp.sin(angle))


def _complex(real: Any, imag: Any) -> Any:
    xp = array_namespace(real, imag)
    return xp.astype(real, xp.complex128) + 1j * xp.astype(imag, xp.complex128)


def _to_image(half_spectrum: Any, shape: tuple[int, int]) -> Any:
    xp = array_namespace(half_spectrum)
    grid = (half_spectrum.shape[-2], odd_grid_length(shape[1]))
    return xp.fft.irfftn(half_spectrum, s=grid, axes=(-2, -1))[..., : shape[0], : shape[1]]


def outside(shift_yx: Any, /, *, shape: tuple[int, int]) -> Any:
    """Tell which pixels of a shifted image come from outside the frame.

    Parameters
    ----------
    shift_yx : array, shape (2,)
        Shift along y and x [pixel].
    shape : tuple of int
        ``(n_y, n_x)`` of the image.

    Returns
    -------
    array of bool, shape (n_y, n_x)
        True where the pixel's centre came from more than half a pixel beyond an edge.
    """
    xp = array_namespace(shift_yx)
    inside = []
    for axis in (0, 1):
        source = xp.arange(shape[axis], dtype=xp.float64) - shift_yx[axis]
        inside.append((source >= -0.5) & (source <= shape[axis] - 0.5))
    return ~(inside[0][:, None] & inside[1][None, :])

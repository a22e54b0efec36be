"""Images convolved with kernels through one transform of the images."""

from __future__ import annotations

from lyot.types import Array


def convolve(images: Array, /, *kernels: Array) -> list[Array]:
    """Convolve real images ``(..., n_y, n_x)``, zero beyond their edges, with each kernel.

    The kernels ``(..., m_y, m_x)`` share their numbers of rows and columns and broadcast with the
    images; the result, of the images' rows and columns, is centered as they are.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(12.0).reshape(3, 4)
    >>> [same] = convolve(image, np.eye(3)[1][:, None] * np.eye(3)[1])
    >>> bool(np.allclose(same, image))
    True
    """
    from scipy import fft

    (n_y, n_x), (m_y, m_x) = images.shape[-2:], kernels[0].shape[-2:]
    grid = [fft.next_fast_len(n, real=True) for n in (n_y + m_y - 1, n_x + m_x - 1)]
    spectra, top, left = fft.rfft2(images, grid), (m_y - 1) // 2, (m_x - 1) // 2
    wide = [fft.irfft2(spectra * fft.rfft2(each, grid), grid) for each in kernels]
    return [each[..., top : top + n_y, left : left + n_x] for each in wide]

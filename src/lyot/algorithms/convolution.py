"""Images convolved with kernels through one transform of the images."""

from __future__ import annotations

from collections.abc import Sequence

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
    return Kernels(*kernels).over(images)


class Kernels:
    """Kernels for many images: their transforms are made once for each size of an image."""

    def __init__(self, *kernels: Array) -> None:
        """Take kernels ``(..., m_y, m_x)`` with the same numbers of rows and columns."""
        self.kernels = kernels
        self._spectra: dict[tuple[int, ...], list[Array]] = {}

    def over(self, images: Array, pick: Sequence[int] | None = None, /) -> list[Array]:
        """Convolve images as `convolve` does, by all kernels or some along the first axis."""
        from scipy import fft

        (n_y, n_x), (m_y, m_x) = images.shape[-2:], self.kernels[0].shape[-2:]
        grid = (
            fft.next_fast_len(n_y + m_y - 1, real=True),
            fft.next_fast_len(n_x + m_x - 1, real=True),
        )
        which = (*grid, *(pick or ()))
        if which not in self._spectra:
            some = (each if pick is None else each[list(pick)] for each in self.kernels)
            self._spectra[which] = [fft.rfft2(each, grid) for each in some]
        spectra, top, left = fft.rfft2(images, grid), (m_y - 1) // 2, (m_x - 1) // 2
        wide = [fft.irfft2(spectra * each, grid) for each in self._spectra[which]]
        return [each[..., top : top + n_y, left : left + n_x] for each in wide]

"""The pixels that count in a fit, and the answer of every fit of shifts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from array_api_compat import array_namespace, device

TOLERANCE_PIX = 5e-7
"""Size of the last step of a fit that has converged."""

MAX_STEP_PIX = 0.5


class ShiftFit(NamedTuple):
    """Shifts of references and scales to the target that were fitted, over any leading axes."""

    shift_yx: Any  # (..., 2) [pixel]
    scale: Any  # (...)
    covariance: Any  # (..., 2, 2) of the shift [pixel^2], from the noise variances
    rms: Any  # (...), weighted, of the residual in the fit zone
    converged: Any  # (...), whether the shift is the optimum; else it is the best one known


class Zone(NamedTuple):
    """The pixels of positive weight: the box that holds them, and their places in it."""

    rows: slice
    columns: slice
    index: Any


def zone_of(weight: Any, /) -> Zone:
    """Return where a weight is positive."""
    xp = array_namespace(weight)
    rows, columns = (_extent(xp.any(weight > 0, axis=axis)) for axis in (1, 0))
    inside = xp.reshape(weight[rows, columns], (-1,))
    return Zone(rows, columns, xp.nonzero(inside > 0)[0])


def _extent(used: Any) -> slice:
    """Return from where to where a vector is True."""
    at = array_namespace(used).nonzero(used)[0]
    return slice(int(at[0]), int(at[-1]) + 1) if at.shape[0] else slice(0, 1)


def pick(image: Any, zone: Zone, /) -> Any:
    """Return the pixels of the zone of an image."""
    return pick_rows(image[zone.rows, :], zone)


def pick_rows(rows: Any, zone: Zone, /) -> Any:
    """Return the pixels of the zone from the rows that hold it, of one image or of several."""
    xp = array_namespace(rows)
    box = rows[..., zone.columns]
    return xp.take(xp.reshape(box, (*box.shape[:-2], -1)), zone.index, axis=-1)


def noise_in_normal(power: Any, cutoff: float | None, /) -> Any:
    """Return what white noise of weighted power ``(n_ref,)`` adds to the normal matrix's diagonal.

    Once for the image and, after Parseval, the mean square of the frequency for each derivative;
    less where images have been low-passed.
    """
    xp = array_namespace(power)
    count = xp.arange(200, dtype=xp.float64, device=device(power))
    k = (count + 0.5) / 200.0  # of the Nyquist frequency
    passed = xp.ones_like(k) if cutoff is None else xp.exp(-2.0 * k * k / cutoff**2)
    image, slope = xp.mean(passed), xp.mean((math.pi * k) ** 2 * passed)
    return power[:, None] * xp.stack([image * image, image * slope, image * slope])


def shift_covariance(normal: Any, meat: Any, b: Any, noise: Any, /) -> Any:
    """Return the covariance of the shifts from normal matrices and the noise of the right sides.

    With columns X = (r, b r_y, b r_x) the fit is N^-1 X^T W s, where N = X^T W X, so its
    covariance is the sandwich N^-1 (X^T W V W X) N^-1, which holds for any weight W, not the
    inverse variance alone (White 1980, doi:10.2307/1912934). The noise of a reference, by
    `noise_in_normal`, tells no shift and is taken off the N that is inverted; a tenth stays. It has
    made the scale b too small, in the same ratio. Where it matters the result is an upper bound: it
    leaves out that the noise of a reference and of its slopes are one.
    """
    xp = array_namespace(normal, meat)
    diagonal = xp.stack([normal[:, k, k] for k in range(3)], axis=1)
    positive = xp.where(diagonal > 0.0, diagonal, 1.0)
    true = xp.sqrt(1.0 - xp.minimum(noise / positive, 0.9))  # so that it stays positive definite
    normal = normal * true[:, :, None] * true[:, None, :]
    b = b * diagonal[:, 0] / xp.where(normal[:, 0, 0] > 0.0, normal[:, 0, 0], 1.0)
    rr = normal[:, 0, 0]
    usable = (rr > 0.0) & (b != 0.0)
    safe = xp.where(usable, rr, xp.ones_like(rr))[:, None, None]
    usable = usable & (xp.linalg.det(normal / safe) > 0.0)
    scale = xp.stack([xp.ones_like(b), b, b], axis=1)
    outer = scale[:, :, None] * scale[:, None, :]
    keep = usable[:, None, None]
    one = xp.eye(3, dtype=xp.float64, device=device(normal))
    inverse = xp.linalg.inv(xp.where(keep, normal * outer, one))
    covariance = xp.matmul(xp.matmul(inverse, meat * outer), inverse)[:, 1:, 1:]
    return xp.where(keep, covariance, xp.nan)

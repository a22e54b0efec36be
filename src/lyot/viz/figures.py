"""Figures as functions that take arrays and return Axes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from lyot.algorithms.repair import MAD_TO_SIGMA
from lyot.files.star import StarPosition
from lyot.types import Array

SEQUENTIAL, DIVERGING = "inferno", "RdBu_r"
GRAY = "#8a94a3"
"""For lines that stand back; visible on a light and on a dark ground."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GRAY)
"""Distinguishable with any color vision (Okabe and Ito 2008), on any ground."""
MAX_STARS_IN_LEGEND = 10


def image(
    ax: Axes,
    data: Array,
    /,
    *,
    title: str,
    star: StarPosition | None = None,
    pixel_scale_arcsec: float = 1.0,
    unit: str = "MJy/sr",
    norm: Normalize | None = None,
    pa_y_deg: float | None = None,
) -> Axes:
    """Draw an image in arcsec from its star; `pa_y_deg` adds arrows to the north and the east."""
    n_y, n_x = data.shape
    x0, y0 = (star.x, star.y) if star else (0.5 * (n_x - 1), 0.5 * (n_y - 1))
    s = pixel_scale_arcsec
    extent = ((-0.5 - x0) * s, (n_x - 0.5 - x0) * s, (-0.5 - y0) * s, (n_y - 0.5 - y0) * s)
    shown = ax.imshow(
        data,
        origin="lower",
        extent=extent,
        cmap=SEQUENTIAL,
        norm=norm or stretch(data),
        interpolation="nearest",
    )
    ax.set_facecolor("0.35")
    ax.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=1.2)
    ax.set_title(title, fontsize=10)
    ax.set(xlabel="x offset [arcsec]", ylabel="y offset [arcsec]")
    bar = ax.figure.colorbar(shown, ax=ax, label=unit, fraction=0.046, pad=0.03)
    if isinstance(shown.norm, AsinhNorm):
        bar.locator = FixedLocator(_ticks(shown.norm))
        bar.formatter = FuncFormatter(lambda value, _: f"{value:.3g}")
        bar.minorlocator = NullLocator()
        bar.update_ticks()
    if pa_y_deg is not None:
        _compass(ax, pa_y_deg)
    return ax


def stretch(data: Array, /) -> Normalize:
    """Return a stretch for a subtracted image: asinh, linear within three times the noise."""
    finite = data[np.isfinite(data)]
    if finite.size == 0:
        return Normalize(0.0, 1.0)
    center = float(np.median(finite))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(finite - center))) or 1.0
    top = max(float(np.percentile(finite, 99.8)), center + 5 * sigma)
    return AsinhNorm(linear_width=3 * sigma, vmin=center - 5 * sigma, vmax=top)


def _ticks(norm: AsinhNorm) -> list[float]:
    """Zero, and round numbers of both signs that stand apart on a stretched color bar."""
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 1.0)
    top = max(abs(low), abs(high))
    round_numbers = [m * 10.0**n for n in range(-4, 6) for m in (1, 2, 5) if m * 10.0**n <= top]
    chosen = [0.0]
    for value in reversed(round_numbers):
        for tick in (value, -value):
            inside = low <= tick <= high
            if inside and all(abs(norm(tick) - norm(other)) > 0.11 for other in chosen):
                chosen.append(tick)
    return sorted(chosen)


def _compass(ax: Axes, pa_y_deg: float) -> None:
    """Draw arrows to the north and the east in a corner."""
    for letter, pa in (("N", 0.0), ("E", 90.0)):
        # An angle east of north runs anticlockwise on an image whose parity is that of the sky.
        angle = np.radians(pa - pa_y_deg)
        tip = (0.86 - 0.09 * np.sin(angle), 0.14 + 0.09 * np.cos(angle))
        ax.annotate(
            "",
            xy=tip,
            xytext=(0.86, 0.14),
            xycoords="axes fraction",
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "->", "color": "white"},
        )
        ax.text(
            0.86 - 0.13 * np.sin(angle),
            0.14 + 0.13 * np.cos(angle),
            letter,
            color="white",
            transform=ax.transAxes,
            ha="center",
            va="center",
            fontsize=9,
        )


def noise_curve(ax: Axes, separation_arcsec: Array, sigma: Array, /, *, label: str) -> Axes:
    """Draw 1-sigma noise [MJy/sr] against separation, with a logarithmic ordinate."""
    good = np.isfinite(sigma) & (sigma > 0)
    ax.semilogy(separation_arcsec[good], sigma[good], label=label, linewidth=1.6)
    ax.set(xlabel="separation [arcsec]", ylabel="1-sigma scatter [MJy/sr]")
    ax.grid(alpha=0.3, which="both")
    return ax


def drift(ax: Axes, shift_yx: Array, error_yx: Array, /) -> Axes:
    """Draw the drift of the pointing from shifts of shape (n_int, n_ref, 2) [pixel]."""
    n_int, n_ref = shift_yx.shape[:2]
    common = (shift_yx - shift_yx.mean(axis=0, keepdims=True)).mean(axis=1)
    error = np.sqrt((error_yx**2).mean(axis=1) / n_ref)
    numbers = np.arange(1, n_int + 1)
    for k, (name, color) in enumerate((("y", COLORS[0]), ("x", COLORS[1]))):
        ax.errorbar(
            numbers, common[:, k], error[:, k], fmt="o-", color=color, label=name, lw=1.2, ms=4
        )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlim=(0.5, n_int + 0.5), xlabel="integration", ylabel="drift [pixel]")
    ax.legend(fontsize=8)
    ax.grid(alpha=0.3)
    return ax


def reference_shifts(ax: Axes, shift_yx: Array, error_yx: Array, /) -> Axes:
    """Draw the mean shift of each reference from shifts of shape (n_int, n_ref, 2) [pixel]."""
    mean, error = shift_yx.mean(axis=0), error_yx.mean(axis=0)
    ax.errorbar(mean[:, 1], mean[:, 0], error[:, 0], error[:, 1], fmt=".", color=COLORS[0], lw=0.8)
    ax.axhline(0.0, color=GRAY, lw=0.6)
    ax.axvline(0.0, color=GRAY, lw=0.6)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel="shift along x [pixel]", ylabel="shift along y [pixel]")
    ax.grid(alpha=0.3)
    return ax


def spectrum(ax: Axes, eigenvalues: Array, residual_rms: Array, /) -> Axes:
    """Draw eigenvalues ``(n_zone, n_ref)`` and, on the right, rms residuals (or none) by zone."""
    for values in np.atleast_2d(eigenvalues):
        good = values > 0
        modes = np.arange(1, len(values) + 1)[good]
        ax.semilogy(modes, values[good] / values[0], ".-", color=COLORS[0], lw=1)
    ax.set_xlabel("number of modes")
    ax.set_ylabel("eigenvalue / first", color=COLORS[0])
    ax.grid(alpha=0.3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if np.size(residual_rms):
        right = ax.twinx()
        for rms in np.atleast_2d(residual_rms):
            right.semilogy(np.arange(len(rms)), rms, color=COLORS[1], lw=1.6)
        right.set_ylabel("rms residual [MJy/sr]", color=COLORS[1])
    return ax


def weights(ax: Axes, coefs: Array, scale: Array, targets: list[str], /) -> Axes:
    """Draw what each reference contributes, by coefficients (n_zone, n_int, n_ref) and scale."""
    share = (coefs / scale[None]).mean(axis=(0, 1))
    numbers = np.arange(1, len(share) + 1)
    names = list(dict.fromkeys(targets)) if len(targets) == len(share) else []
    for k, name in enumerate(names or [""]):
        here = np.array([t == name for t in targets]) if names else np.ones(len(share), bool)
        color = COLORS[k % len(COLORS)]
        label = name if 1 < len(names) <= MAX_STARS_IN_LEGEND else None
        ax.bar(numbers[here], share[here], color=color, width=0.8, label=label)
    ax.axhline(0.0, color=GRAY, lw=0.6)
    ax.set(xlabel="reference", ylabel="contribution")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if 1 < len(names) <= MAX_STARS_IN_LEGEND:
        ax.legend(fontsize=8)
    return ax

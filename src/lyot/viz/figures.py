"""Figures as functions that take arrays and return Axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from lyot.files.star import StarPosition

SEQUENTIAL, DIVERGING = "inferno", "RdBu_r"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a94a3")
"""Distinguishable with any color vision (Okabe and Ito 2008), on any ground."""
MAX_NAMES = 10


def image(
    ax: Axes,
    data: NDArray[Any],
    /,
    *,
    title: str,
    star: StarPosition | None = None,
    pixel_scale_arcsec: float = 1.0,
    unit: str = "MJy/sr",
    norm: Normalize | None = None,
    cmap: str = SEQUENTIAL,
    pa_y_deg: float | None = None,
    half_width_arcsec: float | None = None,
) -> Axes:
    """Draw an image about its star.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    data : ndarray, shape (n_y, n_x)
        Image; NaN is left blank.
    title : str
        Title.
    star : StarPosition, optional
        Position of the star, drawn as a cross; the middle of the image by default.
    pixel_scale_arcsec : float, optional
        Pixel scale [arcsec].
    unit : str, optional
        Unit of the data, for the color bar.
    norm : Normalize, optional
        Stretch; inverse hyperbolic sine about zero by default.
    cmap : str, optional
        Color map.
    pa_y_deg : float, optional
        Position angle of the y axis [degree]; draws north and east.
    half_width_arcsec : float, optional
        Half the width of what is shown [arcsec]; all of it by default.

    Returns
    -------
    Axes
        The axes, in arcsec from the star.
    """
    n_y, n_x = data.shape
    x0, y0 = (star.x, star.y) if star else (0.5 * (n_x - 1), 0.5 * (n_y - 1))
    s = pixel_scale_arcsec
    extent = ((-0.5 - x0) * s, (n_x - 0.5 - x0) * s, (-0.5 - y0) * s, (n_y - 0.5 - y0) * s)
    shown = ax.imshow(
        data,
        origin="lower",
        extent=extent,
        cmap=cmap,
        norm=norm or stretch(data),
        interpolation="nearest",
    )
    ax.set_facecolor("0.35")
    ax.plot(0, 0, "+", color="white", markersize=9, markeredgewidth=1.2)
    ax.set_title(title, fontsize=10)
    ax.set_xlabel("x offset [arcsec]")
    ax.set_ylabel("y offset [arcsec]")
    if half_width_arcsec is not None:
        ax.set_xlim(-half_width_arcsec, half_width_arcsec)
        ax.set_ylim(-half_width_arcsec, half_width_arcsec)
    bar = ax.figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label(unit)
    if isinstance(shown.norm, AsinhNorm):
        bar.locator = FixedLocator(_ticks(shown.norm))
        bar.formatter = FuncFormatter(lambda value, _: f"{value:.3g}")
        bar.minorlocator = NullLocator()
        bar.update_ticks()
    if pa_y_deg is not None:
        _compass(ax, pa_y_deg)
    return ax


def stretch(data: NDArray[Any], /) -> Normalize:
    """Return a stretch that shows faint and bright parts of a subtracted image.

    Parameters
    ----------
    data : ndarray
        Image.

    Returns
    -------
    Normalize
        Inverse hyperbolic sine, linear within three times the noise.
    """
    finite = data[np.isfinite(data)]
    if finite.size == 0:
        return Normalize(0.0, 1.0)
    center = float(np.median(finite))
    sigma = 1.4826 * float(np.median(np.abs(finite - center))) or 1.0
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


def noise_curve(
    ax: Axes,
    separation_arcsec: NDArray[Any],
    sigma: NDArray[Any],
    /,
    *,
    label: str,
    unit: str = "MJy/sr",
) -> Axes:
    """Draw 1-sigma noise against separation.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    separation_arcsec : ndarray, shape (n,)
        Separation [arcsec].
    sigma : ndarray, shape (n,)
        Standard deviation.
    label : str
        Label of the line.
    unit : str, optional
        Unit of `sigma`.

    Returns
    -------
    Axes
        The axes, with a logarithmic ordinate.
    """
    good = np.isfinite(sigma) & (sigma > 0)
    ax.semilogy(separation_arcsec[good], sigma[good], label=label, linewidth=1.6)
    ax.set_xlabel("separation [arcsec]")
    ax.set_ylabel(f"1-sigma scatter [{unit}]")
    ax.grid(alpha=0.3, which="both")
    return ax


def shifts(axes: NDArray[Any], shift_yx: NDArray[Any], error_yx: NDArray[Any], /) -> NDArray[Any]:
    """Draw the shifts of an alignment: the drift of the pointing, and each reference.

    Parameters
    ----------
    axes : ndarray of Axes, shape (2,)
        Where to draw.
    shift_yx : ndarray, shape (n_int, n_ref, 2)
        Shift applied to each reference for each integration [pixel].
    error_yx : ndarray, shape (n_int, n_ref, 2)
        Its error.

    Returns
    -------
    ndarray of Axes
        The axes.
    """
    drift, each = axes
    n_int = len(shift_yx)
    numbers = np.arange(1, n_int + 1)
    common = shift_yx - shift_yx.mean(axis=0, keepdims=True)
    spread = np.sqrt((error_yx**2).mean(axis=1) / shift_yx.shape[1])
    for k, (name, color) in enumerate((("y", COLORS[0]), ("x", COLORS[1]))):
        drift.errorbar(
            numbers,
            common[..., k].mean(axis=1),
            spread[:, k],
            fmt="o-",
            color=color,
            label=name,
            lw=1.2,
            ms=4,
        )
    drift.set_xlim(0.5, n_int + 0.5)
    drift.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    drift.set_xlabel("integration")
    drift.set_ylabel("drift [pixel]")
    drift.legend(fontsize=8)
    drift.grid(alpha=0.3)
    mean, error = shift_yx.mean(axis=0), error_yx.mean(axis=0)
    each.errorbar(
        mean[:, 1], mean[:, 0], error[:, 0], error[:, 1], fmt=".", color=COLORS[0], lw=0.8
    )
    each.axhline(0.0, color="#8a94a3", lw=0.6)
    each.axvline(0.0, color="#8a94a3", lw=0.6)
    each.set_aspect("equal", adjustable="datalim")
    each.set_xlabel("shift along x [pixel]")
    each.set_ylabel("shift along y [pixel]")
    each.grid(alpha=0.3)
    return axes


def spectrum(ax: Axes, eigenvalues: NDArray[Any], residual_rms: NDArray[Any], /) -> Axes:
    """Draw the eigenvalues of the references, and what is left with more and more modes.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    eigenvalues : ndarray, shape (n_zone, n_ref)
        Eigenvalues, zero beyond the rank.
    residual_rms : ndarray, shape (n_zone, n_modes + 1)
        Rms of the residual in the fit with 0, 1, ... modes; may be empty.

    Returns
    -------
    Axes
        The axes of the eigenvalues; those of the residual share its abscissa.
    """
    for number, values in enumerate(np.atleast_2d(eigenvalues)):
        good = values > 0
        modes = np.arange(1, len(values) + 1)[good]
        label = "eigenvalue" if number == 0 else None
        ax.semilogy(modes, values[good] / values[0], ".-", color=COLORS[0], lw=1, label=label)
    ax.set_xlabel("number of modes")
    ax.set_ylabel("eigenvalue / first")
    ax.grid(alpha=0.3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if np.size(residual_rms):
        right = ax.twinx()
        for number, rms in enumerate(np.atleast_2d(residual_rms)):
            label = "residual" if number == 0 else None
            right.semilogy(np.arange(len(rms)), rms, color=COLORS[1], lw=1.6, label=label)
        right.set_ylabel("rms of the residual [MJy/sr]", color=COLORS[1])
    return ax


def weights(ax: Axes, coefs: NDArray[Any], scale: NDArray[Any], targets: list[str], /) -> Axes:
    """Draw how much each reference is in the model of the star.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    coefs : ndarray, shape (n_zone, n_int, n_ref)
        Coefficients.
    scale : ndarray, shape (n_int, n_ref)
        Brightness of the science over that of each reference.
    targets : list of str
        Star of each reference; may be empty.

    Returns
    -------
    Axes
        The axes.
    """
    share = (coefs / scale[None]).mean(axis=(0, 1))
    numbers = np.arange(1, len(share) + 1)
    names = list(dict.fromkeys(targets)) if len(targets) == len(share) else []
    for k, name in enumerate(names or [""]):
        here = np.array([t == name for t in targets]) if names else np.ones(len(share), bool)
        color = COLORS[k % len(COLORS)]
        label = name if 1 < len(names) <= MAX_NAMES else None
        ax.bar(numbers[here], share[here], color=color, width=0.8, label=label)
    ax.axhline(0.0, color="#8a94a3", lw=0.6)
    ax.set_xlabel("reference")
    ax.set_ylabel("share of the model")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if 1 < len(names) <= MAX_NAMES:
        ax.legend(fontsize=8)
    return ax

"""Images as figures: functions that take arrays and return Axes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lyot.files.star import StarPosition
from lyot.types import Array
from lyot.viz.style import SEQUENTIAL, stretch_of


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
    low, high, soft = stretch_of(data)
    return AsinhNorm(linear_width=soft, vmin=low, vmax=high)


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

"""Figures of contrast curves, maps and companions: they take results and return Axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from scipy.special import ndtri

from lyot.algorithms.geometry import east_north
from lyot.analysis.companion import CompanionFit
from lyot.analysis.completeness import Completeness
from lyot.analysis.contrast import ContrastCurve, SensitivityMap
from lyot.analysis.detection import Detection
from lyot.analysis.mass import MassLimits
from lyot.files.atomic import atomic_write
from lyot.types import Array
from lyot.viz.style import COLORS, GRAY, modes_label


def save(path: str | Path, draw: Callable[[Figure], Any], size: tuple[float, float], /) -> str:
    """Draw a figure of a size [inch] and write it; the suffix of the path says the format."""
    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight", pad_inches=0.12)
    return str(path)


def contrast_figure(figure: Figure, curve: ContrastCurve, /, *, title: str) -> None:
    """Draw limits above and throughput below."""
    upper, lower = figure.subplots(2, 1, height_ratios=(2.2, 1.0))
    contrast(upper, curve).set_title(title, fontsize=9)
    throughput(lower, curve)


def sensitivity_figure(figure: Figure, limits: SensitivityMap, complete: Completeness, /) -> None:
    """Draw the map of limits beside the completeness."""
    left, right = figure.subplots(1, 2)
    sensitivity(left, limits)
    completeness(right, complete)


def contrast(ax: Axes, curve: ContrastCurve, /) -> Axes:
    """Draw contrast limits against separation, both logarithmic, with magnitudes on the right."""
    r = curve.separation_arcsec
    one = len(curve.n_modes) == 1
    for t, n_modes in enumerate(zip(curve.n_modes_used, curve.n_modes, strict=True)):
        color = COLORS[t % len(COLORS)]
        label = "limit, corrected for throughput and transmission" if one else modes_label(*n_modes)
        ax.plot(r, curve.calibrated[t], color=color, lw=1.8, label=label)
        if one:
            label = "corrected for throughput alone"
            ax.plot(r, curve.corrected[t], color=COLORS[1], ls="--", lw=1.3, label=label)
            ax.plot(r, curve.raw[t], color=GRAY, ls=":", lw=1.3, label="uncorrected")
    if not one:
        ax.plot(
            r, curve.best_limit, color=GRAY, lw=0.9, ls="--", label="lowest of all numbers of modes"
        )
    if curve.best_unmasked is not None:
        label = "limit, detected sources left in the noise"
        ax.plot(r, curve.best_unmasked, color=COLORS[3], ls="-.", lw=1.1, label=label)
    sigma = float(-ndtri(curve.statistic.fpf))
    is_whole = abs(sigma - round(sigma)) < 1e-3
    label = f", {round(sigma)} sigma" if is_whole else f" at FPF = {curve.statistic.fpf:.1g}"
    ax.set(xscale="log", yscale="log", ylabel=f"contrast{label}")
    _separation_axis(ax, r)
    ax.grid(True, which="major", color=GRAY, alpha=0.35, lw=0.6)
    ax.set_axisbelow(True)
    ax.legend(frameon=False, fontsize=8)
    _magnitudes(ax, curve.star_magnitude)
    return ax


def _separation_axis(ax: Axes, r: Array) -> None:
    ticks = [v for v in (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20) if 0.9 * r.min() <= v]
    ax.xaxis.set_major_locator(FixedLocator([v for v in ticks if v <= 1.1 * r.max()]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(*((r.min(), r.max()) if r.size > 1 else _edges(r)))
    ax.set_xlabel("separation [arcsec]")


def _magnitudes(ax: Axes, star_magnitude: float | None) -> None:
    offset = 0.0 if star_magnitude is None else star_magnitude
    right = ax.secondary_yaxis(
        "right",
        functions=(
            lambda c: offset - 2.5 * np.log10(np.maximum(c, 1e-30)),
            lambda m: 10 ** (-0.4 * (np.asarray(m) - offset)),
        ),
    )
    low, high = ax.get_ylim()
    top, bottom = offset - 2.5 * np.log10(high), offset - 2.5 * np.log10(max(low, 1e-30))
    step = 1.0 if bottom - top < 8 else 2.0
    ticks = np.arange(np.ceil(top), bottom + 1e-9, step)
    right.yaxis.set_major_locator(FixedLocator(ticks.tolist()))
    right.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    what = "magnitude" if star_magnitude is not None else "magnitudes fainter than the star"
    right.set_ylabel(what)


def throughput(ax: Axes, curve: ContrastCurve, /) -> Axes:
    """Draw the throughput of the subtraction, and the transmission of the mask."""
    r = curve.separation_arcsec
    for t, n_modes in enumerate(zip(curve.n_modes_used, curve.n_modes, strict=True)):
        color = COLORS[t % len(COLORS)]
        label = f"subtraction, {modes_label(*n_modes)}"
        ax.plot(r, curve.throughput[t], color=color, lw=1.8, label=label)
        low, high = (curve.throughput[t] + s * curve.throughput_scatter[t] for s in (-1, 1))
        ax.fill_between(r, low, high, color=color, alpha=0.2, lw=0)
    label = "transmission of the mask"
    ax.plot(r, curve.transmission, color=GRAY, ls="--", lw=1.3, label=label)
    ax.set(xscale="log", ylim=(0, 1.08), ylabel="fraction of the flux")
    _separation_axis(ax, r)
    ax.grid(True, color=GRAY, alpha=0.35, lw=0.6)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax


def _sky_image(
    ax: Axes, data: Array, scale: float, *, norm: Normalize, cmap: str, label: str
) -> Axes:
    half = (data.shape[0] // 2 + 0.5) * scale
    shown = ax.imshow(
        data,
        origin="lower",
        extent=(half, -half, -half, half),
        norm=norm,
        cmap=cmap,
        interpolation="nearest",
    )
    ax.set_facecolor("0.8")
    ax.plot(0, 0, "+", color="black", markersize=9, markeredgewidth=1.2)
    ax.set(xlabel="offset to the east [arcsec]", ylabel="offset to the north [arcsec]")
    return _with_colorbar(ax, shown, label)


def _with_colorbar(ax: Axes, shown: ScalarMappable, label: str) -> Axes:
    figure = ax.get_figure()
    if figure is not None:
        figure.colorbar(shown, ax=ax, label=label, fraction=0.046, pad=0.03)
    return ax


def snr_map(ax: Axes, found: Detection, /) -> Axes:
    """Draw the S/N of every position, north up, with the candidates marked and numbered."""
    norm = Normalize(-6.0, 6.0)
    _sky_image(ax, found.snr, found.pixel_scale_arcsec, norm=norm, cmap="RdBu_r", label="S/N")
    for number, c in enumerate(found.candidates, start=1):
        east, north = (float(v) for v in east_north(c.separation_arcsec, c.pa_deg))
        ax.plot(east, north, "o", mfc="none", mec="black", ms=13, mew=1.3)
        ax.annotate(
            f"{number}", (east, north), xytext=(8, 6), textcoords="offset points", fontsize=9
        )
    return ax


def sensitivity(ax: Axes, result: SensitivityMap, /) -> Axes:
    """Draw the contrast limit at every position, north up and east to the left."""
    good = result.limit[np.isfinite(result.limit) & (result.limit > 0)]
    # A curve of one separation has no area.
    low, high = (float(v) for v in np.quantile(good, [0.005, 0.995])) if good.size else (1e-6, 1e-5)
    return _sky_image(
        ax,
        result.limit,
        result.pixel_scale_arcsec,
        norm=LogNorm(low, max(high, 1.01 * low)),
        cmap="viridis_r",
        label="contrast limit",
    )


def completeness(ax: Axes, result: Completeness, /) -> Axes:
    """Draw the fraction of injected sources that are detected, with lines of 50 and 90 %."""
    _fractions(ax, result.separation_arcsec, result.contrast, result.fraction)
    ax.set_ylabel("contrast")
    _separation_axis(ax, result.separation_arcsec)
    return ax


def mass_figure(figure: Figure, masses: MassLimits, best: Array, /) -> None:
    """Draw the limit in mass beside the probability of detection over mass and separation."""
    left, right = figure.subplots(1, 2)
    r, limit = masses.separation_arcsec, np.take_along_axis(masses.limit_mjup, best[None], axis=0)
    left.plot(r, limit[0], color=COLORS[0], lw=1.8, marker="o" if r.size == 1 else "")
    left.set(yscale="log", xscale="log", ylabel="limit [Jupiter masses]")
    left.set_title(
        f"{masses.age_myr:g} Myr, {masses.distance_pc:g} pc, {masses.origin}", fontsize=9
    )
    left.grid(True, which="major", color=GRAY, alpha=0.35, lw=0.6)
    _separation_axis(left, r)
    _fractions(right, r, masses.mass_mjup, masses.probability)
    right.set_ylabel("mass [Jupiter masses]")
    _separation_axis(right, r)
    for ax in (left, right):
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def _fractions(ax: Axes, x: Array, y: Array, fraction: Array) -> Axes:
    """Draw a fraction found over two logarithmic axes, with lines of 50 and 90 %."""
    shown = ax.pcolormesh(
        _edges(x), _edges(y), fraction, cmap="cividis", vmin=0, vmax=1, rasterized=True
    )
    if np.isfinite(fraction).any() and min(fraction.shape) > 1:
        filled = np.nan_to_num(fraction)
        lines = ax.contour(x, y, filled, levels=[0.5, 0.9], colors="white", linewidths=1.2)
        ax.clabel(lines, fmt=lambda v: f"{100 * v:.0f} %", fontsize=8)
    ax.set(xscale="log", yscale="log")
    return _with_colorbar(ax, shown, "fraction found")


def _edges(middles: Array) -> Array:
    """Edges of bins on a logarithmic axis about their middles; 10 % each way of a single one."""
    if middles.size == 1:
        return np.asarray(middles[0] * np.array([0.9, 1.1]))
    inner = np.sqrt(middles[1:] * middles[:-1])
    first, last = middles[0] ** 2 / inner[0], middles[-1] ** 2 / inner[-1]
    return np.concatenate([[first], inner, [last]])


def companion(axes: Array, fit: CompanionFit, /) -> Array:
    """Draw data, model and residual on axes ``(n, 3)``, a row for each of ``fit.boxes``."""
    for row, (name, data, model) in zip(axes, fit.boxes, strict=True):
        row[0].set_ylabel(name.split("_")[0], fontsize=8)
        level = float(np.nanmedian(data - model))
        reach = float(np.nanmax(np.abs(data - level)))
        for ax, image, title in zip(
            row,
            (data - level, model, data - level - model),
            ("data", "model", "residual"),
            strict=True,
        ):
            ax.imshow(image, origin="lower", cmap="RdBu_r", vmin=-reach, vmax=reach)
            ax.set_title(title, fontsize=9)
            ax.set(xticks=[], yticks=[])
    return axes


def posterior(figure: Figure, /, *, fit: CompanionFit, number: int = 0) -> Array:
    """Draw the posterior of a companion: each parameter, and each pair."""
    axes = figure.subplots(3, 3)
    samples = fit.samples[:, number]
    names = ("east [arcsec]", "north [arcsec]", "flux [MJy/sr px]")
    for i in range(3):
        for j in range(3):
            ax = axes[i, j]
            if j > i:
                ax.set_axis_off()
                continue
            if i == j:
                ax.hist(samples[:, i], bins=40, color=COLORS[0], histtype="stepfilled", alpha=0.75)
                ax.set_yticks([])
            else:
                ax.hist2d(samples[:, j], samples[:, i], bins=40, cmap="Blues", cmin=1)
            ax.tick_params(labelsize=7)
            ax.locator_params(nbins=4)
            if i == 2:
                ax.set_xlabel(names[j], fontsize=8)
            else:
                ax.set_xticklabels([])
            if j == 0 and i > 0:
                ax.set_ylabel(names[i], fontsize=8)
            elif i != j:
                ax.set_yticklabels([])
    return axes

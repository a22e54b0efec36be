"""The plots of the report: what is drawn of limits, noise, shifts and modes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtri

from lyot.analysis.contrast import ContrastCurve
from lyot.types import Array
from lyot.viz.report.drawing import Axis, Band, Bars, Line, Mark, Panel, Rule
from lyot.viz.style import COLORS, GRAY, modes_label

MAX_STARS_IN_LEGEND = 10
DASHES = ("", "5 3", "2 3")
SHARES_FOUND = (0.5, 0.9)
SEPARATION = "separation [arcsec]"


def limits(curve: ContrastCurve, /) -> list[Panel]:
    """Draw contrast limits, with magnitudes at the right, and the throughput below."""
    r, one = curve.separation_arcsec, len(curve.n_modes) == 1
    radius = 2.5 if r.size == 1 else 0.0
    upper: list[Mark] = []
    lower: list[Mark] = []
    for t, n_modes in enumerate(zip(curve.n_modes_used, curve.n_modes, strict=True)):
        color, modes = COLORS[t % len(COLORS)], modes_label(*n_modes)
        label = "limit, corrected for throughput and transmission" if one else modes
        upper.append(Line(r, curve.calibrated[t], color, label, width=2.0, radius=radius))
        if one:
            label = "corrected for throughput alone"
            upper.append(Line(r, curve.corrected[t], COLORS[1], label, dash="5 3"))
            upper.append(Line(r, curve.raw[t], GRAY, "uncorrected", dash="2 3"))
        share, scatter = curve.throughput[t], curve.throughput_scatter[t]
        lower.append(Band(r, share - scatter, share + scatter, color))
        lower.append(Line(r, share, color, f"subtraction, {modes}", width=2.0, radius=radius))
    if not one:
        upper.append(Line(r, curve.best_limit, GRAY, "lowest of all numbers of modes", dash="5 3"))
    if curve.best_unmasked is not None:
        label = "limit, detected sources left in the noise"
        upper.append(Line(r, curve.best_unmasked, COLORS[3], label, dash="6 2 1 2"))
    lower.append(Line(r, curve.transmission, GRAY, "transmission of the mask", dash="5 3"))
    sigma = -float(ndtri(curve.statistic.fpf))
    is_whole = abs(sigma - round(sigma)) < 1e-3
    what = f"{round(sigma)} sigma" if is_whole else f"FPF {curve.statistic.fpf:.1g}"
    x = Axis(SEPARATION, log=True, limits=(r.min(), r.max()) if r.size > 1 else None)
    magnitudes = _magnitudes(curve)
    return [
        Panel(x, Axis(f"contrast, {what}", log=True), upper, 230.0, right=magnitudes),
        Panel(x, Axis("fraction of the flux", limits=(0.0, 1.08)), lower, 110.0),
    ]


def completeness(separation_arcsec: Array, contrast: Array, fraction: Array, /) -> list[Panel]:
    """Draw the contrasts at which parts of the injected sources are found."""
    lines = []
    for color, share in zip(COLORS, SHARES_FOUND, strict=False):
        reached = fraction.max(axis=0, initial=0.0) >= share
        least = [np.exp(np.interp(share, part, np.log(contrast))) for part in fraction.T[reached]]
        label = f"{100 * share:.0f} % found"
        lines.append(Line(separation_arcsec[reached], np.array(least), color, label, radius=1.6))
    axes = Axis(SEPARATION, log=True), Axis("contrast of a source", log=True)
    return [Panel(*axes, lines, 180.0)]


def masses(separation_arcsec: Array, limit_mjup: Array, /) -> list[Panel]:
    """Draw the limit in mass against the separation."""
    r = separation_arcsec
    line = Line(r, limit_mjup, COLORS[0], width=2.0, radius=2.5 if r.size == 1 else 0.0)
    x = Axis(SEPARATION, log=True, limits=(r.min(), r.max()) if r.size > 1 else None)
    return [Panel(x, Axis("limit [Jupiter masses]", log=True), [line], 180.0)]


def compared(curves: Mapping[str, tuple[Array, Array]], label: str, /) -> list[Panel]:
    """Draw limits against the separation, one line for each name."""
    lines = [
        Line(*curve, COLORS[k % len(COLORS)], name, width=1.8, dash=DASHES[k // len(COLORS) % 3])
        for k, (name, curve) in enumerate(curves.items())
    ]
    return [Panel(Axis(SEPARATION, log=True), Axis(label, log=True), lines, 230.0)]


def _magnitudes(curve: ContrastCurve) -> Axis:
    """Magnitudes beside contrasts: of a source, or less the star's where that is not known."""
    star = curve.star_magnitude
    shown = curve.calibrated[np.isfinite(curve.calibrated) & (curve.calibrated > 0)]
    step = 1.0 if shown.size and shown.max() < 1e3 * shown.min() else 2.0
    numbers = np.arange(-10.0, 40.0, step)
    ticks = [(float(10 ** (-0.4 * (m - (star or 0.0)))), f"{m:g}") for m in numbers]
    label = "magnitudes fainter than the star" if star is None else "magnitude"
    return Axis(label, log=True, ticks=ticks)


def noise(curves: Mapping[str, Mapping[str, Array]], pixel_scale_arcsec: float, /) -> list[Panel]:
    """Draw the scatter of each product against the separation."""
    lines = []
    for k, (name, table) in enumerate(curves.items()):
        label = name if len(curves) > 1 else ""
        radius = np.asarray(table["radius"]) * pixel_scale_arcsec
        lines.append(Line(radius, table["sigma"], COLORS[k % len(COLORS)], label))
    return [Panel(Axis(SEPARATION), Axis("1-sigma scatter [MJy/sr]", log=True), lines)]


def shifts(shift_yx: Array, error_yx: Array, /) -> list[Panel]:
    """Draw the drift of the pointing and the shift of references from ``(n_int, n_ref, 2)``."""
    (y, x), (y_error, x_error) = shift_yx.mean(axis=0).T, error_yx.mean(axis=0).T
    points = Line(x, y, COLORS[0], width=0.0, radius=1.8, x_error=x_error, y_error=y_error)
    axes = Axis("shift along x [pixel]"), Axis("shift along y [pixel]")
    panels = [Panel(*axes, [Rule(x=0.0, y=0.0), points], 260.0, square=True)]
    if len(shift_yx) > 1:
        common = (shift_yx - shift_yx.mean(axis=0)).mean(axis=1)
        error = np.sqrt((error_yx**2).mean(axis=1) / shift_yx.shape[1])
        numbers = np.arange(1.0, len(shift_yx) + 1)
        lines = [
            Line(numbers, common[:, k], COLORS[k], name, radius=2.2, y_error=error[:, k])
            for k, name in enumerate("yx")
        ]
        panels.insert(
            0, Panel(Axis("integration", whole=True), Axis("drift [pixel]"), lines, 150.0)
        )
    return panels


def spectrum(eigenvalues: Array, residual_rms: Array, /) -> Panel:
    """Draw eigenvalues ``(n_zone, n_ref)`` and, at the right, rms residuals (or none) by zone."""
    rows = np.atleast_2d(eigenvalues)
    left = [_against_modes(values / values[0], 1, COLORS[0], radius=1.6) for values in rows]
    rms = np.atleast_2d(residual_rms) if np.size(residual_rms) else ()
    return Panel(
        Axis("number of modes", whole=True),
        Axis("eigenvalue / first", log=True, color=COLORS[0]),
        left,
        right=Axis("rms residual [MJy/sr]", log=True, color=COLORS[1]) if len(rms) else None,
        right_marks=[_against_modes(values, 0, COLORS[1]) for values in rms],
    )


def _against_modes(values: Array, first: int, color: str, radius: float = 0.0) -> Line:
    return Line(first + np.arange(len(values)), values, color, width=1.2, radius=radius)


def weights(coefs: Array, scale: Array, targets: list[str], /) -> Panel:
    """Draw what each reference adds, by coefficients ``(n_zone, n_int, n_ref)`` and scale."""
    share = (coefs / scale[None]).mean(axis=(0, 1))
    numbers = np.arange(1.0, len(share) + 1)
    stars = np.array(targets if len(targets) == len(share) else [""] * len(share))
    names = list(dict.fromkeys(stars.tolist()))
    named = 1 < len(names) <= MAX_STARS_IN_LEGEND
    bars = [
        Bars(numbers[at], share[at], COLORS[k % len(COLORS)], name if named else "")
        for k, name in enumerate(names)
        for at in [stars == name]
    ]
    x, y = Axis("reference", whole=True), Axis("contribution")
    return Panel(x, y, [Rule(y=0.0), *bars], 150.0)

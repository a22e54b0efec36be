"""The section of the report on fitted companions, and the table of their error budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lyot.analysis.companion.budget import ERROR_CAUSES
from lyot.analysis.statistic import chance_text
from lyot.files.results import FitImages
from lyot.viz.report.blocks import (
    Block,
    Drawing,
    Grid,
    Number,
    Paragraph,
    Picture,
    Table,
    cell,
    number,
)
from lyot.viz.report.drawing import Axis, Band, Line, Panel, drawing
from lyot.viz.report.facts import RunFacts
from lyot.viz.style import COLORS

PANEL_WIDTH, N_BINS, MAX_POINTS = 180, 40, 400
"""Width of an image [pixel of the screen], and of a posterior the bins and the points drawn."""


def companions(run: RunFacts, /) -> Iterator[Block]:
    """Fitted companions: the table, and the figures of the fits."""
    table = run.companions
    if table is None:
        return
    # Errors stand beside their value; quantities that are not known are left out.
    names = [
        name
        for name in table.colnames
        if name.removesuffix("_err") not in set(table.colnames) - {name}
        and not name.endswith(tuple(BUDGET_COLUMNS))
        and any(cell(row[name]) != "" for row in table)
    ]
    header = ["quantity", *(f"companion {k + 1}" for k in range(len(table)))]
    rows = []
    for name in names:
        unit, words = table[name].unit, COMPANION_QUANTITIES.get(name, name.replace("_", " "))
        rows.append(
            [f"{words} [{unit}]" if unit else words, *(with_error(row, name) for row in table)]
        )
    if settings := table.meta.get("lyot", {}):
        yield Paragraph(f"PSF: {settings['psf']}.")
    shown = [] if run.fit is None else [_residuals(run.fit), *_posteriors(run.fit)]
    yield Grid([Table("Companions", header, rows, download=False), *shown])
    for k, rows_of in enumerate(budgets(table), start=1):
        caption = f"Error budget of companion {k}, 1 sigma"
        yield Table(caption, ["cause", *BUDGET_COLUMNS.values()], rows_of)


def _residuals(fit: FitImages) -> Picture:
    """Data, model and residual beside one another, a row for each exposure and companion."""
    rows = []
    for _, data, model in reversed(fit.boxes):
        level = float(np.nanmedian(data - model))
        images = np.stack([data - level, model, data - level - model])
        images = images / float(np.nanmax(np.abs(images[0])) or 1.0)
        zoom = max(PANEL_WIDTH // data.shape[1], 1)
        images = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        rows.append(np.hstack(list(images.repeat(zoom, axis=1).repeat(zoom, axis=2))))
    width = max(row.shape[1] for row in rows)
    wide = [np.pad(r, ((0, 0), (0, width - r.shape[1])), constant_values=np.nan) for r in rows]
    names = ", ".join(dict.fromkeys(name for name, *_ in fit.boxes))
    caption = (
        "Data, model and residual of the fit on the pixels of each exposure, in the "
        f"order {names}; from minus to plus the brightest pixel of the data."
    )
    return Picture.of(np.vstack(wide), "data, model and residual of the fit", caption)


def _posteriors(fit: FitImages) -> Iterator[Drawing]:
    """The posterior of each companion: each parameter, and each pair."""
    for k, samples in enumerate(fit.samples, start=1):
        middle = np.median(samples, axis=1)
        off = (samples - middle[:, None]) * np.array([1e3, 1e3, 1.0])[:, None]
        axes = [Axis("east [mas]"), Axis("north [mas]"), Axis("flux [MJy/sr pixel]")]
        about = (
            f"{middle[0]:.4f} arcsec to the east, {middle[1]:.4f} to the north, {middle[2]:.4g} "
            "MJy/sr pixel"
        )
        counts = []
        for values, axis in zip(off, axes, strict=True):
            heights, edges = np.histogram(values, bins=N_BINS)
            steps = np.repeat(edges, 2)[1:-1], np.repeat(heights, 2)
            band = Band(steps[0], np.zeros(steps[0].size), steps[1], COLORS[0])
            counts.append(Panel(axis, Axis("samples"), [band], 80.0))
        few = off[:, :: max(off.shape[1] // MAX_POINTS, 1)]
        pairs = [
            Panel(axes[i], axes[j], [Line(few[i], few[j], COLORS[0], width=0.0, radius=1.2)], 130.0)
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        for panels, what in ((counts, "each parameter"), (pairs, "pairs of parameters")):
            caption = f"Posterior of companion {k}, {what}, less the median: {about}."
            yield drawing(panels, caption, caption)


def budgets(table: Any, /) -> Iterator[list[list[Number | str]]]:
    """Yield the error budget of each companion of a table: causes, and what they add."""
    causes = [n.removesuffix("_flux_err") for n in table.colnames if n.endswith("_flux_err")]
    for row in table if causes else ():
        sizes = {c: [row[f"{c}{end}"] for end in BUDGET_COLUMNS] for c in causes}
        yield [
            [ERROR_CAUSES.get(cause, cause), *(number(v, ".2g") for v in values)]
            for cause, values in sizes.items()
            if any(values)
        ]


BUDGET_COLUMNS = {
    "_separation_err": "separation [arcsec]",
    "_pa_err": "position angle [deg]",
    "_flux_err": "flux, as a fraction",
}
"""Ends of the columns of the error budget, in words."""

COMPANION_QUANTITIES = {
    "pa": "position angle",
    "d_ra": "offset to the east",
    "d_dec": "offset to the north",
    "snr": "S/N",
    "bias_flux": "bias of the flux, not corrected",
    "bias_separation": "bias of the separation, not corrected",
    "bias_pa": "bias of the position angle, not corrected",
    "n_injected": "injected companions",
    "chi2": "chi-squared",
    "n_data": "pixels of the fit",
    "described_by_psf": "the PSF describes it (chi-squared at most 2 per pixel)",
}
"""Columns of the table of companions in words, where they are not words."""


def with_error(row: Any, name: str, /) -> Number | str:
    """Return the value of a column, with its error where there is one."""
    if name == "false_positive_fraction":
        return chance_text(row[name])
    value, error = cell(row[name]), f"{name}_err"
    if error not in row.colnames or not isinstance(value, Number) or np.isnan(row[error]):
        return value
    return Number(_both(float(row[name]), float(row[error])), value.full)


def _both(value: float, error: float) -> str:
    """Write a value and its error, both to two digits of the error."""
    if not error > 0:
        return f"{value:.4g} \u00b1 {error:.2g}"
    last = int(np.floor(np.log10(error))) - 1
    if 1e-3 <= abs(value) < 1e5:
        digits = max(-last, 0)
        return f"{value:.{digits}f} \u00b1 {error:.{digits}f}"
    digits = max(int(np.floor(np.log10(abs(value) or error))) - last, 0)
    return f"{value:.{digits}e} \u00b1 {error:.1e}"

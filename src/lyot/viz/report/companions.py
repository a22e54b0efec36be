"""The section of the report on fitted companions, and the table of their error budgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lyot.analysis.companion.budget import ERROR_CAUSES
from lyot.analysis.statistic import chance_text
from lyot.viz.report.blocks import (
    Block,
    Grid,
    Number,
    Paragraph,
    Picture,
    Table,
    cell,
    number,
)
from lyot.viz.report.facts import RunFacts


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
    pictures = [Picture(png, name) for name, png in run.pictures.items()]
    yield Grid([Table("Companions", header, rows, download=False), *pictures])
    for k, rows_of in enumerate(budgets(table), start=1):
        caption = f"Error budget of companion {k}, 1 sigma"
        yield Table(caption, ["cause", *BUDGET_COLUMNS.values()], rows_of)


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

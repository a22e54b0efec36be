"""Results as tables for a paper: rounded values with errors, and what to cite."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lyot._version import __version__
from lyot.analysis.companion import CompanionFit, Measured
from lyot.analysis.companion.budget import ERROR_CAUSES, ErrorTerm
from lyot.analysis.contrast import ContrastCurve
from lyot.analysis.mass import MassLimits
from lyot.analysis.observation import Observation
from lyot.analysis.statistic import Statistic
from lyot.subtraction.methods import method_of
from lyot.types import Array


class PaperTable(NamedTuple):
    """The cells of a table as LaTeX, with what stands above and below it."""

    columns: dict[str, list[str]]
    caption: str
    notes: list[str]
    alignment: str  # of the columns


def citations(
    observation: Observation, statistic: Statistic, /, *, is_sampled: bool = False
) -> list[str]:
    """Return what to cite for a result: the package, the method, the statistic, the sampler."""
    used = [f"lyot {__version__}: see CITATION.cff"]
    if of_method := method_of(observation.recipe).citation:
        used.append(f"Subtraction: {of_method}")
    if any(exposure.maps.disc is not None for exposure in observation.exposures):
        used.append("Model of the disc: Lawson et al. 2022, doi:10.3847/2041-8213/ac853e")
    used.append("Statistic: Mawet et al. 2014, doi:10.1088/0004-637X/792/2/97")
    if statistic.noise == "laplace":
        used.append("Laplacian noise: Bonse et al. 2023, doi:10.3847/1538-3881/acc93c")
    if is_sampled:
        used.append("Posterior: emcee, Foreman-Mackey et al. 2013, doi:10.1086/670067")
    return used


def companions_for_paper(fit: CompanionFit, cited: list[str], /) -> PaperTable:
    """Return a column for each companion: values with errors, then the parts of the errors."""
    rows: dict[str, list[str]] = {
        "Separation [arcsec]": [_value(c.separation_arcsec) for c in fit.companions],
        "Position angle [deg]": [_value(c.pa_deg) for c in fit.companions],
        r"$\Delta\alpha\cos\delta$ [arcsec]": [_value(c.d_ra_arcsec) for c in fit.companions],
        r"$\Delta\delta$ [arcsec]": [_value(c.d_dec_arcsec) for c in fit.companions],
        "Contrast": [_value(c.contrast) for c in fit.companions],
        "Flux density [Jy]": [_value(c.jy) for c in fit.companions],
        "Magnitude (Vega)": [_value(c.magnitude) for c in fit.companions],
        "S/N": [f"{c.snr:.1f}" for c in fit.companions],
        r"$\chi^2$ per pixel": [f"{c.chi2 / c.n_data:.2f}" for c in fit.companions],
    }
    for name, words in ERROR_CAUSES.items():
        terms = [getattr(c.budget, name) for c in fit.companions]
        if any((t.separation_arcsec, t.pa_deg, t.flux) != (0.0, 0.0, 0.0) for t in terms):
            rows[f"Error: {words}"] = [_terms(term) for term in terms]
    rows = {name: cells for name, cells in rows.items() if any(cells)}
    columns = {"Quantity": list(rows)}
    for k in range(len(fit.companions)):
        columns[f"Companion {k + 1}"] = [cells[k] for cells in rows.values()]
    notes = [
        "Errors are 1 sigma and hold all of the causes listed, of separation, position angle and "
        "flux.",
        *(f"{name}: {fit.settings[key]}." for name, key in _ORIGINS if fit.settings.get(key)),
        *fit.warnings,
        *cited,
    ]
    alignment = r"p{0.5\linewidth}" + "c" * len(fit.companions)
    return PaperTable(columns, "Measured companions.", [_escaped(n) for n in notes], alignment)


def limits_for_paper(
    curve: ContrastCurve, masses: MassLimits | None, cited: list[str], /
) -> PaperTable:
    """Return a row for each separation: the best limit and what it is made of."""

    def _best(values: Array, form: str) -> list[str]:
        best = np.take_along_axis(values, curve.best[None], axis=0)[0]
        return ["" if np.isnan(v) else _scientific(format(v, form)) for v in best]

    with np.errstate(invalid="ignore", divide="ignore"):
        magnitudes = -2.5 * np.log10(curve.calibrated)
    columns = {
        "Sep. [arcsec]": [f"{r:.2f}" for r in curve.separation_arcsec],
        "Contrast": _best(curve.calibrated, ".2e"),
        r"$\Delta m$ [mag]": _best(magnitudes, ".2f"),
        "Modes": [str(curve.n_modes_used[t]) for t in curve.best],
        "Thr.": _best(curve.throughput, ".2f"),
        "Transm.": [f"{t:.2f}" for t in curve.transmission],
        "$n$": [str(int(n)) for n in curve.n_positions],
    }
    if curve.best_unmasked is not None:
        columns["With sources"] = _best(curve.unmasked, ".2e")
    if masses is not None:
        columns[r"$M_\mathrm{Jup}$"] = _best(masses.limit_mjup, ".3g")
    notes = [
        f"Limits for a false-positive fraction of {curve.statistic.fpf:.2g} at one position. Thr.: "
        "throughput of the subtraction; Transm.: transmission of the mask; n: independent "
        "positions at the separation.",
        *(f"{name}: {curve.settings[key]}." for name, key in _ORIGINS if curve.settings.get(key)),
    ]
    if found := curve.settings.get("found"):
        notes.append(
            f"Detected sources are excluded from the noise ({'; '.join(found)}); with sources: the "
            "contrast with them in it."
        )
    if masses is not None:
        notes.append(
            f"Masses at {masses.age_myr:g} Myr and {masses.distance_pc:g} pc by the models of "
            f"{masses.origin}."
        )
    texts = [_escaped(note) for note in (*notes, *cited)]
    return PaperTable(columns, "Contrast limits.", texts, "c" * len(columns))


_ORIGINS = (("PSF", "psf"), ("Transmission", "transmission"), ("Star", "star"))


def _terms(term: ErrorTerm) -> str:
    """What one cause adds to separation, position angle and flux, where it adds anything."""
    parts = (
        (1e3 * term.separation_arcsec, "mas"),
        (term.pa_deg, "deg"),
        (100.0 * term.flux, r"\%"),
    )
    return ", ".join(f"{value:.2g} {unit}" for value, unit in parts if value)


def _value(measured: Measured) -> str:
    """A value with its error, both to two digits of the error; nothing where there is none."""
    value, err = measured.value, measured.err
    if not np.isfinite(value) or not err > 0:
        return "" if not np.isfinite(value) else _scientific(f"{value:.4g}")
    power = int(np.floor(np.log10(abs(value)))) if value else 0
    scale = 10.0**power if abs(power) > 3 else 1.0
    digits = max(1 - int(np.floor(np.log10(err / scale))), 0)
    both = rf"{value / scale:.{digits}f} \pm {err / scale:.{digits}f}"
    return f"${both}$" if scale == 1.0 else rf"$({both}) \times 10^{{{power}}}$"


def _scientific(text: str) -> str:
    """Write 1.2e-05 as a product."""
    mantissa, e, power = text.partition("e")
    return rf"${mantissa} \times 10^{{{int(power)}}}$" if e else text


_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}


def _escaped(text: str) -> str:
    """Write text so that LaTeX prints it."""
    return "".join(_SPECIAL.get(c, c) for c in text)

"""Tables, maps and figures of each analysis, written beside the products of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from astropy import units as u

from lyot.analysis.colors import CommonCompanion, table_of_modes
from lyot.analysis.companion import CompanionFit, fit_companions
from lyot.analysis.completeness import completeness_map
from lyot.analysis.contrast import ContrastCurve, contrast_curve, sensitivity_map
from lyot.analysis.detection import Detection, detect, find_sources
from lyot.analysis.mass import MassLimits, mass_limits
from lyot.analysis.noise import KnownDisc, KnownSource, KnownSources
from lyot.analysis.observation import Observation
from lyot.analysis.paper import PaperTable, citations, companions_for_paper, limits_for_paper
from lyot.analysis.statistic import FIVE_SIGMA
from lyot.compute.cluster import Tasks
from lyot.files.evolution import Evolution, read_evolution
from lyot.files.results import (
    SURVEY_COLORS,
    FitImages,
    write_fit,
    write_grid,
    write_latex,
    write_maps,
    write_table,
)
from lyot.parameters import ExclusionParameters, MassParameters

Result = TypeVar("Result")
NO_MASSES = MassParameters()


@dataclass(frozen=True)
class Written(Generic[Result]):
    """The result of an analysis, and the files that show it: the table first."""

    result: Result
    paths: list[str]


def excluded_sources(parameters: ExclusionParameters, /) -> KnownSources:
    """Return the sources and the disc that parameters exclude from the noise estimate."""
    sources = tuple(KnownSource(*position) for position in parameters.known)
    return (*sources, KnownDisc(*parameters.disc)) if parameters.disc else sources


class Limits(NamedTuple):
    """Contrast limits, and the masses that they are where age, distance and models are given."""

    curve: ContrastCurve
    masses: MassLimits | None

    def to_table(self) -> Any:
        """Return the table of the curve, with a column of masses where they are known."""
        table = self.curve.to_table()
        if self.masses is not None:
            table["mass"] = self.masses.limit_mjup.ravel() * u.jupiterMass
            names = ("age_myr", "distance_pc", "origin")
            table.meta["lyot"]["masses"] = {name: getattr(self.masses, name) for name in names}
        return table


def write_contrast(
    observation: Observation,
    folder: str | Path,
    /,
    *,
    tasks: Tasks | None = None,
    masses: MassParameters = NO_MASSES,
    figures: bool = False,
    **options: Any,
) -> Written[Limits]:
    """Measure contrast limits, sensitivity and completeness with the same options, and write.

    Sources that the same statistic finds leave the noise. `figures` are for papers: the report
    shows the results without them.
    """
    models = _models(observation, masses)
    shared = {name: options[name] for name in ("statistic", "known_sources") if name in options}
    found = find_sources(observation, **shared)
    curve = contrast_curve(observation, **options, found_sources=found, tasks=tasks)
    known = (*shared.get("known_sources", ()), *found)
    best = observation.n_modes[int(np.bincount(curve.best).argmax())]
    limits = sensitivity_map(observation, curve, n_modes=best)
    complete = completeness_map(observation, **options | {"known_sources": known}, n_modes=best)
    limits_in_mass = None
    if models is not None:
        star = masses.age or 0.0, masses.distance or 0.0
        limits_in_mass = mass_limits(curve, complete, models, observation.filter, *star)
    result = Limits(curve, limits_in_mass)
    cited = citations(observation, curve.statistic)
    stem = Path(folder) / observation.product
    keywords = {"FPF": curve.statistic.fpf, "NMODES": best}
    axes = {"SEPARATION": complete.separation_arcsec, "CONTRAST": complete.contrast}
    paths = [
        *_write_tables(
            result.to_table(), limits_for_paper(*result, cited), cited, f"{stem}_limits"
        ),
        write_maps(
            {"LIMIT": limits.limit},
            f"{stem}_sensitivity.fits",
            pixel_scale_arcsec=limits.pixel_scale_arcsec,
            keywords=keywords,
        ),
        write_grid(
            complete.fraction,
            f"{stem}_completeness.fits",
            name="FRACTION",
            axes=axes,
            keywords=keywords,
        ),
    ]
    if figures:
        from lyot.viz import analysis as draw

        title = observation.product
        paths += [
            draw.save(
                f"{stem}_limits.png",
                lambda figure: draw.contrast_figure(figure, curve, title=title),
                (6.4, 7.2),
            ),
            draw.save(
                f"{stem}_sensitivity.png",
                lambda figure: draw.sensitivity_figure(figure, limits, complete),
                (11.0, 4.6),
            ),
        ]
    if limits_in_mass is not None:
        paths += _write_masses(limits_in_mass, curve, stem, keywords, figures=figures)
    return Written(result, paths)


def _write_tables(table: Any, paper: PaperTable, cited: list[str], stem: str) -> list[str]:
    """Write a table with what to cite as ECSV, and for a paper as LaTeX."""
    table.meta["lyot"]["citations"] = cited
    made = write_table(table, f"{stem}.ecsv")
    columns, caption, notes, alignment = paper
    latex = write_latex(columns, f"{stem}.tex", caption=caption, notes=notes, alignment=alignment)
    return [made, latex]


def _models(observation: Observation, given: MassParameters) -> Evolution | None:
    """Read the evolutionary models; None where no limits in mass are asked for."""
    if not given.is_given:
        return None
    models = read_evolution(str(given.mass_table), observation.filter)
    models.at_age(given.age or 0.0)  # refused before anything is measured
    return models


def _write_masses(
    masses: MassLimits,
    curve: ContrastCurve,
    stem: Path,
    keywords: dict[str, Any],
    *,
    figures: bool,
) -> list[str]:
    """Write the probability of detection over mass and separation, and the figure."""
    paths = [
        write_grid(
            masses.probability,
            f"{stem}_masses.fits",
            name="PROBABILITY",
            axes={"SEPARATION": masses.separation_arcsec, "MASS": masses.mass_mjup},
            keywords=keywords
            | {"AGE_MYR": masses.age_myr, "DIST_PC": masses.distance_pc, "MODELS": masses.origin},
        )
    ]
    if figures:
        from lyot.viz import analysis as draw

        paths.append(
            draw.save(
                f"{stem}_masses.png",
                lambda figure: draw.mass_figure(figure, masses, curve.best),
                (11.0, 4.6),
            )
        )
    return paths


def write_detection(
    observation: Observation, folder: str | Path, /, *, figures: bool = False, **options: Any
) -> Written[Detection]:
    """Search for companions, and write the candidates and the maps; `figures` as above."""
    found = detect(observation, **options)
    table = found.to_table()
    known = [each for each in options.get("known_sources", ()) if isinstance(each, KnownSource)]
    table.meta["lyot"]["known_sources"] = [[k.separation_arcsec, k.pa_deg] for k in known]
    stem = Path(folder) / observation.product
    paths = [
        write_table(table, f"{stem}_candidates.ecsv"),
        write_maps(
            {"SNR": found.snr, "FLUX": found.flux, "STIM": found.stim},
            f"{stem}_detection.fits",
            pixel_scale_arcsec=found.pixel_scale_arcsec,
            keywords={"FPF": found.statistic.fpf, "NMODES": found.n_modes},
        ),
    ]
    if figures:
        from lyot.viz import analysis as draw

        path = f"{stem}_detection.png"
        paths.append(draw.save(path, lambda f: draw.snr_map(f.subplots(), found), (6.4, 5.4)))
    return Written(found, paths)


def write_colors(
    targets: Mapping[str, Sequence[CommonCompanion]], folder: str | Path, /
) -> Written[Mapping[str, Sequence[CommonCompanion]]]:
    """Write the companions of targets at the places that all modes of each have in common."""
    path = Path(folder) / SURVEY_COLORS
    return Written(targets, [write_table(table_of_modes(targets), path)])


def write_companions(
    observation: Observation,
    folder: str | Path,
    /,
    guesses: list[tuple[float, float]],
    *,
    figures: bool = False,
    **options: Any,
) -> Written[CompanionFit]:
    """Fit companions, and write their table, residuals and posteriors; `figures` as above."""
    fit = fit_companions(observation, guesses, **options)
    statistic = options.get("statistic", FIVE_SIGMA)
    is_linear = all(exposure.response.is_linear for exposure in observation.exposures)
    is_sampled = options.get("n_likelihoods", 1) > 0 and is_linear
    cited = citations(observation, statistic, is_sampled=is_sampled)
    stem = Path(folder) / observation.product
    table = f"{stem}_companions"
    images = FitImages(fit.boxes, np.moveaxis(fit.samples, 0, -1))
    paths = [
        *_write_tables(fit.to_table(), companions_for_paper(fit, cited), cited, table),
        write_fit(images, f"{table}.fits"),
    ]
    if figures:
        from lyot.viz import analysis as draw

        n = len(fit.boxes)
        paths.append(
            draw.save(
                f"{table}.png",
                lambda f: draw.companion(f.subplots(n, 3, squeeze=False), fit),
                (6.0, 2.1 * n),
            )
        )
        for k in range(len(fit.companions)):
            posterior = partial(draw.posterior, fit=fit, number=k)
            paths.append(draw.save(f"{stem}_posterior{k + 1}.png", posterior, (6.0, 6.0)))
    return Written(fit, paths)

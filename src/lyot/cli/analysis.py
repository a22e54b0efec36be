"""Commands that analyze a finished run: contrast, detect, companion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lyot.cli.main import main, shown_warnings
from lyot.cli.options import OUTPUT_DIR, SCHEDULER, parameter_options, taken
from lyot.cli.run import reduce_all
from lyot.parameters import (
    COMMANDS,
    CompanionParameters,
    ContrastParameters,
    ExclusionParameters,
    ObservationParameters,
)

if TYPE_CHECKING:
    from lyot.analysis.observation import Observation


@contextmanager
def _opened(run: str, options: Mapping[str, Any]) -> Iterator[tuple[Observation, Path]]:
    """Open a finished run, after reducing it if it is an association; yield its folder too."""
    from lyot.outputs import observation_of

    parameters = taken(ObservationParameters, options)
    folder = Path(run)
    if folder.is_file() and folder.suffix == ".json":
        association = folder
        folder = Path(options["output_dir"] or f"{folder.stem.removesuffix('_asn')}-products")
        click.echo(f"Reducing {association} into {folder}/")
        reduce_all([str(association)], str(folder), {})
    with shown_warnings(), observation_of(folder, parameters) as observation:
        origins = observation.origins()
        click.echo(
            f"{observation.product}: PSF: {origins['psf']}; transmission: {origins['transmission']}"
        )
        yield observation, Path(options["output_dir"] or folder)


def _list_files(paths: Sequence[str], folder: Path) -> None:
    """Print what was written, after adding it to the report of the run, where there is one."""
    from lyot.viz.report import write_report

    report = [write_report(folder)] if list(folder.glob("*_report.html")) else []
    for path in [*paths, *report]:
        click.echo(path)


@main.command()
@click.argument("run", metavar="RUN")
@OUTPUT_DIR
@parameter_options(*COMMANDS["contrast"])
@SCHEDULER
def contrast(run: str, scheduler: str | None, **options: Any) -> None:
    """Measure the contrast limits of RUN: the folder of a finished run, or an association.

    Writes a table (ECSV), maps of the sensitivity and completeness (FITS) and figures (PNG).
    """
    from lyot import outputs
    from lyot.analysis.statistic import Statistic
    from lyot.cli.tables import print_limits
    from lyot.compute.cluster import tasks

    statistic = taken(Statistic, options)
    separations = taken(ContrastParameters, options).separations
    known = taken(ExclusionParameters, options)
    with tasks(scheduler) as where, _opened(run, options) as (observation, folder):
        written = outputs.write_contrast(
            observation,
            folder,
            separations_arcsec=separations,
            statistic=statistic,
            known_sources=outputs.excluded_sources(known),
            tasks=where,
        )
    print_limits(written.result)
    _list_files(written.paths, folder)


@main.command()
@click.argument("run", metavar="RUN")
@OUTPUT_DIR
@parameter_options(*COMMANDS["detect"])
def detect(run: str, **options: Any) -> None:
    """Search RUN for companions: S/N map, STIM map and a list of candidates."""
    from lyot import outputs
    from lyot.analysis.statistic import Statistic
    from lyot.cli.tables import print_candidates

    statistic, known = taken(Statistic, options), taken(ExclusionParameters, options)
    with _opened(run, options) as (observation, folder):
        written = outputs.write_detection(
            observation, folder, statistic=statistic, known_sources=outputs.excluded_sources(known)
        )
    print_candidates(written.result)
    _list_files(written.paths, folder)


@main.command()
@click.argument("run", metavar="RUN")
@OUTPUT_DIR
@parameter_options(*COMMANDS["companion"])
def companion(run: str, **options: Any) -> None:
    """Measure companions in RUN: position, flux, significance and their errors."""
    from lyot.analysis.statistic import Statistic
    from lyot.cli.tables import print_companions
    from lyot.outputs import write_companions

    statistic, parameters = taken(Statistic, options), taken(CompanionParameters, options)
    with _opened(run, options) as (observation, folder):
        written = write_companions(
            observation,
            folder,
            list(parameters.at),
            background=parameters.background,
            n_likelihoods=parameters.likelihoods,
            statistic=statistic,
        )
    print_companions(written.result)
    _list_files(written.paths, folder)

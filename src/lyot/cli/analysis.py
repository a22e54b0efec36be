"""Commands that analyze a finished run: contrast, detect, companion; and the PSF alone: psf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from lyot.cli.main import main, shown_warnings
from lyot.cli.options import SCHEDULER, output_dir, parameter_options, taken
from lyot.cli.run import reduce_all
from lyot.errors import LyotError


def _analyze(
    run: str, options: Mapping[str, Any], write: Callable[..., Any], show: Callable[[Any], None]
) -> None:
    """Open a finished run, reduced first if it is an association; write, show and list results."""
    from lyot.analysis.observation import open_run
    from lyot.analysis.statistic import Statistic
    from lyot.parameters import ObservationParameters
    from lyot.viz.report import write_report

    parameters, statistic = taken(ObservationParameters, options), taken(Statistic, options)
    folder = Path(run)
    if folder.is_file() and folder.suffix == ".json":
        association = folder
        folder = Path(options["output_dir"] or f"{folder.stem.removesuffix('_asn')}-products")
        click.echo(f"Reducing {association} into {folder}/")
        reduce_all([str(association)], str(folder), {})
    with shown_warnings(), open_run(folder, parameters) as observation:
        origins = observation.origins()
        click.echo(
            f"{observation.product}: PSF: {origins['psf']}; transmission: {origins['transmission']}"
        )
        folder = Path(options["output_dir"] or folder)
        written = write(observation, folder, statistic=statistic)
    show(written.result)
    for path in written.paths:
        click.echo(path)
    # The report of the run, where there is one, shows the results too.
    if list(folder.glob("*_report.html")):
        click.echo(write_report(folder))


def _command(function: Callable[..., None]) -> click.Command:
    """Make a command of a finished run and of the parameters that it takes."""
    function = parameter_options(lambda p: p.COMMANDS[function.__name__])(function)
    folder = output_dir("Folder of the results.  [default: RUN]")
    return main.command()(click.argument("run", metavar="RUN")(folder(function)))


def _figures(which: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the option that draws its figures."""
    return click.option("--figures", is_flag=True, help=f"Draw figures (PNG) too: {which}.")


@_command
@SCHEDULER
@_figures(
    "limits with the throughput, the map of the sensitivity with the completeness, and the limits "
    "in mass"
)
def contrast(run: str, scheduler: str | None, figures: bool, **options: Any) -> None:
    """Measure contrast limits of a finished run.

    RUN is its folder, or an association, which is reduced first. Writes a table (ECSV, LaTeX) and
    maps of the sensitivity and completeness (FITS); with age, distance and a table of models
    limits in mass too. The report of the run shows limits and completeness.
    """
    from lyot.cli.tables import print_limits
    from lyot.compute.cluster import tasks
    from lyot.outputs import excluded_sources, write_contrast
    from lyot.parameters import ContrastParameters, ExclusionParameters, MassParameters

    separations = taken(ContrastParameters, options).separations
    known = excluded_sources(taken(ExclusionParameters, options))
    with tasks(scheduler) as where:
        write = partial(
            write_contrast,
            separations_arcsec=separations,
            known_sources=known,
            masses=taken(MassParameters, options),
            tasks=where,
            figures=figures,
        )
        _analyze(run, options, write, print_limits)


@_command
@_figures("the map of S/N with the candidates")
def detect(run: str, figures: bool, **options: Any) -> None:
    """Search a finished run for companions.

    RUN is its folder, or an association, which is reduced first. Writes a table of candidates
    (ECSV) and maps of S/N, flux and STIM (FITS). The report of the run shows them.
    """
    from lyot.cli.tables import print_candidates
    from lyot.outputs import excluded_sources, write_detection
    from lyot.parameters import ExclusionParameters

    known = excluded_sources(taken(ExclusionParameters, options))
    write = partial(write_detection, known_sources=known, figures=figures)
    _analyze(run, options, write, print_candidates)


@_command
@_figures("data, model and residual of the fit, and the posterior of each companion")
def companion(run: str, figures: bool, **options: Any) -> None:
    """Measure position and flux of companions, with errors.

    RUN is the folder of a finished run, or an association, which is reduced first. Writes a table
    (ECSV, LaTeX) with the errors cause by cause, and data, model and posterior (FITS). The report
    of the run shows them.
    """
    from lyot.cli.tables import print_companions
    from lyot.outputs import excluded_sources, write_companions
    from lyot.parameters import CompanionParameters, ExclusionParameters

    given = taken(CompanionParameters, options)
    write = partial(
        write_companions,
        guesses=list(given.at),
        background=given.background,
        known_sources=excluded_sources(taken(ExclusionParameters, options)),
        n_likelihoods=given.likelihoods,
        figures=figures,
    )
    _analyze(run, options, write, print_companions)


@main.command()
@click.argument("exposure", required=False, metavar="[EXPOSURE]")
@click.option(
    "-o",
    "--output",
    default="psf.fits",
    show_default=True,
    metavar="FILE",
    help="The FITS file that is written.",
)
@parameter_options(lambda p: p.COMMANDS["psf"])
def psf(exposure: str | None, output: str, **options: Any) -> None:
    """Make the PSF of a source beside the star.

    The image is what a point source at an offset from the star looks like behind the mask.
    The mode is that of EXPOSURE, or given by --instrument, --filter and --mask. The image is
    centered on the source, in the orientation of the detector. It sums to the share of the flux
    that lies on it (STAMPFRC), without the transmission of the mask (TRANSMIS).
    """
    from lyot.analysis.source_image import exposure_mode, named_mode, source_image
    from lyot.files.results import write_image
    from lyot.files.spectrum import source_spectrum
    from lyot.parameters import PsfParameters

    parameters = taken(PsfParameters, options)
    names = parameters.instrument, parameters.filter, parameters.mask
    if exposure and any(names):
        raise LyotError(f"The mode is that of {exposure}; give no instrument, filter or mask.")
    info, plane = exposure_mode(exposure) if exposure else (named_mode(*names), None)
    made = source_image(
        info,
        parameters.at,
        plane=plane,
        pixels=parameters.pixels,
        oversample=parameters.oversample,
        seed=parameters.seed,
        spectrum=source_spectrum(parameters),
    )
    click.echo(
        f"{write_image(made.psf.image, output, keywords=made.keywords)}: transmission of the mask "
        f"{made.psf.transmission:.4f}, {made.psf.stamp_fraction:.4f} of the flux on the image"
    )

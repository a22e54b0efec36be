"""Commands for reference libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from lyot.cli.main import main, shown_warnings
from lyot.cli.options import AS_JSON, SCHEDULER, parameter_options, taken
from lyot.errors import LyotError
from lyot.progress import show_progress

if TYPE_CHECKING:
    from lyot.files.library_store import Library

MAX_GRAM_ERROR = 1e-9
"""Largest relative error of a stored Gram matrix that passes a check."""


@main.group()
def library() -> None:
    """Keep a library of the frames of many reference stars.

    All are of one mode, aligned and ready to use.

    \b
    lyot library build LIB jw*_calints.fits    make one from exposures of reference stars
    lyot library add LIB jw*_calints.fits      add more, at any time, from any process
    lyot library list LIB --where "mjd > 60000"
    lyot library select LIB jw_target_calints.fits
    lyot run ASN --library LIB
    """


def _exposures(function: Any) -> Any:
    """Add what `build` and `add` take."""
    for option in (
        click.option(
            "--wavefront",
            metavar="TABLE",
            help="Table with columns mjd and rms_nm; each frame records the value nearest in time.",
        ),
        click.option(
            "--spectral-type",
            default="",
            metavar="TYPE",
            help="Spectral type of the reference stars, such as M1V.",
        ),
        click.argument("files", nargs=-1, required=True, metavar="FILES..."),
        click.argument("path", metavar="LIB"),
    ):
        function = option(function)
    return function


def _add(
    opener: Callable[[], Library],
    path: str,
    files: tuple[str, ...],
    wavefront: str | None,
    spectral_type: str,
) -> None:
    from lyot.references.library import add, read_wavefronts, spectral_number

    # What is given besides is read before a library is made.
    wavefronts = read_wavefronts(wavefront) if wavefront else None
    spectral_number(spectral_type)
    opened = opener()
    with shown_warnings(), show_progress() as progress:
        n = add(
            opened,
            files,
            spectral_type=spectral_type,
            wavefronts=wavefronts,
            report=progress,
        )
    click.echo(f"{path}: {n} frames added, {len(opened)} in all")


@library.command()
@_exposures
@click.option(
    "--zone",
    type=float,
    default=3.0,
    show_default=True,
    metavar="ARCSEC",
    help="Frames are compared within this separation of the star [arcsec].",
)
def build(path: str, files: tuple[str, ...], zone: float, **options: Any) -> None:
    """Make the library LIB from FILES, exposures of reference stars in one mode."""
    from lyot.references.library import build as make

    _add(lambda: make(path, files, zone_arcsec=zone), path, files, **options)


@library.command(name="add")
@_exposures
def add_files(path: str, files: tuple[str, ...], **options: Any) -> None:
    """Add FILES to LIB; exposures that it already holds are skipped."""
    from lyot.files.library_store import Library

    _add(lambda: Library(path), path, files, **options)


@library.command(name="list")
@click.argument("path", metavar="LIB")
@click.option(
    "--where", default="", metavar="SQL", help="An SQL condition, such as \"target = 'HD 1'\"."
)
@AS_JSON
def list_frames(path: str, where: str, as_json: bool) -> None:
    """List the frames of LIB."""
    from lyot.cli.tables import print_frames
    from lyot.files.library_store import Library

    opened = Library(path)
    rows = opened.query(where)
    print_frames(rows, as_json=as_json)
    if not as_json:
        click.echo(f"{len(rows)} of {len(opened)} frames; {opened.mode_text}")


@library.command()
@click.argument("path", metavar="LIB")
@SCHEDULER
def check(path: str, scheduler: str | None) -> None:
    """Recompute the Gram matrix of LIB from its frames and compare it with the stored one."""
    from lyot.compute.cluster import tasks
    from lyot.files.library_store import Library
    from lyot.references.library import check as compare

    opened = Library(path)
    with shown_warnings(), tasks(scheduler) as where:
        error = compare(opened, tasks=where)
    if not error < MAX_GRAM_ERROR:
        raise LyotError(
            f"The Gram matrix of {path} is off by {error:.1e}; build the library again.",
            function="lyot.references.library.build",
        )
    click.echo(f"{path}: {len(opened)} frames, and their products agree to {error:.1e}")


@library.command(name="select")
@click.argument("path", metavar="LIB")
@click.argument("target", metavar="TARGET")
@parameter_options(lambda p: [p.LibraryRecipe], lambda each: each.name.replace("_", "-"))
@AS_JSON
def select_frames(path: str, target: str, as_json: bool, **options: Any) -> None:
    """List the frames of LIB that suit the exposure TARGET."""
    from lyot.cli.tables import print_frames
    from lyot.files.exposure import read_cube
    from lyot.files.library_store import Library
    from lyot.parameters import LibraryRecipe
    from lyot.references.library import select

    recipe = taken(LibraryRecipe, options)
    with shown_warnings():
        rows, correlations = select(Library(path), read_cube(target), recipe)
    rows = [row | {"correlation": float(c)} for row, c in zip(rows, correlations, strict=True)]
    print_frames(rows, "correlation", as_json=as_json)

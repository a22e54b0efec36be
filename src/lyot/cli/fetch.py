"""The command that asks the archive: fetch."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from lyot.cli.main import fail, main, shown_warnings
from lyot.cli.options import AS_JSON, output_dir
from lyot.progress import show_progress


@main.command()
@click.argument("programs", nargs=-1, required=True, type=click.IntRange(1), metavar="PROGRAM...")
@output_dir("Folder of the files.", ".")
@click.option("--list", "only_list", is_flag=True, help="List the files without fetching them.")
@AS_JSON
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def fetch(
    programs: tuple[int, ...], output_dir: str, only_list: bool, as_json: bool, quiet: bool
) -> None:
    """Fetch the exposures of programs from the archive (MAST).

    Each PROGRAM's calibrated coronagraphic exposures, with references, backgrounds and target
    acquisitions; `lyot run DIR` reduces them. Files that are whole are not fetched again. Needs
    astroquery: pip install 'lyot[fetch]'. Exposures that are not public need a token of the
    archive in MAST_API_TOKEN.
    """
    from lyot.cli.tables import print_archive
    from lyot.files import archive

    files = [each for program in programs for each in archive.list_program(program)]
    if only_list:
        print_archive(files, as_json=as_json)
        return
    done = 0
    with shown_warnings(), show_progress(quiet=quiet) as progress:

        def _received(file: archive.ArchiveFile, state: str) -> None:
            nonlocal done
            del file, state
            done += 1
            progress("files", done, len(files))

        progress("files", 0, len(files))
        states = archive.fetch(files, output_dir, received=_received)
    if as_json:
        rows = [asdict(f) | {"state": s} for f, s in zip(files, states, strict=True)]
        click.echo(json.dumps(rows, indent=2))
    else:
        counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        click.echo(f"{len(files)} files in {output_dir}: {counts}.")
    if archive.FAILED in states:
        fail(f"{states.count(archive.FAILED)} files were not fetched; start it again.", 1)

"""The command line: parses, calls, prints."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lyot._version import __version__
from lyot.errors import LyotError
from lyot.progress import show_progress

INTERRUPTED = 130


class _Commands(click.Group):
    """A group whose commands end with one sentence and a non-zero status on bad input."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LyotError as err:
            _fail(str(err), 1)
        except KeyboardInterrupt:
            _fail(
                "Interrupted; products that were finished are whole, no other was left.",
                INTERRUPTED,
            )
        except OSError as err:
            where = f" {err.filename}" if err.filename else ""
            _fail(f"{err.strerror or err}{where}.", 1)


def _fail(text: str, status: int) -> None:
    click.echo(f"lyot: error: {text}", err=True)
    sys.exit(status)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lyot")
def main() -> None:
    """JWST coronagraphy: from calibrated exposures to PSF-subtracted images.

    \b
    lyot demo                       simulate a small observation and reduce it
    lyot asn jw*_calints.fits       write an association from the headers
    lyot run ASN -o DIR             reduce it
    lyot contrast DIR --star-mag M  how faint a companion could have been seen
    lyot detect DIR                 search for companions
    lyot companion DIR --at SEP PA  measure one
    lyot report DIR                 write the report anew
    lyot library build LIB FILES    keep references of one mode, for lyot run --library LIB
    lyot info FILE...               say what files are
    """
    from lyot.compute import process

    process.own()


def _parameters(values: tuple[str, ...]) -> dict[str, Any]:
    """Turn STEP.NAME=VALUE settings into the nested dictionary of a pipeline."""
    steps: dict[str, dict[str, Any]] = {}
    for text in values:
        key, separator, value = text.partition("=")
        step, dot, name = key.removeprefix("steps.").partition(".")
        if not (separator and dot and name):
            raise LyotError(f"--set {text!r} is not STEP.NAME=VALUE, such as klip.truncate=20.")
        steps.setdefault(step, {})[name] = value
    return steps


_SCHEDULER = click.option(
    "--scheduler",
    metavar="WHERE",
    help="Dask cluster: address of a scheduler, or local[:N] for N workers here.",
)


@main.command()
@click.argument("associations", nargs=-1, required=True, metavar="ASN...")
@click.option(
    "-o",
    "--output-dir",
    default=".",
    show_default="here",
    metavar="DIR",
    help="Where the products go.",
)
@click.option("--input-dir", metavar="DIR", help="Where the members lie.")
@click.option(
    "--truncate",
    metavar="N[,N...]",
    help="Number of KL modes; several give a product each.  [default: 50]",
)
@click.option(
    "--align-to",
    type=click.Choice(["all", "first"]),
    help="Align the references to all integrations, or to the first.  [default: all]",
)
@click.option(
    "--strategy",
    type=click.Choice(["auto", "rdi", "adi", "adi+rdi"]),
    help="References: the psf members, the other rolls, or both.  [default: auto, the psf members "
    "where there are any]",
)
@click.option(
    "--library",
    type=click.Path(),
    metavar="LIB",
    help="Reference library, from which the best references are added.",
)
@click.option(
    "--library-by",
    type=click.Choice(["correlation", "residual", "time", "wavefront", "spectral_type"]),
    help="How they are chosen.  [default: correlation]",
)
@click.option("--library-n", type=int, metavar="N", help="How many; 0 for all.  [default: 200]")
@click.option(
    "--library-where", metavar="SQL", help="Which may be: a condition, as in `lyot library list`."
)
@click.option(
    "--zones", type=click.Choice(["full", "annuli"]), help="Search areas.  [default: full]"
)
@click.option(
    "--method",
    type=click.Choice(["klip", "mean", "median", "imputation", "nmf"]),
    help="How references model the star: KL modes, their scaled mean or median, KL modes by data "
    "imputation, non-negative components.  [default: klip]",
)
@click.option(
    "--select",
    type=click.Choice(["correlation", "residual", "time"]),
    help="Choose references for each integration and zone, as many as --n-refs.  [default: all]",
)
@click.option("--n-refs", type=int, metavar="N", help="How many references are chosen.")
@click.option(
    "--min-rotation",
    type=float,
    metavar="FWHM",
    help="Leave out rolls where they turn a source by less.  [default: 0]",
)
@click.option(
    "--align-on",
    type=click.Choice(["star", "header"]),
    help="What is put on one sky position when exposures are combined.  [default: star]",
)
@click.option(
    "--star",
    nargs=2,
    type=float,
    metavar="X Y",
    help="The star in the science exposures [pixel, 0-based]; measured by default.",
)
@click.option(
    "--psfmask", type=click.Path(), metavar="FILE", help="PSFMASK reference file for the alignment."
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "torch"]),
    help="Where align_refs and klip compute: NumPy, a GPU by PyTorch or CuPy, or PyTorch.  "
    "[default: cpu]",
)
@click.option("--skip-outliers", is_flag=True, help="Do not look for outliers.")
@click.option("--no-psfalign", is_flag=True, help="Do not write the aligned references.")
@click.option("--only-final", is_flag=True, help="Write the combined image and what follows it.")
@click.option("--no-report", is_flag=True, help="Do not write the report.")
@click.option(
    "--star-mag", type=float, metavar="MAG", help="Vega magnitude of the star: contrast limits too."
)
@click.option(
    "--star-flux", type=float, metavar="JY", help="Flux density of the star: contrast limits too."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="STEP.NAME=VALUE",
    help="Any parameter of any step; see the documentation.",
)
@_SCHEDULER
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Print what would be done, without doing it: references, products, disk space.",
)
@click.option("--again", is_flag=True, help="Reduce even what is finished and unchanged.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def run(associations: tuple[str, ...], output_dir: str, **options: Any) -> None:
    """Reduce each association ASN; a folder stands for the associations in it.

    One whose members, parameters and products are as they were is left alone. Of several
    associations each gets a folder of its own in DIR, and one that fails does not stop the
    others.
    """
    _run(associations, output_dir, options)


def _job(output_dir: str, options: dict[str, Any]) -> Any:
    """Turn the options of a run into parameters of the pipeline and its steps."""
    from lyot.survey import Job

    steps = _parameters(tuple(options.get("settings") or ()))

    def put(step: str, name: str, value: Any) -> None:
        if value is not None and value is not False:
            steps.setdefault(step, {})[name] = value

    truncate = options.get("truncate")
    put("klip", "truncate", truncate.split(",") if truncate else None)
    for name in ("zones", "method", "select", "n_refs"):
        put("klip", name, options.get(name))
    put("klip", "min_rotation_fwhm", options.get("min_rotation"))
    put("align_refs", "align_to", options.get("align_to"))
    put("align_refs", "override_psfmask", options.get("psfmask"))
    put("align_refs", "device", options.get("device"))
    put("klip", "device", options.get("device"))
    put("outlier_detection", "skip", options.get("skip_outliers"))
    put("resample", "align_on", options.get("align_on"))
    if options.get("star"):
        for step in ("align_refs", "klip"):
            put(step, "star_x", options["star"][0])
            put(step, "star_y", options["star"][1])
    final = bool(options.get("only_final"))
    settings: dict[str, Any] = {
        f"save_{name}": not final for name in ("crfints", "psfstack", "psfalign", "psfsub")
    }
    settings["save_psfalign"] = not (final or options.get("no_psfalign"))
    limits = {
        name: options[name] for name in ("star_mag", "star_flux") if options.get(name) is not None
    }
    if limits and not all(settings.values()):
        raise LyotError(
            "Contrast limits need the products that --only-final and --no-psfalign leave out; "
            "leave out one or the other."
        )
    for name in ("strategy", "library", "library_by", "library_n", "library_where"):
        if options.get(name) is not None:
            settings[name] = options[name]
    return Job(
        association="",
        output_dir=str(output_dir),
        steps=steps,
        settings=settings,
        input_dir=options.get("input_dir") or "",
        limits=limits,
        report=not options.get("no_report"),
        again=bool(options.get("again")),
        command=_command(),
    )


def _command() -> tuple[str, ...]:
    """What was typed, where it was."""
    context = click.get_current_context(silent=True)
    if context is None:
        return ()
    return ("lyot", *sys.argv[1:])


def _run(associations: tuple[str, ...], output_dir: str, options: dict[str, Any]) -> list[str]:
    from lyot import survey

    found = survey.expand(associations)
    jobs = survey.plan(_job(output_dir, options), found)
    if options.get("only_plan"):
        plans = [survey.plan_of(job) for job in jobs]
        as_json = bool(options.get("as_json"))
        texts = [json.dumps([p.to_dict() for p in plans], indent=2)] if as_json else map(str, plans)
        click.echo("\n\n".join(texts))
        return []
    with _logging(), show_progress(quiet=bool(options.get("quiet"))) as progress:
        if len(jobs) == 1 and not options.get("scheduler"):
            finished = [survey.reduce(jobs[0], progress=progress)]
        else:
            finished = _survey(jobs, options.get("scheduler"), progress)
    if len(jobs) > 1:
        survey.write_summary(finished, output_dir)
    if options.get("as_json"):
        click.echo(json.dumps([asdict(each) for each in finished], indent=2))
    elif len(jobs) == 1 and finished[0].state != survey.FAILED:
        for product in finished[0].products:
            click.echo(product)
        _print_summary(list(finished[0].summary), finished[0])
    else:
        _print_survey(finished, output_dir)
    n_failed = sum(each.state == survey.FAILED for each in finished)
    if n_failed:
        _fail(f"{n_failed} of {len(finished)} associations failed; the table says why.", 1)
    return [product for each in finished for product in each.products]


def _survey(jobs: list[Any], scheduler: str | None, progress: Callable[..., None]) -> list[Any]:
    """Reduce several associations, and give what became of them in their order."""
    from lyot import survey
    from lyot.compute.cluster import tasks

    place = {job.association: number for number, job in enumerate(jobs)}
    finished: list[Any] = []
    with tasks(scheduler) as where:
        progress("associations", 0, len(jobs))
        for each in survey.run(jobs, where):
            finished.append(each)
            progress("associations", len(finished), len(jobs))
    return sorted(finished, key=lambda each: place[each.association])


def _print_survey(finished: list[Any], output_dir: str) -> None:
    rows = []
    for each in finished:
        before = [r["rms_before"] for r in each.summary]
        after = [r["rms_after"] for r in each.summary]
        rows.append(
            [
                each.product or each.association,
                each.state,
                str(len(each.summary)) if each.summary else "",
                ", ".join(sorted({str(r["references"]) for r in each.summary})),
                f"{sum(before) / len(before):.3g}" if before else "",
                f"{sum(after) / len(after):.3g}" if after else "",
                f"{each.seconds:.1f} s" if each.seconds else "",
                each.message,
            ]
        )
    header = ["product", "state", "exposures", "references", "rms before", "after", "time", ""]
    _print_table(header, rows)
    click.echo(f"Products are in {output_dir}; survey.json there says what became of each.")


@main.command()
@click.argument("run", metavar="RUN")
def report(run: str) -> None:
    """Write the report of RUN, the folder of a finished run, with what analyses left there."""
    from lyot.viz.report import write_report

    click.echo(write_report(run))


def _report_again(folder: Path) -> list[str]:
    """Write the report of a run anew, where it has one: an analysis belongs in it."""
    from lyot.viz.report import write_report

    return [write_report(folder)] if list(folder.glob("*_report.html")) else []


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="The file; a folder where there are several "
    "associations.  [default: PRODUCT_asn.json here]",
)
def asn(files: tuple[str, ...], output: str | None) -> None:
    """Write an association from the headers of FILES, one per combination.

    Exposures are sorted by instrument, filter, coronagraph and subarray, and into science and
    references by IS_PSF.
    """
    from lyot.files.association import FOLDER_KEY, build_associations
    from lyot.files.atomic import atomic_write

    made = build_associations(list(files))
    home = Path(files[0]).resolve().parent
    for content in made:
        name = f"{content['products'][0]['name']}_asn.json"
        path = Path(output) if output else Path(name)
        if output and (path.is_dir() or len(made) > 1):
            path = path / name
        if path.resolve().parent != home:
            content[FOLDER_KEY] = str(home)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        members = content["products"][0]["members"]
        n = sum(m["exptype"] == "psf" for m in members)
        click.echo(f"{path}: {len(members) - n} science, {n} psf")


@main.group()
def library() -> None:
    """Reference libraries: frames of many stars in one mode, aligned and ready.

    \b
    lyot library build LIB jw*_calints.fits    make one of exposures of reference stars
    lyot library add LIB jw*_calints.fits      add more, at any time, from any process
    lyot library list LIB --where "mjd > 60000"
    lyot library select LIB jw_target_calints.fits
    lyot run ASN --library LIB
    """


def _adding(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `build` and `add` take."""
    for option in (
        click.option(
            "--wavefront",
            metavar="TABLE",
            help="Table with columns mjd and rms_nm: the value nearest in time is noted.",
        ),
        click.option(
            "--spectral-type", default="", metavar="TYPE", help="Of the stars, such as M1V."
        ),
        click.argument("files", nargs=-1, required=True, metavar="FILES..."),
        click.argument("path", metavar="LIB"),
    ):
        function = option(function)
    return function


def _add(path: str, files: tuple[str, ...], options: dict[str, Any]) -> None:
    from lyot.files.library_store import Library
    from lyot.references.library import add, read_wavefronts

    opened, table = Library(path), options["wavefront"]
    with _logging(), show_progress() as progress:
        n = add(
            opened,
            files,
            spectral_type=options["spectral_type"],
            wavefronts=read_wavefronts(table) if table else None,
            report=progress,
        )
    click.echo(f"{path}: {n} frames added, {len(opened)} in all")


@library.command()
@_adding
@click.option(
    "--zone",
    type=float,
    default=3.0,
    show_default=True,
    metavar="ARCSEC",
    help="Frames are compared within this separation of the star.",
)
def build(path: str, files: tuple[str, ...], zone: float, **options: Any) -> None:
    """Make the library LIB of FILES, exposures of reference stars in one mode."""
    from lyot.references.library import build as make

    make(path, files, zone_arcsec=zone)
    _add(path, files, options)


@library.command(name="add")
@_adding
def add_files(path: str, files: tuple[str, ...], **options: Any) -> None:
    """Add FILES to LIB; exposures that it holds are passed over."""
    _add(path, files, options)


_FRAME_COLUMNS = (
    "number",
    "file",
    "integration",
    "target",
    "spectral_type",
    "mjd",
    "pa_y_deg",
    "wavefront_nm",
    "scale",
    "n_repaired",
    "n_saturated",
)


def _print_frames(rows: list[dict[str, Any]], extra: tuple[str, ...] = ()) -> None:
    def _text(value: Any) -> str:
        return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    columns = [*_FRAME_COLUMNS, *extra]
    _print_table(columns, [[_text(row[name]) for name in columns] for row in rows])


@library.command(name="list")
@click.argument("path", metavar="LIB")
@click.option(
    "--where", default="", metavar="SQL", help="A condition, such as \"target = 'HD 1'\"."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_frames(path: str, where: str, as_json: bool) -> None:
    """List the frames of LIB."""
    from lyot.files.library_store import Library

    opened = Library(path)
    rows = opened.query(where)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    _print_frames(rows)
    click.echo(f"{len(rows)} of {len(opened)} frames; {opened.mode_text}")


@library.command()
@click.argument("path", metavar="LIB")
@_SCHEDULER
def check(path: str, scheduler: str | None) -> None:
    """Form the Gram matrix of LIB anew from its frames, and compare it with the one it keeps."""
    from lyot.compute.cluster import tasks
    from lyot.files.library_store import Library
    from lyot.references.library import check as compare

    opened = Library(path)
    with _logging(), tasks(scheduler) as where:
        off = compare(opened, tasks=where)
    if not off < 1e-9:
        raise LyotError(f"The Gram matrix of {path} is off by {off:.1e}; build it anew.")
    click.echo(f"{path}: {len(opened)} frames, and their products agree to {off:.1e}")


@library.command(name="select")
@click.argument("path", metavar="LIB")
@click.argument("target", metavar="TARGET")
@click.option(
    "--by",
    type=click.Choice(["correlation", "residual", "time", "wavefront", "spectral_type"]),
    default="correlation",
    show_default=True,
    help="How frames are chosen.",
)
@click.option("-n", "n", type=int, default=200, show_default=True, help="How many; 0 for all.")
@click.option("--where", default="", metavar="SQL", help="Which may be: a condition.")
@click.option("--spectral-type", default="", metavar="TYPE", help="Of the target.")
@click.option("--wavefront-nm", type=float, metavar="NM", help="At the target's time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def select_frames(path: str, target: str, as_json: bool, **options: Any) -> None:
    """Say which frames of LIB would serve the exposure TARGET."""
    from lyot.files.exposure import read_cube
    from lyot.files.library_store import Library
    from lyot.parameters import LibraryRecipe
    from lyot.references.library import select

    with _logging():
        rows, alike = select(Library(path), read_cube(target), LibraryRecipe(**options))
    rows = [row | {"correlation": float(c)} for row, c in zip(rows, alike, strict=True)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print_frames(rows, ("correlation",))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def info(files: tuple[str, ...], as_json: bool) -> None:
    """Say what each FILE is: an exposure or a product."""
    from lyot.files.view import describe

    rows = [describe(path) for path in files]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    _print_table(
        ["file", "what", "shape", "target", "mode", "roll", "star x, y", "made by"],
        [
            [
                r["file"],
                r["what"],
                r["shape"],
                r["target"],
                r["mode"],
                r["roll"],
                r["star"],
                r["steps"],
            ]
            for r in rows
        ],
    )


@main.command()
@click.option(
    "-o",
    "--output-dir",
    default="lyot-demo",
    show_default=True,
    metavar="DIR",
    help="Where the simulated files and the products go.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the random numbers.")
def demo(output_dir: str, seed: int) -> None:
    """Simulate a small NIRCam observation, reduce it and show where everything is."""
    from lyot.simulate import simulate_observation

    folder = Path(output_dir)
    click.echo(f"Simulating an observation of a star with a disc and two companions in {folder}/")
    association = simulate_observation(folder / "exposures", seed=seed)
    click.echo(f"Reducing {association}")
    products = _run((str(association),), str(folder / "products"), {"again": True})
    click.echo(f"\nProducts: {folder / 'products'}")
    click.echo(f"Truth:    {folder / 'exposures' / 'truth.json'}")
    report = [p for p in products if p.endswith(".html")]
    if report:
        click.echo(f"Report:   {report[0]}")


def _analysis_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what all commands of the analysis take."""
    options = [
        click.option(
            "-o", "--output-dir", metavar="DIR", help="Where results go.  [default: beside RUN]"
        ),
        click.option("--star-mag", type=float, metavar="MAG", help="Vega magnitude of the star."),
        click.option("--star-flux", type=float, metavar="JY", help="Flux density of the star."),
        click.option(
            "--star-frame", metavar="FILE", help="FITS image of the star without the mask."
        ),
        click.option(
            "--psf", metavar="FILE", help="FITS image of an off-axis PSF; a model by default."
        ),
        click.option(
            "--transmission",
            metavar="FILE",
            help="FITS map of the mask's transmission on the frames; a model by default.",
        ),
        click.option(
            "--known",
            nargs=2,
            type=float,
            multiple=True,
            metavar="SEP PA",
            help="Exclude a known source from the noise estimate [arcsec, degree]; repeatable.",
        ),
        click.option(
            "--disc",
            nargs=2,
            type=float,
            metavar="PA HALF-WIDTH",
            help="Exclude an edge-on disc from the noise estimate: position angle and half opening "
            "angle [degree].",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _reduced(run: str, options: dict[str, Any]) -> Path:
    """Return the folder of a finished run; an association is reduced first."""
    folder = Path(run)
    if folder.is_file() and folder.suffix == ".json":
        target = options.get("output_dir") or f"{folder.stem.removesuffix('_asn')}-products"
        click.echo(f"Reducing {folder} into {target}/")
        _run((str(folder),), str(target), {})
        return Path(target)
    return folder


@contextmanager
def _observation(run: str, options: dict[str, Any]) -> Iterator[tuple[Any, Path]]:
    """Open a finished run, or make it of an association first."""
    from lyot.outputs import observation_of
    from lyot.parameters import ObservationParameters, from_names

    folder = _reduced(run, options)
    chosen = from_names(ObservationParameters, _given(options))
    with _logging(), observation_of(folder, chosen) as made:
        click.echo(f"{made.product}: {_rests_on(made.origins())}")
        yield made, Path(options.get("output_dir") or folder)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _noise_options(options: dict[str, Any]) -> dict[str, Any]:
    """Turn options into the statistic and the sources that are excluded from the noise."""
    from lyot.analysis.statistic import Statistic
    from lyot.outputs import excluded_sources
    from lyot.parameters import ExclusionParameters, from_names

    given = _given(options)
    return {
        "statistic": from_names(Statistic, given),
        "known_sources": excluded_sources(from_names(ExclusionParameters, given)),
    }


def _statistic_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what judges the significance of a flux."""
    from lyot.parameters import StatisticParameters, parameters_of

    for each in reversed(parameters_of(StatisticParameters)):
        kind = click.Choice(each.choices) if each.choices else each.inner
        name = f"--{each.name.replace('_', '-')}"
        function = click.option(
            name, type=kind, default=each.default, show_default=True, help=f"{each.help}."
        )(function)
    return function


@main.command()
@click.argument("run", metavar="RUN")
@_analysis_options
@click.option(
    "--truncate", metavar="N[,N...]", help="Numbers of KL modes; as in the run by default."
)
@click.option("--separations", metavar="A,B,...", help="Separations [arcsec].")
@_statistic_options
@_SCHEDULER
def contrast(run: str, **options: Any) -> None:
    """Contrast limits of RUN: the folder of a finished run, or an association.

    Writes a table (ECSV), maps of the sensitivity and completeness (FITS) and figures (PNG).
    """
    from lyot.compute.cluster import tasks
    from lyot.outputs import write_contrast
    from lyot.parameters import ContrastParameters, from_names

    separations = from_names(ContrastParameters, _given(options)).separations
    with (
        tasks(options.pop("scheduler")) as where,
        _observation(run, options) as (observation, folder),
    ):
        written = write_contrast(
            observation,
            folder,
            separations_arcsec=separations,
            **_noise_options(options),
            tasks=where,
        )
    _print_limits(written.result)
    for path in [*written.paths, *_report_again(folder)]:
        click.echo(path)


def _rests_on(settings: dict[str, Any]) -> str:
    return f"PSF: {settings['psf']}; transmission: {settings['transmission']}"


def _print_limits(curve: Any) -> None:
    rows = []
    for j, separation in enumerate(curve.separation_arcsec):
        t = int(curve.best[j])
        good = curve.tau[j] == curve.tau[j]
        rows.append(
            [
                f"{separation:.2f}",
                str(curve.n_modes[t]),
                f"{curve.raw[t, j]:.2e}" if good else "too few positions",
                f"{curve.corrected[t, j]:.2e}" if good else "",
                f"{curve.calibrated[t, j]:.2e}" if good else "",
                f"{curve.throughput[t, j]:.2f}",
                f"{curve.transmission[j]:.2f}",
                str(int(curve.n_positions[j])),
                f"{curve.tau[j]:.2f}" if good else "",
                f"{curve.normality[t, j]:.2g}" if curve.normality[t, j] >= 0 else "",
            ]
        )
    _print_table(
        [
            "separation [arcsec]",
            "modes",
            "raw",
            "corrected",
            "contrast",
            "throughput",
            "mask",
            "positions",
            "tau",
            "normality p",
        ],
        rows,
    )


@main.command()
@click.argument("run", metavar="RUN")
@_analysis_options
@click.option("--truncate", metavar="N", help="Number of KL modes; that of the run by default.")
@_statistic_options
def detect(run: str, **options: Any) -> None:
    """Search RUN for companions: S/N map, STIM map and a list of candidates."""
    from lyot.outputs import write_detection

    with _observation(run, options) as (observation, folder):
        written = write_detection(observation, folder, **_noise_options(options))
    found = written.result
    _print_table(
        [
            "candidate",
            "separation [arcsec]",
            "PA [deg]",
            "S/N",
            "false alarms on the image",
            "contrast",
            "S/N without one star",
            "known",
        ],
        [
            [
                str(number),
                f"{c.separation_arcsec:.3f}",
                f"{c.pa_deg:.2f}",
                f"{c.snr:.1f}",
                f"{c.false_alarms:.1e}",
                f"{c.contrast:.2e}" if c.contrast == c.contrast else "",
                f"{c.jackknife_snr:.1f} ({c.key_reference})"
                if c.jackknife_snr == c.jackknife_snr
                else "",
                "yes" if c.is_known else "",
            ]
            for number, c in enumerate(found.candidates, start=1)
        ],
    )
    if not found.candidates:
        click.echo(f"No candidate above the threshold (FPF = {found.statistic.fpf:.3g}).")
    for path in [*written.paths, *_report_again(folder)]:
        click.echo(path)


@main.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--at",
    nargs=2,
    type=float,
    multiple=True,
    required=True,
    metavar="SEP PA",
    help="First guess [arcsec, degree]; given again, companions are fitted together.",
)
@_analysis_options
@click.option("--truncate", metavar="N", help="Number of KL modes; that of the run by default.")
@click.option(
    "--background",
    type=click.Choice(["none", "constant", "plane", "quadratic"]),
    default="constant",
    show_default=True,
    help="Smooth background, as a disc makes.",
)
@click.option(
    "--likelihoods",
    default=10_000,
    show_default=True,
    help="Length of the sampling; 0 takes the curvature at the best fit.",
)
def companion(run: str, **options: Any) -> None:
    """Measure companions in RUN: position, flux and their errors."""
    from lyot.outputs import write_companions
    from lyot.parameters import CompanionParameters, from_names

    chosen = from_names(CompanionParameters, _given(options))
    with _observation(run, options) as (observation, folder):
        written = write_companions(
            observation,
            folder,
            list(chosen.at),
            background=chosen.background,
            n_likelihoods=chosen.likelihoods,
        )
    fit = written.result
    _print_table(
        [
            "companion",
            "separation [arcsec]",
            "PA [deg]",
            "contrast",
            "magnitude",
            "S/N",
            "bias / error",
        ],
        [
            [
                str(number),
                f"{c.separation_arcsec:.4f} +- {c.separation_err:.4f}",
                f"{c.pa_deg:.2f} +- {c.pa_err:.2f}",
                f"{c.contrast:.3e} +- {c.contrast_err:.1e}" if c.contrast == c.contrast else "",
                f"{c.magnitude:.2f}" if c.magnitude == c.magnitude else "",
                f"{c.snr:.1f}",
                f"{c.bias_flux / c.flux_err:+.2f}" if c.bias_flux == c.bias_flux else "",
            ]
            for number, c in enumerate(fit.companions, start=1)
        ],
    )
    for path in [*written.paths, *_report_again(folder)]:
        click.echo(path)


@contextmanager
def _logging() -> Iterator[None]:
    """Show warnings of the package on standard error; keep the libraries quiet."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("lyot: %(levelname)s: %(message)s"))
    logger = logging.getLogger("lyot")
    logging.getLogger("stpipe").setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for text in header:
        table.add_column(escape(text), overflow="fold")
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    console.print(table)


def _print_summary(summary: list[dict[str, Any]], finished: Any) -> None:
    _print_table(
        [
            "exposure",
            "integrations",
            "references",
            "shift [px]",
            "modes",
            "rms before",
            "after",
            "star x, y",
        ],
        [
            [
                r["exposure"],
                str(r["integrations"]),
                str(r["references"]),
                f"{r['median_shift_pix']:.3f} (max {r['largest_shift_pix']:.3f})",
                f"{r['n_kept']}",
                f"{r['rms_before']:.3g}",
                f"{r['rms_after']:.3g}",
                f"{r['star']['x']:.2f}, {r['star']['y']:.2f} ({r['star']['origin']})",
            ]
            for r in summary
        ],
    )
    if finished.state == "unchanged":
        click.echo("Nothing has changed since these were made; --again reduces anew.")
    else:
        click.echo(f"{finished.seconds:.1f} s")


if __name__ == "__main__":
    main()

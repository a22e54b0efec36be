"""The command line: parses, calls, prints."""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lyot._version import __version__
from lyot.errors import LyotError

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
    lyot library build LIB FILES    keep references of one mode, for lyot run --library LIB
    lyot info FILE...               say what files are
    """


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


@main.command()
@click.argument("association", metavar="ASN")
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
def run(association: str, output_dir: str, **options: Any) -> None:
    """Reduce the association ASN."""
    _run(association, output_dir, options)


def _run(association: str, output_dir: str, options: dict[str, Any]) -> list[str]:
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
    keep: dict[str, Any] = {
        f"save_{name}": not final for name in ("crfints", "psfstack", "psfalign", "psfsub")
    }
    keep["save_psfalign"] = not (final or options.get("no_psfalign"))
    wants_limits = options.get("star_mag") is not None or options.get("star_flux") is not None
    if wants_limits and not all(keep.values()):
        raise LyotError(
            "Contrast limits need the products that --only-final and --no-psfalign leave out; "
            "leave out one or the other."
        )
    started = time.monotonic()
    with _logging(), _progress() as progress:
        from lyot.pipeline import Coron3Pipeline

        gc.freeze()  # the libraries' objects stay: each step would go through them again
        for name in ("strategy", "library", "library_by", "library_n", "library_where"):
            if options.get(name) is not None:
                keep[name] = options[name]
        pipeline = _configured(Coron3Pipeline, steps, keep, output_dir)
        if options.get("input_dir"):
            pipeline.input_dir = options["input_dir"]
        pipeline.progress = progress
        pipeline.run(association)
        products = list(pipeline.products)
    curve = None
    if wants_limits:
        star = {name: options.get(name) for name in ("star_mag", "star_flux")}
        written, curve = _contrast(str(output_dir), star)
        products += written
    if not options.get("no_report") and not pipeline.resample.skip:
        products += _report(products, output_dir, pipeline.summary, curve)
    for product in products:
        click.echo(product)
    _print_summary(pipeline.summary, time.monotonic() - started)
    return products


def _configured(kind: Any, steps: dict[str, Any], keep: dict[str, Any], output_dir: str) -> Any:
    """Make a pipeline; its parameters are validated as those of any stpipe step."""
    from stpipe.config_parser import ConfigObj, merge_config
    from stpipe.exceptions import ValidationError

    unknown = sorted(set(steps) - set(kind.step_defs))
    if unknown:
        raise LyotError(f"{unknown[0]!r} is no step; the steps are {', '.join(kind.step_defs)}.")
    for step, values in steps.items():
        known = kind.step_defs[step].load_spec_file()
        for name in values:
            if name not in known:
                raise LyotError(
                    f"{name!r} is no parameter of {step}; known are "
                    f"{', '.join(sorted(k for k in known))}."
                )
    config = ConfigObj()
    merge_config(config, {**keep, "output_dir": str(output_dir), "steps": steps})
    try:
        return kind.from_config_section(config)
    except ValidationError as err:
        raise LyotError(f"A parameter is not valid: {' '.join(str(err).split())}.") from None


def _report(
    products: list[str], output_dir: str, summary: list[dict[str, Any]], limits: Any
) -> list[str]:
    from lyot.viz.report import write_report

    image = [p for p in products if p.endswith("_i2d.fits")]
    if not image:
        return []
    return [write_report(products, Path(output_dir), summary, limits=limits)]


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
    from lyot.models.association import FOLDER_KEY, build_associations
    from lyot.models.products import written_whole

    made = build_associations(list(files))
    home = Path(files[0]).resolve().parent
    for content in made:
        name = f"{content['products'][0]['name']}_asn.json"
        path = Path(output) if output else Path(name)
        if output and (path.is_dir() or len(made) > 1):
            path = path / name
        if path.resolve().parent != home:
            content[FOLDER_KEY] = str(home)
        with written_whole(path) as temporary:
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
    from lyot.models.library import Library
    from lyot.reduction.library import add, read_wavefronts

    opened, table = Library(path), options["wavefront"]
    with _logging(), _progress() as progress:
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
    from lyot.reduction.library import build as make

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
    from lyot.models.library import Library

    opened = Library(path)
    rows = opened.query(where)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    _print_frames(rows)
    click.echo(f"{len(rows)} of {len(opened)} frames; {' '.join(filter(None, opened.mode))}")


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
    from lyot.models.cubes import read_cube
    from lyot.models.library import Library
    from lyot.recipe import LibraryRecipe
    from lyot.reduction.library import select

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
    from lyot.models.describe import describe

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
    products = _run(str(association), str(folder / "products"), {})
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
            help="A known source that is no noise [arcsec, degree]; may be given again.",
        ),
        click.option(
            "--disc",
            nargs=2,
            type=float,
            metavar="PA HALF-WIDTH",
            help="An edge-on disc that is no noise: its position angle and half opening [degree].",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@contextmanager
def _reduction(run: str, options: dict[str, Any]) -> Iterator[tuple[Any, Path]]:
    """Open a finished run, or make it of an association first."""
    from lyot.analysis.reduction import load_reduction

    folder = Path(run)
    if folder.is_file() and folder.suffix == ".json":
        target = options.get("output_dir") or f"{folder.stem.removesuffix('_asn')}-products"
        click.echo(f"Reducing {folder} into {target}/")
        _run(str(folder), str(target), {})
        folder = Path(target)
    truncate = options.get("truncate")
    try:
        n_modes = tuple(int(n) for n in truncate.split(",")) if truncate else None
    except ValueError:
        raise LyotError(
            f"--truncate is {truncate!r}; give whole numbers, such as 5,20,50."
        ) from None
    with (
        _logging(),
        load_reduction(
            folder,
            n_modes=n_modes,
            psf=options.get("psf"),
            transmission=options.get("transmission"),
            star_jy=options.get("star_flux"),
            star_magnitude=options.get("star_mag"),
            star_frame=options.get("star_frame"),
        ) as reduction,
    ):
        click.echo(
            f"{reduction.product}: PSF: {reduction.psf.origin}; transmission: "
            f"{reduction.transmission.origin}"
        )
        yield reduction, Path(options.get("output_dir") or folder)


def _known(options: dict[str, Any]) -> tuple[Any, ...]:
    from lyot.analysis.maps import Known, KnownDisc

    sources: list[Any] = [Known(separation, pa) for separation, pa in options.get("known") or ()]
    return (*sources, KnownDisc(*options["disc"])) if options.get("disc") else tuple(sources)


@main.command()
@click.argument("run", metavar="RUN")
@_analysis_options
@click.option(
    "--truncate", metavar="N[,N...]", help="Numbers of KL modes; as in the run by default."
)
@click.option("--separations", metavar="A,B,...", help="Separations [arcsec].")
@click.option("--fpf", type=float, help="False-positive fraction.  [default: 5 sigma, 2.87e-7]")
@click.option(
    "--flux-by",
    type=click.Choice(["matched", "aperture"]),
    default="matched",
    show_default=True,
    help="Matched filter, or aperture of one FWHM.",
)
@click.option(
    "--noise",
    type=click.Choice(["gaussian", "laplace"]),
    default="gaussian",
    show_default=True,
    help="Distribution of the noise.",
)
def contrast(run: str, **options: Any) -> None:
    """Contrast limits of RUN: the folder of a finished run, or an association.

    Writes a table (ECSV), maps of the sensitivity and completeness (FITS) and figures (PNG).
    """
    for path in _contrast(run, options)[0]:
        click.echo(path)


def _contrast(run: str, options: dict[str, Any]) -> tuple[list[str], Any]:
    """Measure the limits of a run, print them, and return what was written, and the curve."""
    import numpy as np

    from lyot.algorithms.noise import FIVE_SIGMA_FPF
    from lyot.analysis import contrast as limits
    from lyot.models.results import write_grid, write_maps, write_table
    from lyot.viz import analysis as draw

    fpf = options.get("fpf") or FIVE_SIGMA_FPF
    known = _known(options)
    text = options.get("separations")
    try:
        separations = None if not text else np.array([float(v) for v in text.split(",")])
    except ValueError:
        raise LyotError(f"--separations is {text!r}; give numbers, such as 0.5,1,2.") from None
    with _reduction(run, options) as (reduction, folder):
        curve = limits.contrast_curve(
            reduction,
            separations_arcsec=separations,
            fpf=fpf,
            known=known,
            method=options.get("flux_by") or "matched",
            distribution=options.get("noise") or "gaussian",
        )
        best = reduction.n_modes[int(np.bincount(curve.best).argmax())]
        spread = limits.sensitivity_map(reduction, curve, n_modes=best)
        complete = limits.completeness_map(
            reduction,
            separations_arcsec=separations,
            fpf=fpf,
            known=known,
            n_modes=best,
            distribution=options.get("noise") or "gaussian",
        )
        name = reduction.product
        keywords = {"FPF": fpf, "NMODES": best}
        axes = {"SEPARATION": complete.separation_arcsec, "CONTRAST": complete.contrast}
        written = [
            write_table(curve.to_table(), folder / f"{name}_limits.ecsv"),
            write_maps(
                {"LIMIT": spread.limit},
                folder / f"{name}_sensitivity.fits",
                pixel_scale_arcsec=spread.pixel_scale_arcsec,
                keywords=keywords,
            ),
            write_grid(
                complete.fraction,
                folder / f"{name}_completeness.fits",
                name="FRACTION",
                axes=axes,
                keywords=keywords,
            ),
        ]

        def _curves(figure: Any) -> None:
            upper, lower = figure.subplots(2, 1, height_ratios=(2.2, 1.0))
            draw.contrast(upper, curve).set_title(name, fontsize=9)
            draw.throughput(lower, curve)

        def _maps(figure: Any) -> None:
            left, right = figure.subplots(1, 2)
            draw.sensitivity(left, spread)
            draw.completeness(right, complete)

        written.append(draw.save(folder / f"{name}_limits.png", _curves, (6.4, 7.2)))
        written.append(draw.save(folder / f"{name}_sensitivity.png", _maps, (11.0, 4.6)))
    _print_limits(curve)
    return written, curve


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
@click.option("--fpf", type=float, help="False-positive fraction.  [default: 5 sigma, 2.87e-7]")
def detect(run: str, **options: Any) -> None:
    """Search RUN for companions: S/N map, STIM map and a list of candidates."""
    from lyot.algorithms.noise import FIVE_SIGMA_FPF
    from lyot.analysis.detection import detect as search
    from lyot.models.results import write_maps, write_table
    from lyot.viz import analysis as draw

    fpf = options["fpf"] or FIVE_SIGMA_FPF
    with _reduction(run, options) as (reduction, folder):
        found = search(reduction, fpf=fpf, known=_known(options))
        name = reduction.product
        written = [
            write_table(found.to_table(), folder / f"{name}_candidates.ecsv"),
            write_maps(
                {"SNR": found.snr, "FLUX": found.flux, "STIM": found.stim},
                folder / f"{name}_detection.fits",
                pixel_scale_arcsec=found.pixel_scale_arcsec,
                keywords={"FPF": fpf, "NMODES": found.n_modes},
            ),
            draw.save(
                folder / f"{name}_detection.png",
                lambda figure: draw.snr_map(figure.subplots(), found),
                (6.4, 5.4),
            ),
        ]
    _print_table(
        [
            "candidate",
            "separation [arcsec]",
            "PA [deg]",
            "S/N",
            "false alarms on the image",
            "contrast",
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
                "yes" if c.known else "",
            ]
            for number, c in enumerate(found.candidates, start=1)
        ],
    )
    if not found.candidates:
        click.echo("No place stands out at this false-positive fraction.")
    for path in written:
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
    from lyot.analysis.companion import fit_companions
    from lyot.models.results import write_table
    from lyot.viz import analysis as draw

    with _reduction(run, options) as (reduction, folder):
        fit = fit_companions(
            reduction,
            list(options["at"]),
            background=options["background"],
            n_likelihoods=options["likelihoods"],
        )
        name = reduction.product
        written = [write_table(fit.to_table(), folder / f"{name}_companions.ecsv")]

        def _patches(figure: Any) -> None:
            draw.companion(figure.subplots(len(fit.boxes), 3, squeeze=False), fit)

        written.append(
            draw.save(folder / f"{name}_companions.png", _patches, (6.0, 2.1 * len(fit.boxes)))
        )
        for k in range(len(fit.companions)):

            def _corner(figure: Any, k: int = k) -> None:
                draw.posterior(figure.subplots(3, 3), fit, number=k)

            written.append(draw.save(folder / f"{name}_posterior{k + 1}.png", _corner, (6.0, 6.0)))
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
    for path in written:
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


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show progress: a display on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def line(stage: str, done: int, total: int) -> None:
            del done
            if stage not in seen:
                seen.add(stage)
                click.echo(f"{stage} ({total})" if total > 1 else stage, err=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        tasks: dict[str, Any] = {}

        def update(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = display.add_task(stage, total=total)
            display.update(tasks[stage], completed=done)

        yield update


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


def _print_summary(summary: list[dict[str, Any]], seconds: float) -> None:
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
    click.echo(f"{seconds:.1f} s")


if __name__ == "__main__":
    main()

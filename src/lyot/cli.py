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
    "--zones", type=click.Choice(["full", "annuli"]), help="Search areas.  [default: full]"
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
    put("klip", "zones", options.get("zones"))
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
    keep = {f"save_{name}": not final for name in ("crfints", "psfstack", "psfalign", "psfsub")}
    keep["save_psfalign"] = not (final or options.get("no_psfalign"))
    started = time.monotonic()
    with _logging(), _progress() as progress:
        from lyot.pipeline import Coron3Pipeline

        gc.freeze()  # the libraries' objects stay: each step would go through them again
        pipeline = _configured(Coron3Pipeline, steps, keep, output_dir)
        if options.get("input_dir"):
            pipeline.input_dir = options["input_dir"]
        pipeline.progress = progress
        pipeline.run(association)
        products = list(pipeline.products)
        if not options.get("no_report") and not pipeline.resample.skip:
            products += _report(products, output_dir, pipeline.summary)
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


def _report(products: list[str], output_dir: str, summary: list[dict[str, Any]]) -> list[str]:
    from lyot.viz.report import write_report

    image = [p for p in products if p.endswith("_i2d.fits")]
    if not image:
        return []
    return [write_report(products, Path(output_dir), summary)]


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

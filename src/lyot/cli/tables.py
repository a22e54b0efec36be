"""Tables on standard output."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from lyot.analysis.companion import CompanionFit, Measured
    from lyot.analysis.detection import Detection
    from lyot.files.archive import ArchiveFile
    from lyot.outputs import Limits
    from lyot.survey import Finished
    from lyot.types import Array

MAX_COLUMNS = 2000
"""Width of a table that is not printed on a terminal; rows are only as long as they need."""

# fmt: off
_FRAME_COLUMNS = (
    "number", "file", "integration", "target", "spectral_type", "mjd", "pa_y_deg", "wavefront_nm",
    "scale", "n_repaired", "n_saturated",
)
# fmt: on

T = TypeVar("T")


def print_table(
    items: Sequence[T],
    columns: Mapping[str, Callable[[T], str]],
    /,
    *,
    numbered: str = "",
    as_json: bool = False,
) -> None:
    """Print a row for each item: under each heading, what its function makes of the item.

    `numbered` is the heading of a first column that counts from one. The table fits the terminal;
    in a file no row is broken. As JSON, print the items themselves.
    """
    if as_json:
        click.echo(json.dumps(items, indent=2))
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in [*([numbered] if numbered else []), *columns]:
        table.add_column(escape(heading), overflow="fold")
    for number, item in enumerate(items, start=1):
        cells = [escape(text(item)) for text in columns.values()]
        table.add_row(*([str(number)] if numbered else []), *cells)
    console = Console()
    if not console.is_terminal:
        console = Console(width=MAX_COLUMNS)
    console.print(table)


def _shown(value: float, form: str) -> str:
    """Format a number; nothing where there is none."""
    return "" if math.isnan(value) else format(value, form)


def print_run(finished: Finished, /) -> None:
    """Print the exposures of one reduction, and what was found."""
    print_table(
        finished.summary,
        {
            "exposure": lambda r: r["exposure"],
            "integrations": lambda r: str(r["integrations"]),
            "references": lambda r: str(r["references"]),
            "their shift [pixel]": lambda r: (
                f"{r['median_shift_pix']:.3f} (max {r['largest_shift_pix']:.3f})"
            ),
            "modes": lambda r: str(r["n_kept"]),
            "rms before": lambda r: f"{r['rms_before']:.3g}",
            "after [MJy/sr]": lambda r: f"{r['rms_after']:.3g}",
            "star x, y": lambda r: "{x:.2f}, {y:.2f} ({origin})".format(**r["star"]),
        },
    )
    _print_found(finished)
    if finished.limits:
        near = [
            f"{limit:.1e} at {r:g} arcsec"
            for r in (0.5, 1.0, 2.0, 5.0)
            if (limit := limit_at(finished.limits, r)) is not None
        ]
        click.echo(f"Contrast limits: {', '.join(near)}.")
    if finished.state == "unchanged":
        click.echo("The products are up to date; --rerun reduces the association again.")
    else:
        click.echo(f"{finished.seconds:.1f} s, {finished.peak_memory_mb:.0f} MB of memory")
    for path in (p for p in finished.products if p.endswith(".html")):
        click.echo(f"Report: {path}")


def _print_found(finished: Finished) -> None:
    """Print the candidates of a search and the companions that were measured."""
    from lyot.analysis.statistic import chance_text

    if finished.candidates:
        print_table(
            finished.candidates,
            {
                "separation [arcsec]": lambda c: f"{c['separation_arcsec']:.3f}",
                "PA [degree]": lambda c: f"{c['pa_deg']:.2f}",
                "S/N": lambda c: f"{c['snr']:.1f}",
                "false alarms in the image": lambda c: chance_text(c["false_alarms"]),
                "kind": lambda c: c["kind"],
                "notes": lambda c: c["notes"],
            },
            numbered="candidate",
        )
    elif finished.candidates is not None:
        click.echo("The search found no candidate.")
    if finished.unsearched:
        click.echo(f"No candidates: {finished.unsearched}")
    if finished.companions:
        print_table(
            finished.companions,
            {
                "separation [arcsec]": lambda c: _pair(c["separation_arcsec"], 1.0, ".4f"),
                "PA [degree]": lambda c: _pair(c["pa_deg"], 1.0, ".2f"),
                "flux density [microjansky]": lambda c: _pair(c["jy"], 1e6, ".3g"),
                "S/N": lambda c: f"{c['snr']:.1f}",
            },
            numbered="measured",
        )


def _pair(measured: Mapping[str, float], scale: float, form: str) -> str:
    return f"{scale * measured['value']:{form}} +- {scale * measured['err']:{form}}"


def limit_at(limits: Sequence[Sequence[float]], separation_arcsec: float, /) -> float | None:
    """Return the contrast limit nearest to a separation; None beyond those that were measured."""
    known = [(r, limit) for r, limit in limits if limit is not None and math.isfinite(limit)]
    if not known or not known[0][0] <= separation_arcsec <= known[-1][0]:
        return None
    return min(known, key=lambda pair: abs(pair[0] - separation_arcsec))[1]


def _limit(limits: Sequence[Sequence[float]], separation_arcsec: float) -> str:
    limit = limit_at(limits, separation_arcsec)
    return "" if limit is None else f"{limit:.1e}"


def print_survey(finished: Sequence[Finished], output_dir: str, /) -> None:
    """Print one line for each association."""
    from lyot.files.results import SURVEY_SUMMARY

    def _mean(each: Finished, name: str) -> str:
        values = [r[name] for r in each.summary]
        return f"{sum(values) / len(values):.3g}" if values else ""

    def _candidates(each: Finished) -> str:
        places = [
            f"{c['separation_arcsec']:.2f}″ {c['pa_deg']:.1f}°" for c in each.candidates or ()
        ]
        more = f" and {len(places) - 2} more" if len(places) > 2 else ""
        if each.candidates is None:
            return "not searched" if each.unsearched else ""
        return ", ".join(places[:2]) + more or "none"

    print_table(
        finished,
        {
            "product": lambda each: each.product or each.association,
            "state": lambda each: each.state,
            "exposures": lambda each: str(len(each.summary) or ""),
            "references": lambda each: ", ".join(
                sorted({str(r["references"]) for r in each.summary})
            ),
            "rms before": lambda each: _mean(each, "rms_before"),
            "rms after": lambda each: _mean(each, "rms_after"),
            "candidates": _candidates,
            "limit at 1 arcsec": lambda each: _limit(each.limits, 1.0),
            "time": lambda each: f"{each.seconds:.1f} s" if each.seconds else "",
            "": lambda each: each.message,
        },
    )
    click.echo(f"The products are in {output_dir}; {SURVEY_SUMMARY} there lists the associations.")


def print_comparison(compared: Sequence[dict[str, Any]], /) -> None:
    """Print the modes of each target filter by filter, and its companions at one place in all."""
    for target in compared:
        companions = target["companions"]
        click.echo(f"\n{target['target']}, filter by filter:")

        def _in_mode(companion: dict[str, Any]) -> Callable[[dict[str, Any]], str]:
            of_mode = {each["product"]: each for each in companion["modes"]}

            def _text(mode: dict[str, Any]) -> str:
                each = of_mode.get(mode["product"])
                if each is None:
                    return "not on the frames"
                if each["magnitude"]["value"] is None:
                    limit = each["magnitude_limit"]
                    return "" if limit is None else f"> {limit:.2f} mag"
                return f"{_pair(each['magnitude'], 1.0, '.2f')} mag"

            return _text

        print_table(
            target["modes"],
            {
                "mode": lambda m: m["mode"],
                "image": lambda m: m["image"],
                "limit at 1 arcsec": lambda m: _limit(m["limits"], 1.0),
                "candidates": lambda m: (
                    "" if m["candidates"] is None else str(len(m["candidates"]))
                ),
            }
            | {f"companion {k}": _in_mode(each) for k, each in enumerate(companions, start=1)},
        )
        if companions:
            print_table(
                companions,
                {
                    "separation [arcsec]": lambda c: _pair(c["separation_arcsec"], 1.0, ".4f"),
                    "PA [degree]": lambda c: _pair(c["pa_deg"], 1.0, ".2f"),
                    "colors [mag]": lambda c: ", ".join(
                        f"{each['name']} = {_pair(each['magnitude'], 1.0, '.2f')}"
                        for each in c["colors"]
                    ),
                },
                numbered="companion",
            )


def print_frames(rows: Sequence[dict[str, Any]], /, *extra: str, as_json: bool) -> None:
    """Print frames of a library."""

    def _column(name: str) -> Callable[[dict[str, Any]], str]:
        def _text(row: dict[str, Any]) -> str:
            value = row[name]
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            return "" if value is None else text

        return _text

    columns = {name: _column(name) for name in (*_FRAME_COLUMNS, *extra)}
    print_table(rows, columns, as_json=as_json)


def print_archive(files: Sequence[ArchiveFile], /, *, as_json: bool) -> None:
    """Print files of the archive."""
    if as_json:
        click.echo(json.dumps([asdict(each) for each in files], indent=2))
        return
    print_table(
        files,
        {
            "file": lambda f: f.name,
            "target": lambda f: f.target,
            "mode": lambda f: f.instrument,
            "MB": lambda f: f"{f.n_bytes / 1e6:.1f}",
            "": lambda f: "" if f.public else "not public",
        },
    )
    click.echo(f"{len(files)} files, {sum(f.n_bytes for f in files) / 1e9:.2f} GB")


def print_files(rows: Sequence[dict[str, str]], /, *, as_json: bool) -> None:
    """Print what files are."""
    headings = {"what": "kind", "star": "star x, y"}
    names = ("file", "what", "shape", "target", "mode", "roll", "star", "steps")
    columns = {headings.get(name, name): itemgetter(name) for name in names}
    print_table(rows, columns, as_json=as_json)


def print_limits(limits: Limits, /) -> None:
    """Print the best limit at each separation."""
    from lyot.analysis.statistic import chance_text

    curve, masses = limits

    def _best(array: Array, form: str, otherwise: str = "") -> Callable[[int], str]:
        def _text(j: int) -> str:
            untested = math.isnan(curve.tau[j])
            return otherwise if untested else format(array[int(curve.best[j]), j], form)

        return _text

    def _normality(j: int) -> str:
        return chance_text(float(curve.normality[int(curve.best[j]), j]))

    def _mass(j: int) -> str:
        assert masses is not None
        value = float(masses.limit_mjup[int(curve.best[j]), j])
        lowest, highest = float(masses.mass_mjup[0]), float(masses.mass_mjup[-1])
        if math.isnan(value):
            return "" if math.isnan(curve.tau[j]) else f"> {highest:.3g}"
        return f"< {lowest:.3g}" if value <= lowest else f"{value:.3g}"

    print_table(
        range(len(curve.separation_arcsec)),
        {
            "separation [arcsec]": lambda j: f"{curve.separation_arcsec[j]:.2f}",
            "modes": lambda j: str(curve.n_modes[int(curve.best[j])]),
            "uncorrected": _best(curve.raw, ".2e", "too few positions"),
            "for throughput": _best(curve.corrected, ".2e"),
            "contrast limit": _best(curve.calibrated, ".2e"),
            "throughput": lambda j: f"{curve.throughput[int(curve.best[j]), j]:.2f}",
            "transmission": lambda j: f"{curve.transmission[j]:.2f}",
            "positions": lambda j: str(int(curve.n_positions[j])),
            "threshold / noise": lambda j: _shown(float(curve.tau[j]), ".2f"),
            "p if noise is Gaussian": _normality,
        }
        | ({} if masses is None else {"mass [Jupiter masses]": _mass}),
    )
    for sentence in curve.caveats:
        click.echo(sentence)


def print_candidates(found: Detection, /) -> None:
    """Print the candidates of a search."""
    from lyot.analysis.statistic import chance_text

    print_table(
        found.candidates,
        {
            "separation [arcsec]": lambda c: f"{c.separation_arcsec:.3f}",
            "PA [degree]": lambda c: f"{c.pa_deg:.2f}",
            "S/N": lambda c: f"{c.snr:.1f}",
            "false alarms in the image": lambda c: chance_text(c.false_alarms),
            "contrast": lambda c: _shown(c.contrast, ".2e"),
            "kind": lambda c: c.kind,
            "S/N without the most influential reference star": lambda c: (
                "" if math.isnan(c.jackknife_snr) else f"{c.jackknife_snr:.1f} ({c.key_reference})"
            ),
            "notes": lambda c: "; ".join(filter(None, ("known" if c.is_known else "", c.notes))),
        },
        numbered="candidate",
    )
    click.echo(f"{found.n_places:.0f} independent places were tested.")
    if not found.candidates:
        click.echo(f"No candidate above the threshold (FPF = {found.statistic.fpf:.3g}).")


def print_companions(fit: CompanionFit, /) -> None:
    """Print the companions that were fitted."""

    def _with_error(measured: Measured, form: str, error_form: str) -> str:
        if math.isnan(measured.value):
            return ""
        return f"{measured.value:{form}} +- {measured.err:{error_form}}"

    print_table(
        fit.companions,
        {
            "separation [arcsec]": lambda c: _with_error(c.separation_arcsec, ".4f", ".4f"),
            "PA [degree]": lambda c: _with_error(c.pa_deg, ".2f", ".2f"),
            "contrast": lambda c: _with_error(c.contrast, ".3e", ".1e"),
            "magnitude": lambda c: _with_error(c.magnitude, ".2f", ".2f"),
            "S/N": lambda c: f"{c.snr:.1f}",
            "bias / error": lambda c: _shown(c.bias.flux / c.flux.err, "+.2f"),
            "chi-square / pixel": lambda c: f"{c.chi2 / c.n_data:.2f}",
        },
        numbered="companion",
    )
    for number, c in enumerate(fit.companions, start=1):
        click.echo(f"\nErrors of companion {number}, 1 sigma:")
        terms = [*c.budget, ("all", c.budget.total)]
        rows = [(n, t) for n, t in terms if any((t.separation_arcsec, t.pa_deg, t.flux))]
        print_table(
            rows,
            {
                "cause": lambda row: row[0],
                "separation [mas]": lambda row: f"{1e3 * row[1].separation_arcsec:.1f}",
                "PA [degree]": lambda row: f"{row[1].pa_deg:.3f}",
                "flux [%]": lambda row: f"{100.0 * row[1].flux:.1f}",
            },
        )
    for warning in fit.warnings:
        click.echo(warning)

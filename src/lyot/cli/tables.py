"""Tables on standard output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lyot.analysis.companion import CompanionFit
    from lyot.analysis.contrast import ContrastCurve
    from lyot.analysis.detection import Detection
    from lyot.survey import Finished

MAX_COLUMNS = 2000
"""Width of a table that is not printed on a terminal; rows are only as long as they need."""

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


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], /) -> None:
    """Print a table that fits the terminal; in a file no row is broken."""
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
        console = Console(width=MAX_COLUMNS)
    console.print(table)


def _shown(value: float, form: str) -> str:
    """Format a number; nothing where there is none."""
    return "" if math.isnan(value) else format(value, form)


def print_run(finished: Finished, /) -> None:
    """Print the exposures of one reduction."""
    print_table(
        [
            "exposure",
            "integrations",
            "references",
            "shift [pixel]",
            "modes",
            "rms before",
            "rms after",
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
            for r in finished.summary
        ],
    )
    if finished.state == "unchanged":
        click.echo("The products are up to date; --rerun reduces the association again.")
    else:
        click.echo(f"{finished.seconds:.1f} s")


def print_survey(finished: Sequence[Finished], output_dir: str, /) -> None:
    """Print one line for each association."""
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
    print_table(
        ["product", "state", "exposures", "references", "rms before", "rms after", "time", ""], rows
    )
    click.echo(f"The products are in {output_dir}; survey.json there lists the associations.")


def print_frames(rows: Sequence[dict[str, Any]], /, *extra: str) -> None:
    """Print frames of a library."""

    def _text(value: Any) -> str:
        return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    columns = [*_FRAME_COLUMNS, *extra]
    print_table(columns, [[_text(row[name]) for name in columns] for row in rows])


def print_files(rows: Sequence[dict[str, str]], /) -> None:
    """Print what files are."""
    names = {
        "file": "file",
        "what": "kind",
        "shape": "shape",
        "target": "target",
        "mode": "mode",
        "roll": "roll",
        "star": "star x, y",
        "steps": "steps",
    }
    print_table(list(names.values()), [[row[name] for name in names] for row in rows])


def print_limits(curve: ContrastCurve, /) -> None:
    """Print the best limit at each separation."""
    rows = []
    for j, separation in enumerate(curve.separation_arcsec):
        t = int(curve.best[j])
        tested = not math.isnan(curve.tau[j])
        normality = curve.normality[t, j]
        rows.append(
            [
                f"{separation:.2f}",
                str(curve.n_modes[t]),
                f"{curve.raw[t, j]:.2e}" if tested else "too few positions",
                f"{curve.corrected[t, j]:.2e}" if tested else "",
                f"{curve.calibrated[t, j]:.2e}" if tested else "",
                f"{curve.throughput[t, j]:.2f}",
                f"{curve.transmission[j]:.2f}",
                str(int(curve.n_positions[j])),
                f"{curve.tau[j]:.2f}" if tested else "",
                f"{normality:.2g}" if normality >= 0 else "",
            ]
        )
    print_table(
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


def print_candidates(found: Detection, /) -> None:
    """Print the candidates of a search."""
    print_table(
        [
            "candidate",
            "separation [arcsec]",
            "PA [degree]",
            "S/N",
            "false alarms in the image",
            "contrast",
            "S/N without the most influential reference star",
            "known",
        ],
        [
            [
                str(number),
                f"{c.separation_arcsec:.3f}",
                f"{c.pa_deg:.2f}",
                f"{c.snr:.1f}",
                f"{c.false_alarms:.1e}",
                _shown(c.contrast, ".2e"),
                "" if math.isnan(c.jackknife_snr) else f"{c.jackknife_snr:.1f} ({c.key_reference})",
                "yes" if c.is_known else "",
            ]
            for number, c in enumerate(found.candidates, start=1)
        ],
    )
    if not found.candidates:
        click.echo(f"No candidate above the threshold (FPF = {found.statistic.fpf:.3g}).")


def print_companions(fit: CompanionFit, /) -> None:
    """Print the companions that were fitted."""
    print_table(
        [
            "companion",
            "separation [arcsec]",
            "PA [degree]",
            "contrast",
            "magnitude",
            "S/N",
            "bias / error",
        ],
        [
            [
                str(number),
                f"{c.separation_arcsec.value:.4f} +- {c.separation_arcsec.err:.4f}",
                f"{c.pa_deg.value:.2f} +- {c.pa_deg.err:.2f}",
                ""
                if math.isnan(c.contrast.value)
                else f"{c.contrast.value:.3e} +- {c.contrast.err:.1e}",
                _shown(c.magnitude, ".2f"),
                f"{c.snr:.1f}",
                _shown(c.bias.flux / c.flux.err, "+.2f"),
            ]
            for number, c in enumerate(fit.companions, start=1)
        ],
    )

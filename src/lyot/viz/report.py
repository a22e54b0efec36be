"""A report of a reduction: one HTML file that holds all it shows."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from lyot._version import __version__
from lyot.analysis.contrast import ContrastCurve
from lyot.models.products import written_whole
from lyot.models.views import View, read_view
from lyot.viz import analysis, figures

mpl.rcParams["axes.unicode_minus"] = True

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --paper: #ffffff; --line: #c9d0da;
  --soft: #5b6675 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7ebf1; --paper: #14181f; --line: #3a4350; --soft: #a4afbe } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p.lead { color: var(--soft); margin-top: .2rem }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line) }
.wide { overflow-x: auto } code { font-size: .9em }
"""


def write_report(
    products: list[str],
    folder: str | Path,
    summary: list[dict[str, Any]],
    /,
    *,
    limits: ContrastCurve | None = None,
) -> str:
    """Write the report of a run.

    Parameters
    ----------
    products : list of str
        The products of the run.
    folder : path
        Where the report goes.
    summary : list of dict
        A line for each science exposure, as the pipeline collects them.
    limits : ContrastCurve, optional
        Contrast limits, where the brightness of the star is known.

    Returns
    -------
    str
        Path of the report, ``<product>_report.html``.
    """
    views = {
        p: read_view(p)
        for p in products
        if p.endswith(("_i2d.fits", "_psfsub.fits", "_contrast.fits"))
    }
    images = [v for p, v in views.items() if p.endswith("_i2d.fits")]
    first = images[0]
    name = first.path.name.removesuffix("_i2d.fits")
    parts = [_head(first, name)]
    for view in images:
        parts.append(
            _section(
                "Combined image",
                _picture(
                    _sky_figure(view),
                    "Combined image and signal-to-noise ratio, with the star as a cross",
                ),
            )
        )
    parts += [
        _section(
            f"Before and after: {view.info.name}",
            _picture(figure, "One integration before subtraction, after it, and the mean of all"),
        )
        for view, figure in _subtractions(views)
    ]
    curves = [v for p, v in views.items() if p.endswith("_contrast.fits")]
    if curves:
        parts.append(
            _section("Noise", _picture(_curve_figure(curves, first), "Scatter against separation"))
        )
    if limits is not None:
        parts.append(_section("Contrast limits", _limits(limits)))
    parts.append(_section("How it was made", _summary_table(summary) + _provenance(first)))
    text = (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(name)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )
    path = Path(folder) / f"{name}_report.html"
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return str(path)


def _limits(curve: ContrastCurve) -> str:
    """The curve with its throughput, and what it rests on."""
    figure = Figure(figsize=(7.2, 7.0), layout="constrained", dpi=110)
    upper, lower = figure.subplots(2, 1, height_ratios=(2.0, 1.0))
    analysis.contrast(upper, curve)
    analysis.throughput(lower, curve)
    names = {"star": "Star", "psf": "Off-axis PSF", "transmission": "Transmission of the mask"}
    facts = "; ".join(f"{text}: {curve.settings[name]}" for name, text in names.items())
    return (
        _picture(figure, "Contrast limits and throughput against separation")
        + f"<p class='lead'>{html.escape(facts)}.</p>"
    )


def _head(view: View, name: str) -> str:
    what = " ".join(
        p
        for p in (view.info.target, view.info.instrument, view.info.filter, view.info.coronagraph)
        if p
    )
    return f"<h1>{html.escape(what)}</h1><p class='lead'>{html.escape(name)}</p>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _picture(figure: Figure, text: str) -> str:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    coded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<img alt='{html.escape(text)}' src='data:image/png;base64,{coded}'>"


def before_after_figure(before: View, after: View, /) -> Figure:
    """Draw an exposure before and after subtraction.

    Parameters
    ----------
    before : View
        The exposure.
    after : View
        The subtracted exposure.

    Returns
    -------
    Figure
        Two panels, each with its own stretch.
    """
    figure = Figure(figsize=(10.5, 4.4), layout="constrained", dpi=110)
    axes = figure.subplots(1, 2)
    for ax, view, title in (
        (axes[0], before, "before: one integration"),
        (axes[1], after, "after: mean of the integrations"),
    ):
        data = np.asarray(view.data, dtype=float)
        frame = data[0] if view is before else _mean(data)
        figures.image(
            ax,
            frame,
            title=title,
            star=after.star,
            pixel_scale_arcsec=view.info.pixel_scale_arcsec,
            pa_y_deg=after.pa_y_deg,
        )
    return figure


def _mean(cube: Any) -> Any:
    good = np.isfinite(cube)
    count = good.sum(axis=0)
    return np.where(good, cube, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)


def _sky_figure(view: View) -> Figure:
    figure = Figure(figsize=(10.5, 4.6), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    data, err = np.asarray(view.data, float), np.asarray(view.err, float)
    scale = view.info.pixel_scale_arcsec
    figures.image(
        left,
        data,
        title="surface brightness",
        star=view.star,
        pixel_scale_arcsec=scale,
        pa_y_deg=view.pa_y_deg,
    )
    figures.image(
        right,
        data / err,
        title="SNR = SCI / ERR",
        star=view.star,
        unit="SNR",
        pixel_scale_arcsec=scale,
        pa_y_deg=view.pa_y_deg,
        norm=Normalize(-10, 10),
        cmap=figures.DIVERGING,
    )
    return figure


def _subtractions(views: dict[str, View]) -> list[tuple[View, Figure]]:
    made = []
    for path, after in views.items():
        if not path.endswith("_psfsub.fits"):
            continue
        before = Path(path.replace("_psfsub.fits", "_crfints.fits"))
        if before.is_file():
            made.append((after, before_after_figure(read_view(before), after)))
    return made


def _curve_figure(curves: list[View], sky: View) -> Figure:
    figure = Figure(figsize=(7.0, 4.0), layout="constrained", dpi=110)
    ax = figure.subplots()
    for view in curves:
        columns = list(view.table.values())
        figures.noise_curve(
            ax, columns[0] * sky.info.pixel_scale_arcsec, columns[1], label=view.path.name
        )
    ax.set_title(
        "combined image: scatter in annuli about the star, disc and companions included",
        fontsize=10,
    )
    return figure


def _table(header: list[str], rows: list[list[str]]) -> str:
    def cells(tag: str, texts: list[str]) -> str:
        return "".join(f"<{tag}>{html.escape(t)}</{tag}>" for t in texts)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<div class='wide'><table><tr>{cells('th', header)}</tr>{body}</table></div>"


def _summary_table(summary: list[dict[str, Any]]) -> str:
    header = [
        "exposure",
        "integrations",
        "references",
        "median shift [px]",
        "largest [px]",
        "modes",
        "rms before",
        "rms after",
        "star x, y [px]",
        "from",
    ]
    rows = [
        [
            s["exposure"],
            str(s["integrations"]),
            str(s["references"]),
            f"{s['median_shift_pix']:.3f}",
            f"{s['largest_shift_pix']:.3f}",
            str(s["n_kept"]),
            f"{s['rms_before']:.3g}",
            f"{s['rms_after']:.3g}",
            f"{s['star']['x']:.2f}, {s['star']['y']:.2f}",
            s["star"]["origin"],
        ]
        for s in summary
    ]
    return _table(header, rows)


def _provenance(view: View) -> str:
    steps = view.branch.get("steps", {})
    made = steps.get("association", {})
    lines = [["lyot", __version__], ["association", str(made.get("table", ""))]]
    lines += [["input", f"{n}  sha256 {d[:16]}…"] for n, d in made.get("sha256", {}).items()]
    return _table(["what", "value"], lines)

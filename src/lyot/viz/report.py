"""The report of a run: one HTML file, made of what lies in its folder."""

from __future__ import annotations

import base64
import html
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from lyot._version import __version__
from lyot.algorithms.statistics import finite_mean
from lyot.analysis.contrast import ContrastCurve
from lyot.errors import LyotError
from lyot.files.atomic import atomic_write
from lyot.files.headers import open_fits
from lyot.files.run import exposure_root, products_of, record_of
from lyot.files.star import StarPosition
from lyot.files.view import View, read_view
from lyot.types import Array
from lyot.viz import analysis, figures
from lyot.viz.page import Frame, Page, Panel, drawing, ink, paragraph

BUDGET = 2_400_000
"""Characters that the exposures' frames may take on the page, so that it stays below 5 MB."""
MIN_REFERENCES = 5
POOR_SHIFT_PIX = 0.1
NEAR_SINGULAR = 1e-9


@dataclass(frozen=True, eq=False)
class _Run:
    """What lies in the folder of a run."""

    folder: Path
    name: str
    images: list[View]
    exposures: dict[str, list[View]]
    command: list[str]
    made: set[str] | None

    def find(self, pattern: str) -> list[Path]:
        """Products of this run."""
        return products_of(self.folder, pattern, self.made)


def write_report(
    folder: str | Path,
    /,
    *,
    command: list[str] | None = None,
    products: list[str] | None = None,
) -> str:
    """Write the report of a run, from its products and whatever analyses left beside them.

    Parameters
    ----------
    folder : path
        The folder of the run.
    command : list of str, optional
        The command that made it; by default what the run recorded of itself.
    products : list of str, optional
        Its products; by default those that it recorded, so that what an earlier run left in the
        folder is not shown with them.

    Returns
    -------
    str
        Path of the report, ``<product>_report.html``.

    Raises
    ------
    LyotError
        If the folder holds no combined image, or those of several associations.
    """
    run = _read(Path(folder), command, products)
    page = Page(f"{run.name}: report")
    with ink():
        _combined(page, run)
        _detections(page, run)
        _before_after(page, run)
        _limits(page, run)
        _companions(page, run)
        _made_of(page, run)
        _star(page, run)
        _alignment(page, run)
        _modes(page, run)
        _quality(page, run)
        _again(page, run)
    path = run.folder / f"{run.name}_report.html"
    with atomic_write(path) as temporary:
        temporary.write_text(page.render(_lead(run), warnings_of(run)), encoding="utf-8")
    return str(path)


def _read(folder: Path, command: list[str] | None, products: list[str] | None) -> _Run:
    record = record_of(folder)
    names = record.get("products") if products is None else products
    mine = None if names is None else {Path(p).name for p in names}
    images = products_of(folder, "*_i2d.fits", mine)
    if not images:
        raise LyotError(f"{folder} holds no combined image (*_i2d.fits); run `lyot run` first.")
    views = [read_view(path) for path in images]
    names = {v.branch.get("steps", {}).get("association", {}).get("product", "") for v in views}
    if len(names) > 1:
        raise LyotError(
            f"{folder} holds products of {len(names)} associations; give each a folder of its own."
        )
    name = names.pop() or images[0].name.removesuffix("_i2d.fits")
    exposures: dict[str, list[View]] = {}
    for path in products_of(folder, "*_psfsub.fits", mine):
        exposures.setdefault(exposure_root(path), []).append(read_view(path))
    return _Run(folder, name, views, exposures, command or record.get("command") or [], mine)


def _n_modes(view: View) -> int:
    klip = view.branch.get("steps", {}).get("klip", {})
    if "n_modes" in klip:
        return int(klip["n_modes"])
    made: dict[str, Any] = next(iter(view.branch.get("exposures", {}).values()), {})
    return int(made.get("n_modes", 0))


def _modes_text(view: View) -> str:
    n = _n_modes(view)
    return f"{n} mode" if n == 1 else f"{n} modes"


def _lead(run: _Run) -> str:
    info = run.images[0].info
    what = " ".join(p for p in (info.target, info.instrument, info.filter, info.coronagraph) if p)
    first = next(iter(run.exposures.values()), [])
    rows = []
    if first:
        klip = first[0].branch["steps"]["klip"]
        n_ref = len(first[0].branch["steps"]["align_psfs"].get("ref_targets", ()))
        method = klip["recipe"].get("method", "klip")
        rows.append(
            f"{len(run.exposures)} science exposure(s), {n_ref} reference frames, method {method}"
        )
    return (
        f"<h1>{html.escape(what or run.name)}</h1>"
        f"<p class='soft'>{html.escape(run.name)}. {html.escape('; '.join(rows))}. "
        f"lyot {__version__}.</p>"
    )


def warnings_of(run: _Run) -> list[str]:
    """Return what the reader of a report must know first.

    Parameters
    ----------
    run : _Run
        The run.

    Returns
    -------
    list of str
        Sentences; none where nothing is wrong.
    """
    found: dict[str, None] = {}
    for root, views in run.exposures.items():
        steps = views[-1].branch["steps"]
        align, klip = steps["align_psfs"], steps["klip"]
        n_ref = np.shape(align["scale"])[-1]
        if n_ref < MIN_REFERENCES:
            found[f"Only {n_ref} reference frames: the star is not modelled well."] = None
        failed = int(np.sum(np.asarray(align["converged"]) == 0))
        if failed:
            found[
                f"{failed} alignments to {root} did not converge, or met the bound of the shift."
            ] = None
        error = np.sqrt(np.asarray(align["shift_covariance"])[..., [0, 1], [0, 1]])
        if np.nanmedian(error) > POOR_SHIFT_PIX:
            found[
                f"Poor alignment of {root}: the median error of the shifts is "
                f"{np.nanmedian(error):.2f} pixel."
            ] = None
        values = np.atleast_2d(klip["eigenvalues"])
        kept = values[:, : int(klip["n_kept"])]
        kept = np.where(kept > 0, kept, np.nan)
        if kept.size and np.nanmin(kept / kept[:, :1]) < NEAR_SINGULAR:
            found[
                f"The references of {root} are nearly dependent: the last mode holds "
                f"{np.nanmin(kept / kept[:, :1]):.0e} of the first."
            ] = None
        for doubt in align.get("doubts", ()):
            star = f" ({doubt['target']})" if doubt["target"] else ""
            found[f"Reference {doubt['reference'] + 1}{star}: {doubt['reason']}."] = None
        if align.get("weight") == "built in":
            found[
                "No PSFMASK reference file was given: the weight of the alignment was built from "
                "the coronagraph and the star."
            ] = None
        origin = (views[-1].star or StarPosition(0, 0)).origin
        if origin == "crpix":
            found["The star was not measured: its position is that of the header."] = None
        if align.get("note"):
            found[str(align["note"])] = None
    return list(found)


def _combined(page: Page, run: _Run) -> None:
    frames, names = [], []
    main = max(range(len(run.images)), key=lambda k: _n_modes(run.images[k]))
    for number, view in enumerate(run.images):
        sci, err = np.asarray(view.data, float), np.asarray(view.err, float)
        suffix = f", {_modes_text(view)}" if len(run.images) > 1 else ""
        with np.errstate(invalid="ignore", divide="ignore"):
            snr = np.where(err > 0, sci / err, np.nan)
        # Of the other numbers of modes the surroundings of the star are enough.
        whole = number == main
        for data, text, unit, limits in (
            (sci, "surface brightness", "MJy/sr", None),
            (snr, "SCI / ERR", "", (-5.0, 20.0)),
        ):
            frames.append(
                _cut(view, data, text + suffix, unit, limits=limits, cut=not whole, exact=whole)
            )
        names.append(_modes_text(view))
    axes = [("modes", names), ("shown", ["surface brightness", "SCI / ERR"])]
    panel = Panel("Combined image", axes, frames, list(range(len(frames))), start=(main, 0))
    page.section(
        "Combined image",
        "<div class='grid'>",
        page.viewer(
            panel,
            "All integrations of all rolls on one grid of the sky. The cross is the star. ERR "
            "holds the noise of photons, detector and references; residual speckles are not in it.",
        ),
        "<div>",
        _summary(page, run),
        "</div></div>",
    )


def _summary(page: Page, run: _Run) -> str:
    rows = []
    for root, views in run.exposures.items():
        view = max(views, key=_n_modes)
        klip, align = view.branch["steps"]["klip"], view.branch["steps"]["align_psfs"]
        shift = np.hypot(*np.moveaxis(np.asarray(align["shift_yx"]), -1, 0))
        rows += [
            [root, ""],
            ["integrations, references", f"{shift.shape[0]}, {shift.shape[1]}"],
            ["modes", str(int(klip["n_kept"]))],
            [
                "rms before, after [MJy/sr]",
                f"{np.nanmean(klip['rms_before']):.3g}, {np.nanmean(klip['rms_after']):.3g}",
            ],
            [
                "shift of references, median, largest [pixel]",
                f"{np.median(shift):.3f}, {np.max(shift):.3f}",
            ],
        ]
    return page.table(["exposure", ""], rows, caption="Summary", download=False)


def _table_of(path: Path) -> Table | None:
    return Table.read(path) if path.is_file() else None


def _detections(page: Page, run: _Run) -> None:
    path = run.folder / f"{run.name}_detection.fits"
    table = _table_of(run.folder / f"{run.name}_candidates.ecsv")
    if table is None or not path.is_file():
        page.section(
            "Candidates",
            paragraph("The run was not searched for companions: lyot detect RUN does it."),
        )
        return
    with open_fits(path, memmap=False) as hdus:
        maps = {name: np.asarray(hdus[name].data, float) for name in ("SNR", "STIM")}
        scale = float(hdus["SNR"].header["CDELT2"])
    middle = maps["SNR"].shape[0] // 2
    star = StarPosition(float(middle), float(middle), origin="measured")
    marks = []
    for number, row in enumerate(table, start=1):
        r, pa = float(row["separation"]) / scale, np.radians(float(row["position_angle"]))
        x, y = middle - r * np.sin(pa), middle + r * np.cos(pa)
        marks.append({"x": x, "y": y, "r": 4.0, "text": str(number)})
    frames = [
        Frame(text, maps[name], "", star, 0.0, scale, limits=limits, marks=marks, exact=False)
        for name, text, limits in (
            ("SNR", "S/N of a point source", (-5.0, 10.0)),
            ("STIM", "STIM", (0.0, 3.0)),
        )
    ]
    panel = Panel("Signal to noise", [("shown", [f.name for f in frames])], frames, [0, 1])
    header = ["", "separation [arcsec]", "PA [deg]", "S/N", "false alarms on the image"]
    header += ["contrast", "S/N without one star", "known"]
    rows = [
        [
            str(number),
            _value(row["separation"], ".3f"),
            _value(row["position_angle"], ".2f"),
            _value(row["snr"], ".1f"),
            _value(row["expected_false_alarms"], ".1e"),
            _value(row["contrast"], ".2e"),
            _rests_on(row),
            "yes" if row["known"] else "",
        ]
        for number, row in enumerate(table, start=1)
    ]
    nothing = "" if rows else paragraph("No place stands out at this false-positive fraction.")
    page.section(
        "Candidates",
        "<div class='grid'>",
        page.viewer(
            panel,
            "Each place against the others at its separation (Mawet et al. 2014); north is up. "
            "Circles are the candidates of the table.",
        ),
        "<div>",
        page.table(header, rows, caption="Candidates"),
        nothing,
        "</div></div>",
    )


def _rests_on(row: Any) -> str:
    value = float(row["jackknife_snr"])
    return f"{value:.1f} ({row['key_reference']})" if np.isfinite(value) else ""


def _value(number: Any, form: str) -> Any:
    """A number as it is shown, and in full for the download."""
    value = float(number)
    return (format(value, form), repr(value)) if np.isfinite(value) else ""


def _before_after(page: Page, run: _Run) -> None:
    bodies = []
    share = BUDGET // max(len(run.exposures), 1)
    for root, views in run.exposures.items():
        flagged = run.folder / f"{root}_crfints.fits"
        before = read_view(flagged) if flagged.is_file() else None
        panel = _exposure_panel(root, before, views, share)
        klip = views[-1].branch["steps"]["klip"]
        rms = (np.nanmean(klip["rms_before"]), np.nanmean(klip["rms_after"]))
        bodies.append(
            page.viewer(
                panel,
                f"Roll {views[-1].pa_y_deg or 0.0:.1f} degrees (position angle of y). The rms of "
                f"the frame goes from {rms[0]:.3g} to {rms[1]:.3g} MJy/sr.",
            )
        )
    page.section("Before and after", "<div class='grid'>", *bodies, "</div>" if bodies else "")


def _exposure_panel(root: str, before: View | None, views: list[View], share: int) -> Panel:
    """Before, and after with each number of modes; the mean, and as many integrations as fit."""
    last = views[-1]
    assert last.data is not None
    n_int = len(last.data)
    sources: list[tuple[str, View]] = [(f"after, {_modes_text(v)}", v) for v in views]
    if before is not None:
        sources.insert(0, ("before", before))
    averages = [finite_mean(np.asarray(v.data, float), axis=0) for _, v in sources]
    names = [f"{text}, mean" for text, _ in sources]
    means = [_cut(last, a, n, cut=False) for a, n in zip(averages, names, strict=True)]
    if sum(frame.size for frame in means) > share:
        means = [_cut(last, a, n, cut=True) for a, n in zip(averages, names, strict=True)]
    left = share - sum(frame.size for frame in means)
    one = _cut(last, averages[0], "", cut=True)
    n_shown = int(min(n_int, max(left // max(one.size * len(sources), 1), 0)))
    n_shown = n_shown if n_int > 1 else 0
    frames: list[Frame] = []
    order: list[int] = []
    for (text, view), mean in zip(sources, means, strict=True):
        order.append(len(frames))
        frames.append(mean)
        for i in range(n_shown):
            assert view.data is not None
            order.append(len(frames))
            data = np.asarray(view.data[i], float)
            frames.append(_cut(last, data, f"{text}, integration {i + 1}", cut=True))
    axes = [
        ("shown", [text for text, _ in sources]),
        ("integration", ["mean", *(str(i + 1) for i in range(n_shown))]),
    ]
    start = max(range(len(views)), key=lambda k: _n_modes(views[k])) + (before is not None)
    return Panel(root, axes, frames, order, start=(start, 0))


def _cut(
    like: View,
    data: Array,
    name: str,
    unit: str = "MJy/sr",
    *,
    cut: bool,
    exact: bool = False,
    limits: tuple[float, float] | None = None,
) -> Frame:
    """A frame with the star of a product; cut to its surroundings, where there are many."""
    star, scale = like.star, like.info.pixel_scale_arcsec
    origin = (0, 0)
    if cut and star is not None:
        half = round(SHOWN_ARCSEC / scale)
        x0, y0 = max(round(star.x) - half, 0), max(round(star.y) - half, 0)
        data = data[y0 : round(star.y) + half + 1, x0 : round(star.x) + half + 1]
        origin = (x0, y0)
    return Frame(name, data, unit, star, like.pa_y_deg, scale, origin, limits, exact)


SHOWN_ARCSEC = 4.0
"""Where there are many, frames are shown within this offset from the star [arcsec]."""


def _png(path: Path, title: str) -> str:
    """An image that an analysis left."""
    coded = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f"<figure><img alt='{html.escape(title)}' style='max-width:100%;background:#fff' "
        f"src='data:image/png;base64,{coded}'></figure>"
    )


def _limits(page: Page, run: _Run) -> None:
    bodies = []
    table = _table_of(run.folder / f"{run.name}_limits.ecsv")
    if table is not None:
        figure = Figure(figsize=(7.2, 6.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(2.2, 1.0))
        curve = ContrastCurve.from_table(table)
        analysis.contrast(upper, curve)
        analysis.throughput(lower, curve)
        settings = curve.settings
        rests = (
            f"Star: {settings.get('star', '')}; Off-axis PSF: {settings.get('psf', '')}; "
            f"transmission of the mask: {settings.get('transmission', '')}."
        )
        bodies.append(drawing(figure, "Contrast limits and throughput", rests))
        columns = ["separation", "n_modes", "contrast_raw", "contrast_corrected", "contrast"]
        columns += ["throughput", "transmission", "n_positions", "tau"]
        rows = [[_plain(row[c]) for c in columns] for row in table]
        bodies.append(
            "<details><summary>Table of limits</summary>"
            + page.table(columns, rows, caption="Contrast limits")
            + "</details>"
        )
    curves = run.find("*_contrast.fits")
    if curves:
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        ax = figure.subplots()
        for path in curves:
            columns_ = list(read_view(path).table.values())
            scale = run.images[0].info.pixel_scale_arcsec
            figures.noise_curve(ax, columns_[0] * scale, columns_[1], label=path.name)
        if len(curves) > 1:
            ax.legend(fontsize=8)
        caption = (
            "Scatter of the combined image in annuli two pixels wide: discs and companions are in "
            "it."
        )
        bodies.append(drawing(figure, "Scatter against separation", caption))
    if table is None:
        bodies.append(
            paragraph(
                "Contrast limits need the brightness of the star: lyot contrast RUN --star-mag M."
            )
        )
    page.section("Contrast", *bodies)


def _plain(value: Any) -> Any:
    if isinstance(value, int | np.integer):
        return str(value)
    return _value(value, ".4g")


def _companions(page: Page, run: _Run) -> None:
    table = _table_of(run.folder / f"{run.name}_companions.ecsv")
    if table is None:
        return
    rows = [
        [_plain(row[c]) if _is_number(row[c]) else str(row[c]) for c in table.colnames]
        for row in table
    ]
    header = [f"{c} [{table[c].unit}]" if table[c].unit is not None else c for c in table.colnames]
    pictures = [run.folder / f"{run.name}_companions.png"]
    pictures += sorted(run.folder.glob(f"{run.name}_posterior*.png"))
    page.section(
        "Companions",
        page.table(header, rows, caption="Companions"),
        "<div class='grid'>",
        *(_png(p, p.stem.replace(run.name, "").strip("_")) for p in pictures if p.is_file()),
        "</div>",
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number)


def _made_of(page: Page, run: _Run) -> None:
    branch = run.images[0].branch.get("steps", {})
    made = branch.get("association", {})
    sums = made.get("sha256", {})
    kinds = {n: kind for kind in ("science", "psf") for n in made.get(kind, ())}
    rows = [[n, kinds.get(n, ""), (f"{d[:16]}\u2026", d)] for n, d in sums.items()]
    info = run.images[0].info
    ref_info = [
        ["association", str(made.get("table", ""))],
        ["product", run.name],
        ["instrument, filter, mask", f"{info.instrument} {info.filter} {info.coronagraph}"],
        ["rolls", ", ".join(f"{v[-1].pa_y_deg or 0.0:.2f}" for v in run.exposures.values())],
    ]
    library = next((v[-1].branch["steps"].get("library") for v in run.exposures.values()), None)
    extra = ""
    if library:
        ref_info.append(["reference library", str(library["library"])])
        rows_ = [
            [f, _value(c, ".5f")]
            for f, c in zip(library["frames"], np.asarray(library["correlation"]), strict=True)
        ]
        extra = (
            "<details><summary>Frames of the library</summary>"
            + page.table(["frame", "correlation"], rows_, caption="Frames of the library")
            + "</details>"
        )
    page.section(
        "How it was made",
        page.table(["what", "value"], ref_info, caption="Observation", download=False),
        page.table(["member", "type", "SHA-256"], rows, caption="Members"),
        extra,
    )


def _star(page: Page, run: _Run) -> None:
    rows = []
    for root, views in run.exposures.items():
        star = views[-1].star
        if star is not None:
            rows.append(
                [
                    root,
                    _value(star.x, ".3f"),
                    _value(star.x_err, ".3f"),
                    _value(star.y, ".3f"),
                    _value(star.y_err, ".3f"),
                    star.origin,
                ]
            )
    page.section(
        "Position of the star",
        page.table(
            ["exposure", "x [pixel, from 0]", "error", "y", "error", "from"],
            rows,
            caption="Star",
        ),
        paragraph(
            "The star of every exposure is put on one place of the sky, whatever the headers say.",
            soft=True,
        ),
    )


def _alignment(page: Page, run: _Run) -> None:
    bodies, rows = [], []
    for root, views in run.exposures.items():
        align = views[-1].branch["steps"]["align_psfs"]
        shift, scale = np.asarray(align["shift_yx"]), np.asarray(align["scale"])
        error = np.sqrt(np.asarray(align["shift_covariance"])[..., [0, 1], [0, 1]])
        targets = list(align.get("ref_targets", ())) or [""] * shift.shape[1]
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        figures.shifts(figure.subplots(1, 2, width_ratios=(1.3, 1.0)), shift, error)
        caption = (
            f"{root}. Left: the drift of the pointing, the mean shift of all references to each "
            f"integration. Right: each reference. Weight: {align.get('weight', 'not recorded')}."
        )
        bodies.append(drawing(figure, f"Shifts of {root}", caption))
        for k in range(shift.shape[1]):
            rows.append(
                [
                    root,
                    str(k + 1),
                    targets[k],
                    _value(shift[:, k, 1].mean(), ".4f"),
                    _value(shift[:, k, 0].mean(), ".4f"),
                    _value(np.hypot(*error[:, k].mean(axis=0)), ".4f"),
                    _value(scale[:, k].mean(), ".4g"),
                    "yes" if np.asarray(align["converged"])[:, k].all() else "no",
                ]
            )
    header = ["exposure", "reference", "star", "shift x [pixel]", "shift y", "error", "scale"]
    header += ["converged"]
    table = page.table(header, rows, caption="Alignment of the references")
    page.section(
        "Alignment",
        "<div class='grid'>",
        *bodies,
        "</div>",
        f"<details><summary>Table of shifts</summary>{table}</details>",
    )


def _modes(page: Page, run: _Run) -> None:
    bodies = []
    for root, views in run.exposures.items():
        view = views[-1]
        klip, align = view.branch["steps"]["klip"], view.branch["steps"]["align_psfs"]
        figure = Figure(figsize=(7.2, 5.6), layout="constrained")
        axes = figure.subplots(2, 1)
        figures.spectrum(
            axes[0], np.asarray(klip["eigenvalues"]), np.asarray(klip.get("residual_rms", ()))
        )
        coefs, scale = np.asarray(klip["coefficients"]), np.asarray(align["scale"])
        if coefs.shape[-1] != scale.shape[-1]:  # of components, or of the median
            scale = np.ones((1, coefs.shape[-1]))
        figures.weights(axes[1], coefs, scale, list(align.get("ref_targets", ())))
        bodies.append(
            drawing(
                figure,
                f"Modes and weights of {root}",
                f"{root}. Above: the eigenvalues of the Gram matrix, and the rms over the pixels "
                "of the fit with 0, 1, ... modes. Below: the share of each reference in the model "
                "of the star, its coefficient over its scale, averaged over zones; bars are the "
                "mean of the integrations.",
            )
        )
    page.section("Modes and references", "<div class='grid'>", *bodies, "</div>")


def _quality(page: Page, run: _Run) -> None:
    rows = []
    outlier, unusable = 16, 1
    paths = [run.folder / f"{root}_crfints.fits" for root in run.exposures]
    paths += run.find("*_psfstack.fits")
    for path in paths:
        if not path.is_file():
            continue
        with open_fits(path, memmap=False) as hdus:
            dq = np.asarray(hdus["DQ"].data).astype(np.uint32)
            n_nan = int((~np.isfinite(hdus["SCI"].data)).sum())
        rows.append(
            [
                path.name,
                str(len(dq)),
                _value(100.0 * ((dq & unusable) != 0).mean(), ".3f"),
                str(int(((dq & outlier) != 0).sum())),
                str(n_nan),
                str(int(((dq & 2) != 0).sum())),
            ]
        )
    page.section(
        "Data quality",
        page.table(
            ["product", "frames", "bad [%]", "outliers", "no value", "saturated"],
            rows,
            caption="Pixels",
        ),
        paragraph(
            "Bad pixels of the science are left out of the fit; those of a reference are predicted "
            "from the others.",
            soft=True,
        ),
    )


def _again(page: Page, run: _Run) -> None:
    recipe = run.images[0].branch.get("recipe", {})
    text = shlex.join(run.command) if run.command else "made from Python; the recipe is below"
    page.section(
        "To make it again",
        f"<pre>{html.escape(text)}</pre>",
        "<details><summary>Recipe</summary>"
        f"<pre>{html.escape(json.dumps(recipe, indent=1, default=str))}</pre></details>",
        paragraph(
            f"lyot {__version__}. The members and their checksums are listed above; every product "
            "records the same.",
            soft=True,
        ),
    )

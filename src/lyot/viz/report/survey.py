"""One page that compares the reductions of a survey, or the modes of one star."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lyot.algorithms.statistics import finite_mean
from lyot.analysis.contrast import ContrastCurve
from lyot.errors import LyotError, readable
from lyot.files.atomic import atomic_write
from lyot.files.results import SURVEY_COLORS, SURVEY_SUMMARY, read_table
from lyot.files.run import products_of
from lyot.files.view import View, read_view
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.types import Array
from lyot.viz.report import plots
from lyot.viz.report.blocks import Block, Cell, Grid, Link, Paragraph, Table, number
from lyot.viz.report.companions import BUDGET_COLUMNS, budgets, with_error
from lyot.viz.report.drawing import drawing
from lyot.viz.report.facts import modes_of
from lyot.viz.report.frames import Frame, Viewer, frame_of
from lyot.viz.report.page import fill
from lyot.viz.report.sections import CANDIDATE_COLUMNS

PAGE = "survey_report.html"
MAX_IMAGE_CHARACTERS = 1_800_000
"""Characters that all images together may take, so that the page stays below 3 MB."""
CHARACTERS_A_PIXEL = 8 / 3
SEPARATIONS_ARCSEC = (0.5, 1.0, 2.0, 5.0)
"""Where the table compares limits."""


@dataclass(frozen=True, eq=False)
class Member:
    """One reduction of a survey."""

    product: str
    entry: dict[str, Any]
    """What the summary says of it (`lyot.survey.Finished`)."""
    folder: Path
    image: View | None
    """The combined image with most modes; None where there is none."""
    candidates: Any
    limits: Any
    companions: Any
    """Tables, as of a run; None where there are none."""
    label: str = ""
    """What it is called on the page."""

    @property
    def curve(self) -> ContrastCurve | None:
        """The contrast limits."""
        return None if self.limits is None else ContrastCurve.from_table(self.limits)


Row = tuple[Member, int, Any]


def write_survey_report(folder: str | Path, /) -> str:
    """Write the page that compares the reductions of a survey, from its summary and products.

    Parameters
    ----------
    folder : path
        The folder of the survey, with its ``survey.json``.

    Returns
    -------
    str
        Path of the page, ``survey_report.html``.

    Raises
    ------
    LyotError
        If there is no summary, or it cannot be read.

    Examples
    --------
    >>> from lyot.survey import write_summary
    >>> Path("survey").mkdir()
    >>> _ = write_summary([], "survey", report=False)  # what became of each association: none here
    >>> write_survey_report("survey")
    'survey/survey_report.html'
    """
    folder = Path(folder)
    path = folder / SURVEY_SUMMARY
    if not path.is_file():
        raise LyotError(f"{folder} holds no {SURVEY_SUMMARY}: it is not the folder of a survey.")
    with readable(path, "run the survey again"):
        entries = json.loads(path.read_text(encoding="utf-8"))
        members = _labeled([_member(folder, entry) for entry in entries])
        colors = read_table(folder / SURVEY_COLORS)
        text = render(folder.resolve().name, members, colors)
    page = folder / PAGE
    with atomic_write(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return str(page)


def _member(survey: Path, entry: dict[str, Any]) -> Member:
    product = str(entry["product"] or Path(entry["association"]).name)
    own = {Path(p).name for p in entry["products"]}
    folder = survey / product
    images = list(products_of(folder, "*_i2d.fits", own)) if folder.is_dir() else []
    views = [read_view(path) for path in images]
    tables = [
        read_table(folder / f"{product}_{kind}.ecsv")
        for kind in ("candidates", "limits", "companions")
    ]
    return Member(product, entry, folder, max(views, key=modes_of, default=None), *tables)


def _labeled(members: Sequence[Member]) -> list[Member]:
    """Name members by target, filter and mask; by their products where these do not tell."""
    infos = [member.image.info if member.image else None for member in members]
    names = [
        " ".join(filter(None, (i.target, i.filter, i.coronagraph))) if i else "" for i in infos
    ]
    return [
        replace(m, label=name if name and names.count(name) == 1 else m.product)
        for m, name in zip(members, names, strict=True)
    ]


def render(name: str, members: Sequence[Member], colors: Any, /) -> str:
    """Fill the template with what compares the members."""
    done = [member for member in members if member.image is not None]
    targets = list(dict.fromkeys(m.image.info.target for m in done if m.image is not None))
    of = targets[0] if len(targets) == 1 else f"{len(targets)} targets"
    blocks: dict[str, list[Block]] = {
        "Overview": [_overview(members)],
        "Images": list(_images(done)),
        "Contrast": list(_contrast(done)),
        "Candidates": list(_candidates(done)),
        "Companions": list(_companions(done)),
        "Colors": [] if colors is None else [_colors(colors)],
    }
    failed = [m for m in members if m.entry["message"]]
    return fill(
        name=name,
        title=f"{of}: {len(members)} reductions",
        lead="What each of them shows, beside the others; each has a report of its own.",
        warnings=[f"{m.product} was not reduced: {m.entry['message']}" for m in failed],
        blocks=blocks,
    )


def _overview(members: Sequence[Member]) -> Table:
    def _report(member: Member) -> Cell:
        name = f"{member.product}_report.html"
        there = (member.folder / name).is_file()
        return Link(member.label, f"{member.folder.name}/{name}") if there else member.label

    def _mean(member: Member, name: str, form: str) -> Cell:
        values = [exposure[name] for exposure in member.entry["summary"]]
        return number(np.mean(values), form) if values else ""

    def _found(member: Member) -> str:
        found = member.entry["candidates"]
        if found is None:
            return f"not searched: {why}" if (why := member.entry["unsearched"]) else ""
        return str(len(found))

    def _limit(member: Member, separation_arcsec: float) -> Cell:
        curve = member.curve
        if curve is None:
            return ""
        r, limit = curve.separation_arcsec, curve.best_limit
        near = np.interp(separation_arcsec, r, np.log(limit), left=np.nan, right=np.nan)
        return number(np.exp(near), ".1e")

    return Table.of(
        "Reductions",
        members,
        {
            "reduction": _report,
            "exposures": lambda m: str(len(m.entry["summary"]) or ""),
            "reference frames": lambda m: _mean(m, "references", ".0f"),
            "modes": lambda m: _mean(m, "n_kept", ".0f"),
            "rms before [MJy/sr]": lambda m: _mean(m, "rms_before", ".3g"),
            "rms after [MJy/sr]": lambda m: _mean(m, "rms_after", ".3g"),
            "candidates": _found,
            **{
                f"limit at {r:g} arcsec": lambda m, r=r: _limit(m, r)  # type: ignore[misc]
                for r in SEPARATIONS_ARCSEC
            },
        },
    ).without_empty_columns()


def _images(members: Sequence[Member]) -> Iterator[Block]:
    share = MAX_IMAGE_CHARACTERS / CHARACTERS_A_PIXEL / max(len(members), 1)
    viewers = []
    for member in members:
        frame = _thumbnail(member, share)
        axes = [("image", [frame.name])]
        viewers.append(
            Viewer(member.label, axes, [frame], (0,), "", north_up=True, is_compact=True)
        )
    if viewers:
        yield Grid(viewers)
        yield Paragraph(
            "Combined images, north up. The cross marks the star, circles the candidates, numbered "
            "as in the table below."
        )


def _thumbnail(member: Member, max_pixels: float) -> Frame:
    """The combined image on pixels large enough for the page."""
    view = member.image
    assert view is not None
    assert view.data is not None
    data = np.asarray(view.data, dtype=float)
    over = max(1, int(np.ceil(np.sqrt(data.size / max_pixels))))
    scale = view.info.pixel_scale_arcsec * over
    info = replace(view.info, pixel_area_sr=(scale / ARCSEC_PER_RADIAN) ** 2)
    at = view.star
    star = at and replace(at, x=_binned_at(at.x, over), y=_binned_at(at.y, over))
    return frame_of(
        replace(view, info=info, star=star),
        None,
        _binned(data, over),
        f"pixels of {scale:.3f} arcsec",
        member.candidates,
        crop=False,
    )


def _binned_at(pixel: float, over: int) -> float:
    return (pixel + 0.5) / over - 0.5


def _binned(data: Array, over: int) -> Array:
    """Average blocks of pixels; those at the upper edges that fill no block are left out."""
    n_y, n_x = (n // over for n in data.shape)
    blocks = data[: n_y * over, : n_x * over].reshape(n_y, over, n_x, over)
    return finite_mean(blocks.transpose(1, 3, 0, 2).reshape(over**2, n_y, n_x), axis=0)


def _contrast(members: Sequence[Member]) -> Iterator[Block]:
    curves = {m.label: curve for m in members if (curve := m.curve) is not None}
    if not curves:
        return
    shown = {label: (c.separation_arcsec, c.best_limit) for label, c in curves.items()}
    caption = "Contrast that half of the position angles need to be detected; sources left out."
    drawings = [drawing(plots.compared(shown, "contrast limit"), "Contrast limits", caption)]
    masses = {}
    for member in members:
        if member.limits is not None and "mass" in member.limits.colnames:
            best = member.limits[np.asarray(member.limits["best"], bool)]
            masses[member.label] = np.asarray(best["separation"]), np.asarray(best["mass"])
    if masses:
        caption = "The same as masses, by the ages, distances and models of each reduction."
        panels = plots.compared(masses, "limit [Jupiter masses]")
        drawings.append(drawing(panels, "Limits in mass", caption))
    yield Grid(drawings)


def _rows(members: Sequence[Member], kind: str) -> list[Row]:
    """The rows of all tables of a kind, of whom and with which number there."""
    tables = [(m, table) for m in members if (table := getattr(m, kind)) is not None]
    return [(m, k, row) for m, table in tables for k, row in enumerate(table, start=1)]


def _who(number_of: str) -> dict[str, Callable[[Row], Cell]]:
    return {"reduction": lambda each: each[0].label, number_of: lambda each: str(each[1])}


def _candidates(members: Sequence[Member]) -> Iterator[Block]:
    found = _rows(members, "candidates")
    own = CANDIDATE_COLUMNS | {"notes": lambda row: str(row["notes"])}
    columns = {words: lambda each, shown=shown: shown(each[2]) for words, shown in own.items()}
    yield Table.of("Candidates", found, _who("#") | columns).without_empty_columns()
    searched = [m for m in members if m.candidates is not None]
    if searched and not found:
        yield Paragraph(f"No candidate in {len(searched)} searches.")


def _companions(members: Sequence[Member]) -> Iterator[Block]:
    names = {
        "separation [arcsec]": "separation",
        "PA [deg]": "pa",
        "flux density [Jy]": "flux_density",
        "contrast": "contrast",
        "magnitude (Vega)": "magnitude",
        "S/N": "snr",
    }
    columns = {words: lambda each, n=n: with_error(each[2], n) for words, n in names.items()}
    measured = Table.of(
        "Measured companions", _rows(members, "companions"), _who("companion") | columns
    )
    yield measured.without_empty_columns()
    rows: list[list[Cell]] = [
        [member.label, str(k), *row]
        for member in members
        if member.companions is not None
        for k, budget in enumerate(budgets(member.companions), start=1)
        for row in budget
    ]
    header = ["reduction", "companion", "cause", *BUDGET_COLUMNS.values()]
    yield Table("Error budget, 1 sigma", header, rows)


def _colors(table: Any) -> Table:
    names = {
        "target": "target",
        "companion": "companion",
        "filter": "filter",
        "separation [arcsec]": "separation",
        "PA [deg]": "pa",
        "flux density [Jy]": "flux_density",
        "S/N": "snr",
        "magnitude (Vega)": "magnitude",
        "fainter than [mag]": "magnitude_limit",
        "color": "color_name",
        "its magnitude": "color",
    }
    columns = {words: lambda row, n=n: with_error(row, n) for words, n in names.items()}
    caption = "Companions at one place in all modes of their star"
    return Table.of(caption, table, columns).without_empty_columns()

"""Parts of a page that holds all it shows: images as numbers, drawings as SVG, tables."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lyot.files.star import StarPosition
from lyot.viz.figures import DIVERGING, SEQUENTIAL, stretch

INK = "#010203"
"""Color of lines and text in drawings, which the page replaces by its own."""
COLOR_MAPS = {"inferno": SEQUENTIAL, "grey": "gray", "viridis": "viridis", "diverging": DIVERGING}


@dataclass(frozen=True, eq=False)
class Frame:
    """An image in a viewer.

    Attributes
    ----------
    name : str
        What it is, in words.
    data : ndarray, shape (n_y, n_x)
        Its values; NaN is left blank.
    unit : str
        Their unit.
    star : StarPosition or None
        The star on it.
    pa_y_deg : float or None
        Position angle of its y axis [degree].
    pixel_scale_arcsec : float
        Pixel scale [arcsec].
    origin_xy : tuple of int
        Pixel of the product that its first pixel is.
    limits : tuple of float or None
        What is black and what is white; None for the data's own.
    exact : bool
        Whether values are kept in 32 bits; else in 16, which holds three digits.
    marks : list of dict
        Circles: ``x``, ``y``, ``r`` [pixel] and ``text``.
    """

    name: str
    data: NDArray[Any]
    unit: str
    star: StarPosition | None
    pa_y_deg: float | None
    pixel_scale_arcsec: float
    origin_xy: tuple[int, int] = (0, 0)
    limits: tuple[float, float] | None = None
    exact: bool = True
    marks: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values.

        Returns
        -------
        dict
            What `report.js` reads.
        """
        data = np.asarray(self.data, dtype=np.float64)
        norm = stretch(data)
        low, high = self.limits or (float(norm.vmin or 0.0), float(norm.vmax or 1.0))
        soft = float(getattr(norm, "linear_width", 1.0))
        largest = float(np.nanmax(np.abs(data))) if np.isfinite(data).any() else 1.0
        scale = 1.0 if self.exact else max(largest / 2048.0, 1e-30)
        coded = data.astype("<f4") if self.exact else (data / scale).astype("<f2")
        star = None
        if self.star is not None:
            star = [self.star.x - self.origin_xy[0], self.star.y - self.origin_xy[1]]
        return {
            "name": self.name,
            "unit": self.unit,
            "width": data.shape[1],
            "height": data.shape[0],
            "bits": 32 if self.exact else 16,
            "scale": scale,
            "data": base64.b64encode(coded.tobytes()).decode("ascii"),
            "star": star,
            "pa_y": self.pa_y_deg,
            "arcsec": self.pixel_scale_arcsec,
            "x0": self.origin_xy[0],
            "y0": self.origin_xy[1],
            "range": [low, high],
            "soft": soft,
            "marks": self.marks,
        }

    @property
    def size(self) -> int:
        """Number of characters that its values take on the page."""
        return int(np.ceil(np.size(self.data) * (4 if self.exact else 2) * 4 / 3))


@dataclass(frozen=True, eq=False)
class Panel:
    """A viewer of frames along one axis or several.

    Attributes
    ----------
    title : str
        What it shows, in words.
    axes : list of (str, list of str)
        Name of each axis, and of each place along it.
    frames : list of Frame
        Those that differ.
    order : list of int
        Which frame stands at each place, the last axis first to vary.
    colors : str
        Color map to begin with.
    start : tuple of int
        Place along each axis to begin at; the first by default.
    """

    title: str
    axes: list[tuple[str, list[str]]]
    frames: list[Frame]
    order: list[int]
    colors: str = "inferno"
    start: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values.

        Returns
        -------
        dict
            What `report.js` reads.
        """
        return {
            "axes": [
                {"title": title, "names": names, "start": start}
                for (title, names), start in zip(
                    self.axes, self.start or (0,) * len(self.axes), strict=True
                )
            ],
            "frames": [frame.to_json() for frame in self.frames],
            "order": self.order,
            "map": self.colors,
        }


@cache
def _asset(name: str) -> str:
    return files("lyot.viz").joinpath(name).read_text(encoding="utf-8")


def _table_of_colors(name: str) -> str:
    colors = mpl.colormaps[name](np.linspace(0.0, 1.0, 256))[:, :3]
    coded = np.round(255 * colors).astype(np.uint8).tobytes()
    return base64.b64encode(coded).decode("ascii")


class Page:
    """A page put together section by section.

    Parameters
    ----------
    title : str
        Its title.
    """

    def __init__(self, title: str, /) -> None:
        """Begin an empty page."""
        self._title = title
        self._parts: list[str] = []
        self._sections: list[tuple[str, str]] = []
        self._panels: dict[str, Panel] = {}
        self._n_tables = 0

    def section(self, title: str, /, *bodies: str) -> None:
        """Add a section, with a place in the table of contents.

        Parameters
        ----------
        title : str
            Its title.
        *bodies : str
            HTML; nothing is added where all are empty.
        """
        if not any(bodies):
            return
        name = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
        self._sections.append((name, title))
        self._parts.append(
            f"<section id='{name}'><h2>{html.escape(title)}</h2>{''.join(bodies)}</section>"
        )

    def viewer(self, panel: Panel, caption: str, /) -> str:
        """Return a viewer.

        Parameters
        ----------
        panel : Panel
            What it shows.
        caption : str
            What stands below it.

        Returns
        -------
        str
            HTML.
        """
        name = f"panel{len(self._panels)}"
        self._panels[name] = panel
        title = html.escape(panel.title)
        keys = "arrow keys move the cursor, plus and minus zoom, 0 resets"
        return (
            f"<figure><div class='viewer' data-panel='{name}' role='group' aria-label='{title}'>"
            f"<h3>{title}</h3>"
            f"<canvas class='image' tabindex='0' role='img' aria-label='{title}; {keys}'></canvas>"
            "<div class='bar'><span></span><canvas aria-hidden='true'></canvas><span></span></div>"
            "<div class='controls'></div><div class='readout' role='status'>"
            "point at the image, or move the cursor with the arrow keys</div></div>"
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[Any]],
        /,
        *,
        caption: str,
        download: bool = True,
    ) -> str:
        """Return a table.

        Parameters
        ----------
        header : sequence of str
            Names of the columns.
        rows : sequence of sequence
            Texts, or pairs of a text and the value that a download gets.
        caption : str
            What it holds.
        download : bool, optional
            Whether it can be downloaded.

        Returns
        -------
        str
            HTML; nothing where there is no row.
        """
        if not rows:
            return ""
        self._n_tables += 1
        name = f"table{self._n_tables}"
        head = "".join(f"<th scope='col'>{html.escape(text)}</th>" for text in header)
        body = "".join(f"<tr>{''.join(_cell(c) for c in row)}</tr>" for row in rows)
        file = "".join(c if c.isalnum() else "_" for c in caption.lower())
        button = (
            f"<button type='button' class='download' data-table='{name}' data-name='{file}'>"
            f"download as CSV<span hidden> {html.escape(caption)}</span></button>"
            if download
            else ""
        )
        return (
            f"<div class='wide' tabindex='0' role='region' aria-label='{html.escape(caption)}'>"
            f"<table id='{name}'><caption>{html.escape(caption)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{button}"
        )

    def render(self, lead: str, warnings: Sequence[str], /) -> str:
        """Return the page.

        Parameters
        ----------
        lead : str
            HTML that stands above the table of contents.
        warnings : sequence of str
            What the reader must know first.

        Returns
        -------
        str
            One HTML document that refers to nothing outside it.
        """
        alarm = ""
        if warnings:
            items = "".join(f"<li>{html.escape(text)}</li>" for text in warnings)
            alarm = (
                "<section class='warnings' aria-label='Warnings'><h2>Before you trust it</h2>"
                f"<ul>{items}</ul></section>"
            )
        links = "".join(f"<a href='#{n}'>{html.escape(t)}</a>" for n, t in self._sections)
        data = json.dumps(
            {
                "panels": {name: panel.to_json() for name, panel in self._panels.items()},
                "maps": {name: _table_of_colors(source) for name, source in COLOR_MAPS.items()},
            },
            allow_nan=False,
        ).replace("</", "<\\/")
        return (
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width, initial-scale=1'>"
            "<link rel='icon' href='data:,'>"
            f"<title>{html.escape(self._title)}</title><style>{_asset('report.css')}</style></head>"
            f"<body><header>{lead}{alarm}<nav aria-label='Contents'>{links}</nav></header>"
            f"<main>{''.join(self._parts)}</main>"
            f"<script type='application/json' id='data'>{data}</script>"
            f"<script>{_asset('report.js')}</script></body></html>\n"
        )


def _cell(content: Any) -> str:
    if isinstance(content, tuple):
        text, value = content
        return f"<td data-value='{html.escape(str(value))}'>{html.escape(str(text))}</td>"
    return f"<td>{html.escape(str(content))}</td>"


def paragraph(text: str, /, *, soft: bool = False) -> str:
    """Return a paragraph.

    Parameters
    ----------
    text : str
        Its text.
    soft : bool, optional
        Whether it stands back.

    Returns
    -------
    str
        HTML.
    """
    kind = " class='soft'" if soft else ""
    return f"<p{kind}>{html.escape(text)}</p>"


def drawing(figure: Figure, title: str, caption: str = "", /) -> str:
    """Return a drawing as SVG, in the colors of the page.

    Parameters
    ----------
    figure : Figure
        Drawn within `ink`.
    title : str
        What it shows, for those who do not see it.
    caption : str, optional
        What stands below it.

    Returns
    -------
    str
        HTML.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    label = html.escape(title)
    text = text.replace("<svg", f"<svg role='img' aria-label='{label}'", 1)
    # Names within the drawing must not meet those of another on the page.
    mark = "".join(c for c in title.lower() if c.isalnum())
    text = text.replace('id="', f'id="{mark}-').replace("url(#", f"url(#{mark}-")
    text = text.replace('xlink:href="#', f'xlink:href="#{mark}-')
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{text}{below}</figure>"


def ink() -> Any:
    """Return the style of drawings on a page of any color.

    Returns
    -------
    context
        To draw within.
    """
    style: dict[Any, Any] = dict.fromkeys(_INKED, INK)
    style |= {
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "legend.frameon": False,
        "font.family": "sans-serif",
        "grid.color": "#8a94a3",
    }
    return mpl.rc_context(style)


_INKED = (
    "text.color",
    "axes.labelcolor",
    "axes.titlecolor",
    "axes.edgecolor",
    "xtick.color",
    "ytick.color",
)

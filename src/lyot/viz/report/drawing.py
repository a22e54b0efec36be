"""Drawings for a page of any color: SVG whose text and lines take the color of the page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.dom import minidom

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from lyot.viz.figures import GRAY
from lyot.viz.report.blocks import Drawing

INK = "#010203"
"""Color of lines and text while drawing; the page's own color takes its place."""


@contextmanager
def page_style() -> Iterator[None]:
    """Draw on a transparent ground in the ink that `drawing` replaces."""
    inked = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor")
    style: dict[Any, Any] = dict.fromkeys((*inked, "xtick.color", "ytick.color"), INK)
    style |= dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none")
    style |= {"legend.frameon": False, "font.family": "sans-serif", "grid.color": GRAY}
    with mpl.rc_context(style):
        yield


def drawing(figure: Figure, alt: str, caption: str, /) -> Drawing:
    """Make a drawing of a figure; `alt` must differ between the drawings of a page."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # What is referred to within an SVG gets its name from the salt: `alt` keeps drawings apart.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    root = minidom.parseString(buffer.getvalue()).documentElement
    assert root is not None
    for element in root.getElementsByTagName("*"):
        if element.tagName == "g" and element.hasAttribute("id"):
            element.removeAttribute("id")  # figure_1, axes_1, ...: the same in every drawing
        if INK in element.getAttribute("style"):
            inked = element.getAttribute("style").replace(INK, "currentColor")
            element.setAttribute("style", inked)
    root.setAttribute("role", "img")
    root.setAttribute("aria-label", alt)
    return Drawing(root.toxml(), caption)

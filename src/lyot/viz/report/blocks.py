"""What a section of the report is made of: plain values, which the templates turn into HTML."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lyot.types import Array

T = TypeVar("T")


class Number(NamedTuple):
    """A number as a table shows it, and in full for the download."""

    text: str
    full: str


class Link(NamedTuple):
    """A link to a file beside the page."""

    text: str
    href: str


class Source(NamedTuple):
    """Name of a source: in a table a button that shows the circle of this name in the images."""

    text: str


Cell = Number | Link | Source | str


def number(value: Any, form: str, /) -> Number | str:
    """Format a number for a table; an empty cell where it is not finite."""
    value = float(value)
    return Number(format(value, form), repr(value)) if np.isfinite(value) else ""


def cell(value: Any, /) -> Number | str:
    """Write any value for a table, a number to four digits."""
    if isinstance(value, float | np.floating):
        return number(value, ".4g")
    return str(value)


def in_base64(data: bytes, /) -> str:
    """Write bytes as the page holds them."""
    return base64.b64encode(data).decode("ascii")


@cache
def color_maps() -> dict[str, str]:
    """Return 256 colors of each color map of Matplotlib, three bytes each, in base64."""
    text = files("lyot.viz.report").joinpath("colors.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


class Block:
    """What the templates render, each kind by the macro of its name."""

    @property
    def kind(self) -> str:
        """Name of the macro."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Paragraph(Block):
    """A paragraph of text."""

    text: str


@dataclass(frozen=True)
class Code(Paragraph):
    """Text to copy: a command, or parameters as JSON."""


@dataclass(frozen=True)
class Table(Block):
    """A table, which can be downloaded as CSV."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    download: bool = True

    @classmethod
    def of(
        cls,
        caption: str,
        items: Iterable[T],
        columns: Mapping[str, Callable[[T], Cell]],
    ) -> Table:
        """Make a row of each item: under each heading, what its function makes of the item."""
        rows = [[cell(item) for cell in columns.values()] for item in items]
        return cls(caption, list(columns), rows)

    def without_empty_columns(self) -> Table:
        """Return it without the columns in which no row has anything."""
        shown = [k for k in range(len(self.header)) if any(row[k] for row in self.rows)]
        rows = [[row[k] for k in shown] for row in self.rows]
        return replace(self, header=[self.header[k] for k in shown], rows=rows)


@dataclass(frozen=True)
class Drawing(Block):
    """A drawing as SVG in the colors of the page."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Picture(Block):
    """An image as PNG."""

    png: bytes
    alt: str
    caption: str

    @classmethod
    def of(cls, part: Array, alt: str, caption: str) -> Picture:
        """Draw values ``(n_y, n_x)`` of -1 to 1 from blue to red, the first row at the bottom."""
        colors = np.frombuffer(base64.b64decode(color_maps()["diverging"]), np.uint8)
        shade = np.clip(127.5 * (np.nan_to_num(part[::-1]) + 1.0), 0, 255).astype(int)
        rgb = np.where(np.isnan(part[::-1])[..., None], 255, colors.reshape(-1, 3)[shade])
        n_y, n_x = part.shape
        rows = np.zeros((n_y, 1 + 3 * n_x), np.uint8)  # each begins with its filter: none
        rows[:, 1:] = rgb.reshape(n_y, -1)
        parts = {
            b"IHDR": struct.pack(">IIBBBBB", n_x, n_y, 8, 2, 0, 0, 0),
            b"IDAT": zlib.compress(rows.tobytes(), 9),
            b"IEND": b"",
        }
        chunks = (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts.items()
        )
        return cls(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), alt, caption)


@dataclass(frozen=True)
class Grid(Block):
    """Lay blocks beside one another where the page is wide enough."""

    blocks: Sequence[Block]


@dataclass(frozen=True)
class Details(Block):
    """Fold blocks away until they are asked for."""

    summary: str
    blocks: Sequence[Block]

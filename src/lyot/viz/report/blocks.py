"""What a section of the report is made of: plain values, which the templates turn into HTML."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lyot.files.star import StarPosition
from lyot.types import Array
from lyot.viz.style import stretch_of

T = TypeVar("T")


class Number(NamedTuple):
    """A number as a table shows it, and in full for the download."""

    text: str
    full: str


def number(value: Any, form: str, /) -> Number | str:
    """Format a number for a table; an empty cell where it is not finite."""
    value = float(value)
    return Number(format(value, form), repr(value)) if np.isfinite(value) else ""


def in_base64(data: bytes, /) -> str:
    """Write bytes as the page holds them."""
    return base64.b64encode(data).decode("ascii")


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
    rows: Sequence[Sequence[Number | str]]
    download: bool = True

    @classmethod
    def of(
        cls, caption: str, items: Iterable[T], columns: Mapping[str, Callable[[T], Number | str]]
    ) -> Table:
        """Make a row of each item: under each heading, what its function makes of the item."""
        rows = [[cell(item) for cell in columns.values()] for item in items]
        return cls(caption, list(columns), rows)


@dataclass(frozen=True)
class Drawing(Block):
    """A drawing as SVG in the colors of the page."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Picture(Block):
    """A figure that an analysis saved, as PNG."""

    png: bytes
    alt: str


@dataclass(frozen=True)
class Grid(Block):
    """Lay blocks beside one another where the page is wide enough."""

    blocks: Sequence[Block]


@dataclass(frozen=True)
class Details(Block):
    """Fold blocks away until they are asked for."""

    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True, eq=False)
class Frame:
    """An image in a viewer."""

    name: str
    data: Array
    """Values, shape (n_y, n_x); NaN is drawn blank."""
    unit: str
    star: StarPosition | None
    pa_y_deg: float | None
    pixel_scale_arcsec: float
    origin_xy: tuple[int, int] = (0, 0)
    """Pixel of the product at which the frame begins."""
    limits: tuple[float, float] | None = None
    """Values drawn black and white; by default those that suit the data."""
    exact: bool = True
    """Whether values are stored in 32 bits; else in 16, which hold three digits."""
    marks: list[dict[str, Any]] = field(default_factory=list)
    """Circles: ``x``, ``y``, ``r`` [pixel] and ``text``."""
    to_sky: Array | None = None
    """Of the `lyot.algorithms.geometry.TangentPlane` of an exposure; None for square pixels."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain values that viewer.js reads."""
        data = np.asarray(self.data, dtype=np.float64)
        low, high, soft = stretch_of(data)
        low, high = self.limits or (low, high)
        largest = float(np.nanmax(np.abs(data))) if np.isfinite(data).any() else 1.0
        scale = 1.0 if self.exact else max(largest / 2048.0, 1e-30)
        coded = data.astype("<f4") if self.exact else (data / scale).astype("<f2")
        x0, y0 = self.origin_xy
        return {
            "name": self.name,
            "unit": self.unit,
            "width": data.shape[1],
            "height": data.shape[0],
            "bits": 32 if self.exact else 16,
            "scale": scale,
            "data": in_base64(coded.tobytes()),
            "star": None if self.star is None else [self.star.x - x0, self.star.y - y0],
            "pa_y": self.pa_y_deg,
            "arcsec": self.pixel_scale_arcsec,
            "sky": None if self.to_sky is None else np.asarray(self.to_sky).tolist(),
            "x0": x0,
            "y0": y0,
            "range": [low, high],
            "soft": soft,
            "marks": self.marks,
        }

    @property
    def size(self) -> int:
        """Number of characters that the values take in the page."""
        return int(np.ceil(np.size(self.data) * (4 if self.exact else 2) * 4 / 3))


@dataclass(frozen=True, eq=False)
class Viewer(Block):
    """An interactive image: frames to choose from along one axis or several."""

    title: str
    axes: list[tuple[str, list[str]]]
    """Name of each axis, and of the choices along it."""
    frames: list[Frame]
    """In the order of the choices; the last axis varies first."""
    start: tuple[int, ...]
    """Choice along each axis at the beginning."""
    caption: str

    def to_json(self) -> dict[str, Any]:
        """Return the plain values that viewer.js reads."""
        return {
            "axes": [
                {"title": title, "names": names, "start": start}
                for (title, names), start in zip(self.axes, self.start, strict=True)
            ],
            "frames": [frame.to_json() for frame in self.frames],
        }

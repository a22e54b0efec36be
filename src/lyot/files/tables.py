"""Tables of results, written and read as ECSV: what astropy takes longer to import than to do."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from lyot.errors import readable
from lyot.files.atomic import atomic_write
from lyot.types import Array

_KINDS = {"i": "int64", "f": "float64", "b": "bool", "U": "string"}
"""Types of columns by the kind of their values."""
_TRUTH = {"True": True, "False": False}
_WIDTH = 120
_OF_ASTROPY = "__serialized_columns__"
"""How astropy tells quantities from columns with a unit, which are all the same here."""


class Row(dict[str, Any]):
    """The values of a row by column, and its number from 0."""

    index: int

    @property
    def colnames(self) -> list[str]:
        """Return the names of the columns."""
        return list(self)


@dataclass(frozen=True, eq=False)
class ResultTable:
    """Columns by name, with their units and descriptions, and what is known of all.

    Examples
    --------
    >>> table = ResultTable({"separation": np.array([1.5])}, {"separation": "arcsec"})
    >>> len(table), table["separation"][0], table.to_astropy()["separation"].unit.name
    (1, 1.5, 'arcsec')
    """

    columns: dict[str, Array]
    units: dict[str, str] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)

    @property
    def colnames(self) -> list[str]:
        """Return the names of the columns."""
        return list(self.columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str, /) -> Array:
        return self.columns[name]

    def __iter__(self) -> Iterator[Row]:
        for index, values in enumerate(zip(*self.columns.values(), strict=True)):
            row = Row(zip(self.columns, values, strict=True))
            row.index = index
            yield row

    def to_astropy(self) -> Any:
        """Return a ``QTable`` with the same columns, units, descriptions and metadata."""
        from astropy import units as u
        from astropy.table import QTable

        table = QTable(meta=self.meta)
        for name, values in self.columns.items():
            unit = self.units.get(name)
            table[name] = values * u.Unit(unit) if unit else values
            if name in self.descriptions:
                table[name].info.description = self.descriptions[name]
        return table


def write_table(table: ResultTable, path: str | Path, /) -> str:
    """Write a table as ECSV, with its units and metadata; return the path."""
    import yaml

    known = {"unit": table.units, "description": table.descriptions}
    columns = []
    for name, values in table.columns.items():
        column = {"name": name, "datatype": _KINDS[values.dtype.kind]}
        columns.append(column | {key: of[name] for key, of in known.items() if name in of})
    tree = _plain({"datatype": columns, "meta": table.meta})
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    layout = {"sort_keys": False, "default_flow_style": None, "width": _WIDTH}
    header = yaml.dump(tree, Dumper=dumper, allow_unicode=True, **layout)
    lines = ["%ECSV 1.0", "---", *header.splitlines()]
    cells = (map(_text, values.tolist()) for values in table.columns.values())
    rows = [table.colnames, *zip(*cells, strict=True)]
    text = [*(f"# {line}" for line in lines), *(" ".join(row) for row in rows)]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
    return str(path)


def _plain(node: Any) -> Any:
    """Turn values into those that YAML has."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return _plain(node.tolist()) if isinstance(node, np.ndarray | np.generic) else node


def _text(value: Any) -> str:
    """Write a value so that a space or quotation mark in it does not end it."""
    text = str(value)
    if text and not set(text) & set(' "\n\r'):
        return text
    return '"' + text.replace('"', '""') + '"'


def read_results(path: str | Path, /) -> ResultTable:
    """Read a table that `write_table` wrote, or astropy as ECSV."""
    with readable(path, "give a table"):
        return _parsed(Path(path).read_text(encoding="utf-8"))


def _parsed(text: str) -> ResultTable:
    import yaml

    lines = text.splitlines()
    n_header = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header = _of_omap(yaml.load("\n".join(line[2:] for line in lines[1:n_header]), _loader()))
    if not lines or not lines[0].startswith("# %ECSV") or not isinstance(header, dict):
        raise ValueError("it has no header of ECSV")
    described = {str(column["name"]): column for column in header["datatype"]}
    body = StringIO("\n".join(lines[n_header:]))
    names, *rows = csv.reader(body, delimiter=header.get("delimiter", " "), strict=True)
    if names != list(described) or any(len(row) != len(names) for row in rows):
        raise ValueError("its rows do not have the columns of its header")
    cells = zip(*rows, strict=True) if rows else [()] * len(names)
    columns = {
        name: _values(cells_of, str(described[name]["datatype"]))
        for name, cells_of in zip(names, cells, strict=True)
    }
    units, descriptions = (
        {name: str(column[key]) for name, column in described.items() if key in column}
        for key in ("unit", "description")
    )
    meta = dict(header.get("meta") or {})
    meta.pop(_OF_ASTROPY, None)
    return ResultTable(columns, units, meta, descriptions)


@cache
def _loader() -> Any:
    """Reads YAML, what astropy tells of its own objects as nothing."""
    import yaml

    loader = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
    yaml.add_multi_constructor("!astropy.", lambda *_: None, Loader=loader)
    return loader


def _of_omap(node: Any) -> Any:
    """Turn the ordered mappings of a header, pairs in lists, into mappings."""
    if isinstance(node, list) and node and all(isinstance(pair, tuple) for pair in node):
        node = dict(node)
    if isinstance(node, dict):
        return {key: _of_omap(value) for key, value in node.items()}
    return [_of_omap(value) for value in node] if isinstance(node, list) else node


def _values(cells: tuple[str, ...], kind: str) -> Array:
    """Read the values of a column."""
    if kind == "bool":
        return np.array([_TRUTH[cell] for cell in cells], bool)
    if kind == "string":
        return np.array(cells, np.str_)
    if np.dtype(kind).kind not in "iuf":
        raise ValueError(f"a column is of type {kind}")
    return np.array(cells, np.str_).astype(kind) if cells else np.zeros(0, kind)

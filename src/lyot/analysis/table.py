"""Results as astropy tables: fields of a class say in which column they stand, and its unit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import field, fields, is_dataclass
from operator import attrgetter
from typing import Any, get_type_hints

import numpy as np

FLUX_UNIT = "MJy pix / sr"
_KEY = "column"


class Tabled(ABC):
    """A result that a notebook shows as a table."""

    @abstractmethod
    def to_table(self) -> Any:
        """Return an astropy table with units; its settings are in ``meta``."""

    def _repr_html_(self) -> str:
        return str(self.to_table()._repr_html_())


def column(name: str, unit: str = "", **default: Any) -> Any:
    """Make a field that stands in a column; a dataclass in it adds its own fields to the name."""
    return field(metadata={_KEY: (name, unit)}, **default)


def table_of(kind: type, rows: Sequence[Any], meta: dict[str, Any], /) -> Any:
    """Return a table of values of a class, one in each row."""
    from astropy import units as u
    from astropy.table import QTable

    table = QTable(meta={"lyot": meta})
    for name, unit, its_type, where in _columns(kind):
        values: Any = np.array([attrgetter(where)(row) for row in rows], dtype=its_type)
        table[name] = values * u.Unit(unit) if unit else values
    return table


def _columns(
    kind: type, path: str = "", name: str = "", unit: str = ""
) -> Iterator[tuple[str, str, type, str]]:
    """Name, unit, type and attribute of each column."""
    types = get_type_hints(kind)
    for each in fields(kind):
        own_name, own_unit = each.metadata[_KEY]
        full_name, full_path = f"{name}{own_name}", f"{path}{each.name}"
        if is_dataclass(types[each.name]):
            yield from _columns(types[each.name], f"{full_path}.", full_name, own_unit)
        else:
            yield full_name, own_unit or unit, types[each.name], full_path

"""Provenance: how a product was made and what was measured on the way, recorded in the product."""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence
from typing import Any

import numpy as np

from lyot._version import __version__
from lyot.errors import LyotError
from lyot.files.star import StarPosition, recorded_star

PROVENANCE_KEY = "lyot"
"""Name of the branch of a product's ASDF tree that holds what the schemas have no place for."""


def stamp(
    model: Any,
    step: str,
    recipe: dict[str, Any],
    inputs: list[str],
    star: StarPosition | None = None,
    /,
    **details: Any,
) -> None:
    """Record in a product, in place, the step that made it, and what it measured.

    The step is marked COMPLETE; a star is also written to the keywords STARCENX/Y (1-based).
    """
    setattr(model.meta.cal_step, step, "COMPLETE")
    provenance = provenance_of(model)
    provenance["software"] = "lyot"
    provenance["version"] = __version__
    provenance.setdefault("steps", {})
    provenance["steps"][step] = {"recipe": recipe, "inputs": list(inputs)} | details
    if star is not None:
        provenance["star"] = star.to_dict()
        set_keyword(model, "SCI", "STARCENX", star.x + 1.0, "x position of the star (1-based)")
        set_keyword(model, "SCI", "STARCENY", star.y + 1.0, "y position of the star (1-based)")
    set_provenance(model, provenance)
    set_keyword(model, "PRIMARY", "LYOTVER", __version__, "Version of lyot")


def provenance_of(model: Any, /) -> dict[str, Any]:
    """Return a copy of a product's provenance, arrays in memory; empty where it has none."""
    provenance: dict[str, Any] = in_memory(dict(model.instance.get(PROVENANCE_KEY, {})))
    return provenance


def in_memory(node: Any, /) -> Any:
    """Copy a branch down to its arrays, so that the file may be closed."""
    if isinstance(node, Mapping):
        return {k: in_memory(v) for k, v in node.items()}
    if isinstance(node, MutableSequence):
        return [in_memory(each) for each in node]
    return np.asarray(node) if hasattr(node, "dtype") else node


def check_branches(tree: Any, what: object, /) -> dict[str, Any]:
    """Refuse a tree of which the branches that are read here are not what they should be.

    Returns the provenance. Its arrays are read: one that the tree does not describe fails here.
    """
    own, foreign = tree.get(PROVENANCE_KEY, {}), tree.get("extra_fits", {})
    if not (
        isinstance(own, dict)
        and isinstance(own.get("star", {}), dict | None)
        and all(_holds_dicts(own.get(name, {})) for name in ("steps", "exposures"))
        and _holds_dicts(foreign)
        and all(_is_header(extension.get("header", [])) for extension in foreign.values())
    ):
        raise LyotError(f"What the ASDF tree of {what} records is damaged; fetch it again.")
    recorded_star(own.get("star"))
    provenance: dict[str, Any] = in_memory(own)
    return provenance


def _holds_dicts(branch: Any) -> bool:
    return isinstance(branch, dict) and all(isinstance(each, dict) for each in branch.values())


def _is_header(rows: Any) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) for row in rows
    )


def set_provenance(model: Any, provenance: dict[str, Any], /) -> None:
    """Replace a product's provenance, in place."""
    model.instance[PROVENANCE_KEY] = provenance


def star_of(model: Any, /) -> StarPosition | None:
    """Return the star position that a product records; None where it records none."""
    return recorded_star(provenance_of(model).get("star"))


def set_keyword(model: Any, extension: str, key: str, value: Any, comment: str, /) -> None:
    """Set a FITS keyword that the schema does not know, in place."""
    extra = model.instance.setdefault("extra_fits", {}).setdefault(extension, {})
    rows = [row for row in extra.get("header", []) if row[0] != key]
    extra["header"] = [*rows, [key, value, comment]]

"""Products: made of new arrays and the metadata of an exposure, and saved atomically."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

from lyot.files.atomic import atomic_write, save_model
from lyot.files.headers import take_refused_keywords


def derived_model(kind: str, like: Any, arrays: dict[str, Any], /) -> Any:
    """Make a stdatamodels class of new arrays and the metadata of another model, WCS included.

    They are checked against the schema when the product is saved, not one by one as they are set:
    asdf reads parts of the schema again for each.
    """
    from stdatamodels.jwst import datamodels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(datamodels, kind)(validate_on_assignment=False)
        for name, array in arrays.items():
            setattr(model, name, array)
        model.update(like)  # this drops the WCS
        take_refused_keywords(model, like)
        if like.meta.hasattr("wcs"):
            model.meta.wcs = like.meta.wcs
    model.meta.model_type = kind
    drop_unknown_long_keywords(model)
    return model


def copy_with(model: Any, arrays: dict[str, Any], /) -> Any:
    """Copy a model but for some arrays, of the types of its schema, and the WCS, which is shared.

    What is replaced is not copied. As in `derived_model` it is checked when it is saved.
    """
    kept = [model.instance.get(name) for name in arrays]
    kept += [model.instance["meta"].get("wcs")]
    tree = copy.deepcopy(model.instance, {id(each): each for each in kept})
    tree.update(arrays)
    return type(model)(tree, schema=model.schema, validate_on_assignment=False)


def drop_unknown_long_keywords(model: Any, /) -> None:
    """Drop, in place, keywords outside the schema that are too long for FITS without a warning."""
    for extension in model.instance.get("extra_fits", {}).values():
        if "header" in extension:
            extension["header"] = [row for row in extension["header"] if len(row[0]) <= 8]


def save_atomically(model: Any, path: str | Path, /) -> str:
    """Save a model under a temporary name and move it into place; return the path."""
    with atomic_write(path) as temporary:
        save_model(model, temporary)
    return str(path)

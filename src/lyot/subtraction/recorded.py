"""Fits as a product records them, so that an analysis of a finished run need not fit again."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.zones import Zone
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import Cube
from lyot.parameters import SubtractRecipe
from lyot.subtraction.fit import Fit
from lyot.subtraction.methods import Operator
from lyot.subtraction.result import SkyNoise, Subtracted, Subtraction
from lyot.subtraction.zones import divide_by_rotation
from lyot.types import Array


class Recorded(NamedTuple):
    """A psfsub product: residual, its error, and what it records of the subtraction."""

    sci: Array
    err: Array
    record: Mapping[str, Any]


def record_of(subtracted: Subtracted, /) -> dict[str, Any]:
    """Return what a product records of the fits; nothing where frames were made of references.

    All numbers of all fits follow one another in ``fits``; ``fit_shapes`` tells whose they are.
    """
    if not subtracted.fits or subtracted.makes_frames:
        return {}
    parts, shapes = [], []
    for fit, area in zip(subtracted.fits, subtracted.areas, strict=True):
        operator = fit.operator
        sizes = (*fit.cross.shape, len(operator.matrix), len(operator.values))
        shapes.append((area, fit.reference_set, operator.n_dropped, *sizes))
        numbers = vars(fit) | {"matrix": operator.matrix, "values": operator.values}
        parts += [np.ravel(numbers[name]).astype(np.float64) for name in _shapes(*sizes)]
    return {
        "fits": np.concatenate(parts),
        "fit_shapes": np.array(shapes, np.int64),
        "missing": np.packbits(subtracted.missing),
        "checks": np.array(subtracted.checks, np.int64),
    }


def _shapes(n_t: int, n_ref: int, n_modes: int, n_values: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of a fit, in the order in which they are recorded."""
    of_targets = ("rows", "n_level", "mean_target", "level_target", "target_square")
    return {
        **dict.fromkeys(of_targets, (n_t,)),
        **dict.fromkeys(("refs", "mean_ref", "offset"), (n_ref,)),
        **dict.fromkeys(("level_offset", "cross"), (n_t, n_ref)),
        "weight_sum": (1,),
        "gram": (n_ref, n_ref),
        "matrix": (n_modes, n_ref),
        "values": (n_values,),
    }


_WHOLE = ("rows", "n_level", "refs")
"""Arrays of whole numbers."""


def check_of(pixels: Array, /) -> int:
    """Return a number that tells pixels, of whatever shape, from others."""
    return zlib.crc32(np.ascontiguousarray(pixels, "<f4").data)


def checked_rows(shape: tuple[int, int], /) -> tuple[int, int]:
    """Return the rows of a frame that tell references from others."""
    return shape[0] // 3, 2 * shape[0] // 3


def restored(
    products: Sequence[Recorded],
    target: Cube,
    aligned: AlignedArrays,
    zones: list[Zone],
    recipe: SubtractRecipe,
    /,
) -> Subtracted | None:
    """Return a subtraction as its products record it, one for each number of modes of a recipe.

    None where it has to be done: where they record no fits, or where exposure or references are not
    those that were fitted.
    """
    known = {product.record["n_modes"]: product for product in products}
    if not all(n in known and "fits" in known[n].record for n in recipe.n_modes):
        return None
    products = [known[n] for n in recipe.n_modes]
    record, n_int = products[0].record, len(target.sci)
    packed = np.asarray(record["missing"], np.uint8)
    missing = np.unpackbits(packed, count=target.sci.size).reshape(n_int, -1).astype(bool)
    unseen = target.bad(recipe.bad_bits).reshape(n_int, -1) & ~missing
    if unseen.any() or list(record["checks"]) != _checks_of(target, aligned):
        return None
    areas = divide_by_rotation(zones, recipe, target.info, aligned.ref_info, aligned.star)
    shares = [zones[area.zone]._replace(share=area.share) for area in areas]
    fits = _fits(record["fits"], record["fit_shapes"], shares)
    return Subtracted([_result(product) for product in products], missing, fits)


def _checks_of(target: Cube, aligned: AlignedArrays) -> list[int]:
    """Return the checks of an exposure and its references."""
    rows = list(checked_rows(target.frame_shape))
    sets = [0] if aligned.shared else range(len(target.sci))
    return [check_of(target.sci), *(check_of(aligned.planes(k)[:, rows]) for k in sets)]


def _fits(numbers: Array, shapes: NDArray[np.integer], zones: list[Zone]) -> list[Fit]:
    """Take fits apart again."""
    out, first = list[Fit](), 0
    for area, reference_set, n_dropped, *sizes in np.asarray(shapes).tolist():
        parts: dict[str, Any] = {}
        for name, shape in _shapes(*sizes).items():
            last = first + int(np.prod(shape))
            part = np.asarray(numbers[first:last], np.float64).reshape(shape)
            parts[name] = part.astype(np.intp) if name in _WHOLE else part
            first = last
        operator = Operator(parts.pop("matrix"), parts.pop("values"), n_dropped)
        parts["weight_sum"] = float(parts["weight_sum"][0])
        of_fit = {"reference_set": reference_set, "zone": zones[area], "operator": operator}
        out.append(Fit(**parts, **of_fit))
    if first != len(numbers):
        raise ValueError(f"{len(numbers)} numbers of fits are recorded, and {first} are used")
    return out


def _result(product: Recorded) -> Subtraction:
    """Return the subtraction in a psfsub product, with ERR before it was scaled to the sky."""
    names = {field.name for field in fields(Subtraction)}
    record = {name: value for name, value in product.record.items() if name in names}
    record |= {"sci": np.asarray(product.sci, np.float32)}
    result = Subtraction(**record, err=np.asarray(product.err, np.float32))
    sky = SkyNoise(**product.record["sky_noise"])
    return result.with_err_times(1.0 / sky.factor) if sky.is_applied else result

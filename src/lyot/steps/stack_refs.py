"""Step: the references, stacked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lyot.errors import LyotError
from lyot.files.association import read_association
from lyot.files.exposure import Cube, cube_from_model, read_cube, stack
from lyot.files.products import derived_model
from lyot.files.provenance import stamp
from lyot.parameters import STEPS
from lyot.steps.base import LyotStep, is_one, name_of, opened, spec_of

log = logging.getLogger(__name__)


class StackRefsStep(LyotStep):
    """Stack all integrations of all reference exposures into one cube.

    Examples
    --------
    >>> StackRefsStep().suffix
    'psfstack'
    """

    class_alias = "stack_refs"

    spec = spec_of(*STEPS["stack_refs"], suffix="psfstack")

    def process(self, source: Any) -> Any:
        """Stack all integrations of the psf members of an association, or of exposures."""
        names: list[str] = []
        first: list[Any] = []

        def cubes() -> Iterator[Cube]:
            for item in _exposures(source):
                if not first:
                    first.append(item)
                names.append(name_of(item))
                yield read_cube(item) if isinstance(item, str | Path) else cube_from_model(item)

        cube = stack(cubes())
        arrays = {"data": cube.sci, "err": cube.err, "dq": cube.dq}
        with opened(first[0], "CubeModel") as like:
            return psfstack_model(like, cube, names, arrays)


def _exposures(source: Any) -> Iterator[Any]:
    """Yield the reference exposures of an association, or the items of any collection."""
    is_table = isinstance(source, str | Path) and str(source).lower().endswith(".json")
    if isinstance(source, dict) or is_table:
        yield from read_association(source).psf
    elif is_one(source):
        yield source
    elif hasattr(source, "borrow"):  # a ModelLibrary lends its models
        with source:
            for index in range(len(source)):
                model = source.borrow(index)
                yield model
                source.shelve(model, index, modify=False)
    elif isinstance(source, Iterable):
        yield from source
    else:
        raise LyotError(
            f"stack_refs was given {type(source).__name__}; give an association or exposures."
        )


def psfstack_model(like: Any, cube: Cube, inputs: list[str], arrays: dict[str, Any], /) -> Any:
    """Make the psfstack product of a stack, with the metadata of its first exposure."""
    model = derived_model("CubeModel", like, arrays)
    log.info("Stacked %d integrations of %d reference exposures.", len(cube.sci), len(inputs))
    known = {"targets": list(cube.targets), "pa_y_deg": cube.pa_y_deg, "mjd": cube.mjd}
    stamp(model, "stack_psfs", {}, inputs, dither_arcsec=cube.dither_arcsec, **known)
    return model

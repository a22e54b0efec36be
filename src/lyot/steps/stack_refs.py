"""Step: the references, stacked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lyot.errors import LyotError
from lyot.files.association import read_association
from lyot.files.exposure import Cube, as_model, cube_from_model, read_cube, stack
from lyot.files.products import derived_model
from lyot.files.provenance import stamp
from lyot.parameters import STEPS
from lyot.steps.base import LyotStep, name_of
from lyot.steps.spec import spec_of

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
        """Stack the references, in order.

        Parameters
        ----------
        source : str, dict, or iterable of CubeModel or str
            An association, of which the psf members are taken, or the exposures themselves.

        Returns
        -------
        CubeModel
            SCI, ERR and DQ of every integration, ``(n_ref, n_y, n_x)``.
        """
        names: list[str] = []
        first: list[Any] = []

        def cubes() -> Iterator[Cube]:
            for item in _exposures(source):
                if not first:
                    first.append(item)
                names.append(name_of(item))
                yield read_cube(item) if isinstance(item, str | Path) else cube_from_model(item)

        cube = stack(cubes())
        like = as_model(first[0], "CubeModel")
        arrays = {"data": cube.sci, "err": cube.err, "dq": cube.dq}
        result = psfstack_model(like, cube, names, arrays)
        if like is not first[0]:
            like.close()
        return result


def psfstack_model(like: Any, cube: Cube, inputs: list[str], arrays: dict[str, Any], /) -> Any:
    """Make the psfstack product of a stack, with the metadata of its first exposure."""
    model = derived_model("CubeModel", like, arrays)
    log.info("Stacked %d integrations of %d reference exposures.", len(cube.sci), len(inputs))
    stamp(
        model,
        "stack_psfs",
        recipe={},
        inputs=inputs,
        details={
            "dither_arcsec": cube.dither_arcsec,
            "targets": list(cube.targets),
            "pa_y_deg": cube.pa_y_deg,
            "mjd": cube.mjd,
        },
    )
    return model


def _exposures(source: Any) -> Iterator[Any]:
    """Yield the reference exposures of an association, or the items of any collection."""
    if isinstance(source, dict) or (
        isinstance(source, str | Path) and str(source).lower().endswith(".json")
    ):
        yield from read_association(source).psf
        return
    if isinstance(source, str | Path) or hasattr(source, "getarray_noinit"):
        yield source
        return
    if hasattr(source, "borrow"):  # a ModelLibrary lends its models
        with source:
            for index in range(len(source)):
                model = source.borrow(index)
                yield model
                source.shelve(model, index, modify=False)
        return
    try:
        items = iter(source)
    except TypeError:
        raise LyotError(
            f"stack_refs was given {type(source).__name__}; give an association or exposures."
        ) from None
    yield from items

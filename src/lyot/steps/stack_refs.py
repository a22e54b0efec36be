"""Step: the references, stacked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyot.errors import LyotError
from lyot.files.association import read_association
from lyot.files.exposure import Cube, as_model, cube_from_model, join, read_cube, stack
from lyot.files.products import stack_model
from lyot.files.provenance import stamp
from lyot.parameters import STEPS, OutlierRecipe
from lyot.references.stack import flag_outliers
from lyot.steps.base import LyotStep, name_of
from lyot.steps.spec import spec_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Addition:
    """Frames that are stacked after those of the exposures.

    Attributes
    ----------
    cube : Cube
        The frames.
    made : dict
        Where they come from, for the product.
    alone : bool
        Whether they are all: the exposures lend their headers only.
    """

    cube: Cube
    made: dict[str, Any]
    alone: bool


class StackRefsStep(LyotStep):
    """Stack all integrations of all reference exposures into one cube."""

    class_alias = "stack_refs"

    spec = spec_of(*STEPS["stack_refs"], suffix="psfstack")

    outliers = OutlierRecipe(skip=True)
    """How outliers of each exposure are flagged first; the pipeline sets it."""

    added: Addition | None = None
    """Frames of a library; the pipeline sets it."""

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
                cube = read_cube(item) if isinstance(item, str | Path) else cube_from_model(item)
                yield flag_outliers(cube, self.outliers)

        added = self.added
        if added is not None and added.alone:
            first.append(next(_exposures(source)))
            cube = added.cube
        else:
            cube = stack(cubes())
        if added is not None and not added.alone:
            cube = join(cube, added.cube)
        like = as_model(first[0], "CubeModel")
        result = stack_model(like, cube)
        log.info("Stacked %d integrations of %d reference exposures.", len(cube.sci), len(names))
        library = {} if added is None else {"library": added.made}
        stamp(
            result,
            "stack_psfs",
            recipe={},
            inputs=names,
            details={
                "dither_arcsec": cube.dither_arcsec,
                "targets": list(cube.targets),
                "pa_y_deg": cube.pa_y_deg,
                "mjd": cube.mjd,
            }
            | library,
        )
        if like is not first[0]:
            like.close()
        return result


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

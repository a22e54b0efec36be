"""The methods of subtraction: one file each, and one row of a table."""

from __future__ import annotations

from lyot.errors import LyotError
from lyot.parameters import SCATTER, SubtractRecipe
from lyot.subtraction.methods.base import Method, Operator, SourceFrames
from lyot.subtraction.methods.imputation import Imputation
from lyot.subtraction.methods.klip import Klip
from lyot.subtraction.methods.mean import Mean
from lyot.subtraction.methods.median import Median
from lyot.subtraction.methods.nmf import Nmf

METHODS: dict[str, Method] = {
    "klip": Klip(),
    "mean": Mean(),
    "median": Median(),
    "imputation": Imputation(),
    "nmf": Nmf(),
}
"""The values of the parameter ``method``. A new method is a file, and a row here."""


def method_of(recipe: SubtractRecipe, /) -> Method:
    """Return the method of a recipe; refuse a recipe that it cannot follow."""
    method = METHODS.get(recipe.method)
    if method is None:
        raise LyotError(
            f"method is {recipe.method!r}; it must be one of {', '.join(METHODS)}.",
            parameter="method",
        )
    if recipe.error == SCATTER and (not method.has_kl_modes or recipe.chooses):
        raise LyotError(
            f"error is {recipe.error!r}, which needs the KL modes of all references: take "
            "method = klip without a choice of references, or error = propagated.",
            parameter="error",
        )
    if recipe.chooses and not method.takes_choice:
        raise LyotError(
            f"method is {recipe.method!r}, which takes all references; leave out select, n_refs, "
            "min_correlation and min_rotation_fwhm, or take another method.",
            parameter="method",
        )
    return method


def fits_each(recipe: SubtractRecipe, /) -> bool:
    """Return whether each target is fitted with what was chosen for it alone."""
    return recipe.chooses or method_of(recipe).selects

"""Which parameters the pipeline and each of its steps take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lyot.errors import LyotError
from lyot.parameters.fields import Parameter, Parameters, from_names, parameters_of
from lyot.parameters.reduction import (
    AlignInputs,
    AlignRecipe,
    BackgroundRecipe,
    CombineRecipe,
    ComputeParameters,
    FitInputs,
    HlspRecipe,
    LibraryRecipe,
    MemoryParameters,
    OutlierRecipe,
    ReferenceParameters,
    SaveParameters,
    SkipParameters,
    StarParameters,
    SubtractRecipe,
)

PIPELINE = "calwebb_coron3"
STEPS: dict[str, tuple[type[Parameters], ...]] = {
    PIPELINE: (ReferenceParameters, LibraryRecipe, SaveParameters, MemoryParameters),
    "background": (BackgroundRecipe,),
    "outlier_detection": (OutlierRecipe,),
    "stack_refs": (),
    "align_refs": (AlignRecipe, AlignInputs, StarParameters, ComputeParameters),
    "klip": (SubtractRecipe, FitInputs, StarParameters, ComputeParameters),
    "resample": (CombineRecipe, SkipParameters),
    "hlsp": (HlspRecipe, SkipParameters),
}
"""The classes of parameters that the pipeline and each of its steps take."""

StepParameters = Mapping[str, tuple[Parameters, ...]]
"""Values for the pipeline and its steps, by name; a class without a value has its defaults."""


def parameters_of_step(step: str, /) -> tuple[Parameter, ...]:
    """Return the parameters of a step, class after class."""
    return tuple(each for kind in STEPS[step] for each in parameters_of(kind))


def complete(values: StepParameters, /) -> dict[str, tuple[Parameters, ...]]:
    """Return a value for every class of every step, with defaults where none is given."""
    done = {}
    for step, kinds in STEPS.items():
        given = {type(value): value for value in values.get(step, ())}
        done[step] = tuple(given.get(kind) or kind() for kind in kinds)
    return done


def by_step(*values: Parameters) -> dict[str, tuple[Parameters, ...]]:
    """Give each value to every step that takes its class.

    Parameters
    ----------
    *values : Parameters
        Values, at most one of a class.

    Returns
    -------
    dict
        By the names of the steps.

    Raises
    ------
    LyotError
        If no step takes one of them.

    Examples
    --------
    >>> list(by_step(StarParameters(star_x=10.0, star_y=11.0)))
    ['align_refs', 'klip']
    """
    for value in values:
        if not any(type(value) in kinds for kinds in STEPS.values()):
            raise LyotError(f"No step of the pipeline takes {type(value).__name__}.")
    given = {
        step: tuple(value for value in values if type(value) in kinds)
        for step, kinds in STEPS.items()
    }
    return {step: taken for step, taken in given.items() if taken}


def read_steps(values: Mapping[str, Mapping[str, Any]], /) -> dict[str, tuple[Parameters, ...]]:
    """Read the values of parameters by step and by the names that the steps call them.

    Parameters
    ----------
    values : mapping
        Values, or texts of them, by the name of the step and of the parameter.

    Returns
    -------
    dict
        Values of the classes of each step.

    Raises
    ------
    LyotError
        If a step or a parameter does not exist, or a value is not allowed.

    Examples
    --------
    >>> [recipe, *_] = read_steps({"klip": {"truncate": "5,20"}})["klip"]
    >>> recipe.n_modes
    (5, 20)
    """
    done = {}
    for step, given in values.items():
        if step not in STEPS:
            raise LyotError(f"{step!r} is no step; the steps are {', '.join(STEPS)}.")
        names = sorted(each.step for each in parameters_of_step(step))
        for name in given:
            if name not in names:
                raise LyotError(
                    f"{name!r} is no parameter of {step}; its parameters are {', '.join(names)}."
                )
        done[step] = tuple(from_names(kind, given) for kind in STEPS[step])
    return done

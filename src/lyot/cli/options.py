"""Options of commands, made from the classes of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_origin

import click

from lyot.parameters import (
    STEPS,
    P,
    Parameter,
    Parameters,
    from_names,
    parameters_of,
    parameters_of_step,
)

Function = TypeVar("Function", bound=Callable[..., Any])


class CommaList(click.ParamType):
    """Values separated by commas; what each may be is checked by its parameter."""

    name = "list"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        del param, ctx
        return tuple(value.split(",")) if isinstance(value, str) else value


class ParameterOption(click.Option):
    """An option that sets a parameter."""

    def __init__(self, parameter: Parameter, name: str) -> None:
        self.parameter = parameter
        text = parameter.description + "."
        shown = parameter.default
        if isinstance(shown, tuple) and shown and not isinstance(shown[0], tuple):
            shown = ",".join(map(str, shown))
        if shown not in (None, "", (), False):
            text += f"  [default: {shown:g}]" if type(shown) is float else f"  [default: {shown}]"
        super().__init__(
            [f"-{name}" if len(name) == 1 else f"--{name}", parameter.step],
            help=text,
            metavar=parameter.metavar or None,
            required=parameter.required and not parameter.default,
            **_type_of(parameter),
        )


def _type_of(parameter: Parameter) -> dict[str, Any]:
    kind = parameter.inner
    if parameter.choices:
        return {"type": click.Choice(parameter.choices)}
    if kind is bool:
        return {"is_flag": True}
    if get_origin(kind) is not tuple:
        return {"type": kind}
    item, *rest = get_args(kind)
    if rest != [Ellipsis]:
        return {"type": item, "nargs": 1 + len(rest)}
    if get_origin(item) is tuple:
        return {"type": get_args(item)[0], "nargs": len(get_args(item)), "multiple": True}
    return {"type": CommaList()}


def parameter_options(
    *kinds: type[Parameters], name_of: Callable[[Parameter], str] | None = None
) -> Callable[[Function], Function]:
    """Give a command the options of all parameters of classes, in order.

    ``name_of`` names the option of a parameter; it gets none where that is empty.
    """
    name_of = name_of or (lambda each: each.step.replace("_", "-"))
    made = [
        ParameterOption(each, name)
        for kind in kinds
        for each in parameters_of(kind)
        if (name := name_of(each))
    ]

    def _decorate(function: Function) -> Function:
        # Click gathers options from the last decorator to the first.
        params: list[click.Parameter] = function.__dict__.setdefault("__click_params__", [])
        params.extend(reversed(made))
        return function

    return _decorate


def given(options: Mapping[str, Any], /) -> dict[str, Any]:
    """Return the options that were typed."""
    absent = (None, False)  # by identity: 0 is a value
    return {
        name: value
        for name, value in options.items()
        if value != () and not any(value is each for each in absent)
    }


def taken(kind: type[P], options: Mapping[str, Any], /) -> P:
    """Make a class of parameters from what was typed."""
    return from_names(kind, given(options))


def typed_steps(options: Mapping[str, Any], /) -> dict[str, dict[str, Any]]:
    """Sort the options of a run into the parameters of the steps that take them."""
    typed, steps = given(options), {}
    for step in STEPS:
        names = [each.step for each in parameters_of_step(step) if each.option]
        if values := {name: typed[name] for name in names if name in typed}:
            steps[step] = values
    return steps


def option_of(command: click.Command, name: str, /) -> str:
    """Return how a command sets a parameter; empty where it cannot."""
    for param in command.params:
        names = {param.name}
        if isinstance(param, ParameterOption):
            names |= {param.parameter.name, param.parameter.step}
        if name in names and isinstance(param, click.Option):
            return max(param.opts, key=len)
    if any(param.name == "settings" for param in command.params):
        for step in STEPS:
            for each in parameters_of_step(step):
                if name in (each.name, each.step):
                    return f"--set {step}.{each.step}=VALUE"
    return ""


OUTPUT_DIR = click.option(
    "-o", "--output-dir", metavar="DIR", help="Folder of the results.  [default: RUN]"
)
SCHEDULER = click.option(
    "--scheduler",
    metavar="WHERE",
    help="Dask cluster: address of a scheduler, or local[:N] for N workers on this computer.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")

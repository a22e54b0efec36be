"""Options of commands, made from the classes of parameters when a command is used.

The list of commands shows none of them, and does not wait until the classes are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import click

if TYPE_CHECKING:
    from lyot.parameters import P, Parameter, Parameters

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


class ParameterOptions(click.Option):
    """Stands among the parameters of a command for the options of classes of parameters.

    ``classes`` takes them from the module `lyot.parameters`; ``name_of`` names the option of a
    parameter, which gets none where that is empty.
    """

    def __init__(
        self,
        classes: Callable[[Any], Iterable[type[Parameters]]],
        name_of: Callable[[Parameter], str] | None = None,
    ) -> None:
        super().__init__(["--parameters"])
        self.classes = classes
        self.name_of = name_of or (lambda each: each.step.replace("_", "-"))

    def options(self) -> Iterator[click.Parameter]:
        """Yield the options of all parameters of the classes, in order."""
        from lyot import parameters

        for kind in self.classes(parameters):
            for each in parameters.parameters_of(kind):
                if name := self.name_of(each):
                    yield ParameterOption(each, name)


def parameter_options(
    classes: Callable[[Any], Iterable[type[Parameters]]],
    name_of: Callable[[Parameter], str] | None = None,
) -> Callable[[Function], Function]:
    """Give a command the options of classes of parameters (see `ParameterOptions`)."""

    def _decorate(function: Function) -> Function:
        # Click gathers options from the last decorator to the first.
        params: list[click.Parameter] = function.__dict__.setdefault("__click_params__", [])
        params.append(ParameterOptions(classes, name_of))
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
    from lyot.parameters import from_names

    return from_names(kind, given(options))


def typed_steps(options: Mapping[str, Any], /) -> dict[str, dict[str, Any]]:
    """Sort the options of a run into the parameters of the steps that take them."""
    from lyot.parameters import STEPS, parameters_of_step

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
        from lyot.parameters import STEPS, parameters_of_step

        for step in STEPS:
            for each in parameters_of_step(step):
                if name in (each.name, each.step):
                    return f"--set {step}.{each.step}=VALUE"
    return ""


def output_dir(help: str, default: str | None = None) -> Callable[[Function], Function]:
    """Give a command the option of its folder of files."""
    shown = "here" if default == "." else default is not None
    names = ("-o", "--output-dir")
    return click.option(*names, metavar="DIR", help=help, default=default, show_default=shown)


SCHEDULER = click.option(
    "--scheduler",
    metavar="WHERE",
    help="Dask cluster: address of a scheduler, or local[:N] for N workers on this computer.",
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")

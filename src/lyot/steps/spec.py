"""The parameters of a step as `stpipe` knows them, made from the classes of parameters."""

from __future__ import annotations

from typing import Any

from lyot.parameters import P, Parameter, Parameters, from_names, parameters_of


def spec_of(*kinds: type[Parameters], suffix: str = "", save_results: bool = False) -> str:
    """Write the ``spec`` of a step that takes these classes, in the syntax of configobj."""
    lines = [f"suffix = string(default={suffix!r})  # Suffix of the product"] if suffix else []
    lines += ["save_results = boolean(default=True)  # Save the products"] if save_results else []
    lines += [_line(each) for kind in kinds for each in parameters_of(kind)]
    return "\n".join(["", *lines, ""])


def values_of(step: Any, kind: type[P], /) -> P:
    """Read a class of parameters from the attributes of a step."""
    names = {each.step for each in parameters_of(kind)}
    return from_names(kind, {name: getattr(step, name) for name in names if hasattr(step, name)})


def _line(each: Parameter) -> str:
    default = each.default
    if each.kind == "list":
        items = ", ".join(repr(item) for item in default)
        check = f"force_list(default=list({items}))"
    else:
        limits = {"min": each.minimum, "max": each.maximum}
        options = [repr(choice) for choice in each.choices]
        options += [f"{key}={each.inner(v)}" for key, v in limits.items() if v is not None]
        options.append(f"default={default!r}")
        check = f"{'option' if each.choices else each.kind}({', '.join(options)})"
    return f"{each.step} = {check}  # {each.description}"

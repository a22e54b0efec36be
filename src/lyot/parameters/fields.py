"""What a field of a class of parameters declares, and what is made from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from inspect import get_annotations
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from lyot.errors import LyotError

_KINDS = {bool: "boolean", int: "integer", float: "float", str: "string"}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
_KEY = "parameter"
MAX_MODES = 100_000
"""Numbers of modes beyond any number of references."""
MAX_SHOWN = 100
"""Characters of a value that a message repeats."""

P = TypeVar("P", bound="Parameters")


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter as its field declares it."""

    help: str
    unit: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # a bound that is not itself allowed, as is the next
    below: float | None = None
    required: bool = False  # forbids an empty value
    step: str = ""  # its name as a parameter of a step, where that differs from the field's
    option: str = ""  # its name as an option of `run`; none where it is empty
    metavar: str = ""
    name: str = ""
    type: Any = None
    default: Any = None

    @property
    def optional(self) -> bool:
        """Whether None is a value."""
        return get_origin(self.type) is UnionType and NoneType in get_args(self.type)

    @property
    def inner(self) -> Any:
        """The type without None."""
        if not self.optional:
            return self.type
        [kind] = [kind for kind in get_args(self.type) if kind is not NoneType]
        return kind

    @property
    def kind(self) -> str:
        """The type in a word: boolean, integer, float, string, or list."""
        return _KINDS.get(self.inner, "list")

    @property
    def allowed(self) -> str:
        """What it may be, in words; empty where its type says all."""
        low = self.above if self.minimum is None else self.minimum
        high = self.below if self.maximum is None else self.maximum
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if low is not None and high is not None:
            return f"between {low:g} and {high:g}"
        if low is None:
            return "" if high is None else f"at most {high:g}"
        if self.minimum is not None:
            return f"at least {low:g}"
        return "positive" if low == 0 else f"more than {low:g}"

    @property
    def is_file(self) -> bool:
        """Whether it names a file, whose content counts."""
        return self.metavar == "FILE"

    @property
    def description(self) -> str:
        """Help with the unit behind its first clause, which says what is measured."""
        first, semicolon, rest = self.help.partition(";")
        return f"{first} [{self.unit}]{semicolon}{rest}" if self.unit else self.help

    def check(self, value: Any, /, *, name: str = "") -> None:
        """Raise a `LyotError` that names the parameter, the value and what is allowed."""
        if value is None and self.optional:
            return
        if self.required and not value:
            raise self._refused(value, "it must have at least one value", name, "empty")
        self._check_type(value, self.inner, name)

    def _check_type(self, value: Any, kind: Any, name: str) -> None:
        if get_origin(kind) is tuple:
            kinds = get_args(kind)
            if kinds[-1] is Ellipsis and isinstance(value, tuple):
                kinds = (kinds[0],) * len(value)
            if not isinstance(value, tuple) or len(value) != len(kinds):
                raise self._refused(value, f"it must be a tuple of {len(kinds)}", name)
            for item, its in zip(value, kinds, strict=True):
                self._check_type(item, its, name)
            return
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refused(value, "it must be finite", name)
        if not _is_a(value, kind):
            raise self._refused(value, f"it must be {self.allowed or _WORDS[kind]}", name)
        if self.choices and value not in self.choices:
            raise self._refused(value, f"it must be {self.allowed}", name)
        if kind in (int, float) and not self._within(value):
            verb = "lie" if self.allowed.startswith("between") else "be"
            raise self._refused(value, f"it must {verb} {self.allowed}", name)

    def _within(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def _refused(self, value: Any, rule: str, name: str, shown: str = "") -> LyotError:
        return LyotError(
            f"{name or self.name} is {shown or _cut(repr(value))}; {rule}.", parameter=self.name
        )

    def read(self, value: Any, /, *, name: str = "") -> Any:
        """Turn text, or a list of texts, into a value of its type; other values pass unchanged."""
        if isinstance(value, str) and value in ("", "None") and self.optional:
            return None
        return self._read(value, self.inner, name)

    def _read(self, value: Any, kind: Any, name: str) -> Any:
        if get_origin(kind) is tuple:
            value = value.split(",") if isinstance(value, str) else value
            items = value if isinstance(value, Iterable) else (value,)
            inner = get_args(kind)[0]
            return tuple(self._read(item, inner, name) for item in items)
        if not isinstance(value, str) or kind is str:
            return value
        text = value.strip()
        if kind is bool:
            return {"true": True, "false": False}.get(text.lower(), text)
        try:
            return kind(text)
        except ValueError:
            words = _WORDS[kind]
            words = f"{words.removeprefix('a ')}s" if self.kind == "list" else words
            raise self._refused(value, f"give {words}", name) from None


def _cut(text: str) -> str:
    """Keep a message short whatever was typed."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _is_a(value: Any, kind: type) -> bool:
    """Whether a value is of the type of a parameter; a number must be finite, and no bool."""
    if kind in (bool, str):
        return isinstance(value, kind)
    if isinstance(value, bool):
        return False
    return isinstance(value, Integral if kind is int else Real) and math.isfinite(value)


def parameter(default: Any, help: str, /, **declared: Any) -> Any:
    """Make the field of a parameter; what it may declare are the fields of `Parameter`."""
    return field(default=default, metadata={_KEY: Parameter(help=help, **declared)})


def choice(choices: tuple[str, ...], help: str, /, **declared: Any) -> Any:
    """Make the field of a parameter that is one of several words, by default the first."""
    return parameter(choices[0], help, choices=choices, **declared)


def input_file(help: str, /, **declared: Any) -> Any:
    """Make the field of a parameter that names a file, by default none; its content counts."""
    return parameter(None, help, metavar="FILE", **declared)


def arcsec(default: float, help: str, /) -> Any:
    """Make the field of a length on the sky."""
    return parameter(default, help, unit="arcsec", minimum=0.0)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The base of all classes of parameters: checks each field as it declares itself."""

    def __init_subclass__(cls) -> None:
        """Write the Attributes section of the docstring from the fields."""
        own = ((name, kind, cls.__dict__.get(name)) for name, kind in get_annotations(cls).items())
        of_bases = ((f.name, f.type, f) for base in cls.__bases__ for f in fields(base))
        entries = []
        for name, kind, value in (*of_bases, *own):
            declared = getattr(value, "metadata", {}).get(_KEY)
            if declared:
                entries.append(f"    {name} : {kind}\n        {declared.description}.")
        if entries:
            head, mark, tail = (cls.__doc__ or "").partition("    Examples\n")
            section = "\n".join(["    Attributes", "    ----------", *entries])
            cls.__doc__ = f"{head.rstrip()}\n\n{section}\n" + (f"\n{mark}{tail}" if mark else "")

    def __post_init__(self) -> None:
        """Check the values."""
        for each in parameters_of(type(self)):
            each.check(getattr(self, each.name))


_OF_CLASS: dict[type[Parameters], tuple[Parameter, ...]] = {}


def parameters_of(kind: type[Parameters], /) -> tuple[Parameter, ...]:
    """Return the parameters of a class, in order."""
    if kind not in _OF_CLASS:
        types = get_type_hints(kind)
        declared = [(f, f.metadata[_KEY]) for f in fields(kind) if _KEY in f.metadata]
        _OF_CLASS[kind] = tuple(
            replace(p, name=f.name, type=types[f.name], default=f.default, step=p.step or f.name)
            for f, p in declared
        )
    return _OF_CLASS[kind]


def from_names(kind: type[P], values: Mapping[str, Any], /) -> P:
    """Make a value from what a step or the command line calls its parameters.

    Texts are read as values of their parameter's type; messages use the names as they are given.
    """
    made = {}
    for each in parameters_of(kind):
        if each.step in values:
            value = each.read(values[each.step], name=each.step)
            each.check(value, name=each.step)
            made[each.name] = value
    return kind(**made)


def to_names(value: Parameters, /) -> dict[str, Any]:
    """Return the values by the names that a step calls them."""
    return {each.step: getattr(value, each.name) for each in parameters_of(type(value))}


def to_dict(recipe: Any, /) -> dict[str, Any]:
    """Turn parameters into plain values that any file format takes.

    Parameters
    ----------
    recipe : Recipe or Parameters
        The parameters.

    Returns
    -------
    dict
        Nested dictionaries of numbers, strings, lists and None.

    Examples
    --------
    >>> from lyot.parameters import StarParameters
    >>> to_dict(StarParameters(star_x=1.0, star_y=2.0))
    {'star_x': 1.0, 'star_y': 2.0}
    """

    def _plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: _plain(item) for key, item in value.items()}
        return [_plain(item) for item in value] if isinstance(value, tuple) else value

    result: dict[str, Any] = _plain(asdict(recipe))
    return result


def from_dict(kind: type, values: dict[str, Any], /) -> Any:
    """Make parameters from plain values.

    Parameters
    ----------
    kind : type
        `Recipe` or a class of parameters.
    values : dict
        As from `to_dict`; what is missing takes its default.

    Returns
    -------
    object
        A value of that class.

    Raises
    ------
    LyotError
        If a name is not a parameter.

    Examples
    --------
    >>> from lyot.parameters import OutlierRecipe
    >>> from_dict(OutlierRecipe, {"n_sigma": 4.0}).n_sigma
    4.0
    """
    parts = {f.name: f for f in fields(kind)}
    unknown = sorted(set(values) - set(parts))
    if unknown:
        raise LyotError(
            f"{unknown[0]!r} is no parameter of {kind.__name__}; its parameters are "
            f"{', '.join(parts)}."
        )
    ready = {}
    for name, value in values.items():
        part = parts[name].default_factory
        if part is not MISSING and isinstance(value, dict):
            ready[name] = from_dict(part, value)  # type: ignore[arg-type]
        else:
            ready[name] = tuple(value) if isinstance(value, list) else value
    return kind(**ready)

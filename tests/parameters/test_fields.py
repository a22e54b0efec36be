"""Every field of every class of parameters, and everything that is made from it."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from stpipe.exceptions import ValidationError

import lyot.parameters
import lyot.steps
from lyot.cli import main
from lyot.cli.main import Command
from lyot.cli.options import ParameterOption, option_of, parameter_options, taken
from lyot.errors import LyotError
from lyot.parameters import (
    COMMANDS,
    PIPELINE,
    STEPS,
    Parameters,
    SubtractRecipe,
    from_dict,
    from_names,
    parameter,
    parameters_of,
    to_dict,
)
from lyot.pipeline import Coron3Pipeline
from lyot.steps.base import LyotStep, spec_of, values_of

EXTENSION = Path(__file__).resolve().parents[2] / "docs" / "_ext" / "parameters.py"
CLASSES = [
    value
    for value in vars(lyot.parameters).values()
    if isinstance(value, type) and issubclass(value, Parameters) and value is not Parameters
]
FIELDS = [
    pytest.param(kind, p, id=f"{kind.__name__}.{p.name}")
    for kind in CLASSES
    for p in parameters_of(kind)
]
STEP_CLASSES = Coron3Pipeline.step_defs | {PIPELINE: Coron3Pipeline}
every_field = pytest.mark.parametrize(("kind", "declared"), FIELDS)


@pytest.fixture(scope="module")
def tables():
    """The extension of the documentation that draws the tables."""
    spec = importlib.util.spec_from_file_location("parameter_tables", EXTENSION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def homes_of(kind):
    return [
        name
        for table in (STEPS, COMMANDS)
        for name, kinds in table.items()
        if any(issubclass(each, kind) for each in kinds)
    ]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_taken_by_a_step_or_an_analysis(kind):
    assert homes_of(kind)
    assert parameters_of(kind)


@pytest.mark.parametrize("name", [*STEPS, *COMMANDS])
def test_a_step_and_a_command_name_each_parameter_once(name):
    kinds = STEPS[name] if name in STEPS else COMMANDS[name]
    names = [each.step for kind in kinds for each in parameters_of(kind)]
    assert len(set(names)) == len(names)


@every_field
def test_it_says_what_it_is(kind, declared):
    assert len(declared.help.split()) > 1
    assert declared.help[0].isupper() or declared.help.startswith("1")
    assert not declared.help.endswith(".")
    assert f"        {declared.description}.\n" in kind.__doc__


@every_field
def test_its_default_is_allowed(kind, declared):
    if not declared.required or declared.default:
        declared.check(declared.default)


def required(kind):
    """Values for what must not be empty."""
    empty = [p for p in parameters_of(kind) if p.required and not p.default]
    pair = (1.0, 2.0)
    return {p.name: pair if p.type == tuple[float, float] else (pair,) for p in empty}


def bad_values(declared):
    """Values that are not allowed, as they are shown, and the words that say what is."""
    is_list = declared.kind == "list"
    if declared.choices:
        yield "nonsense", "nonsense", ", ".join(declared.choices)
    bounds = ((declared.minimum, -1), (declared.maximum, 1))
    bounds += ((declared.above, 0), (declared.below, 0))
    for bound, beyond in bounds:
        if bound is not None:
            value = bound + beyond
            yield (value,) if is_list else value, value, declared.allowed
    # A list may not be a text; a number may not be NaN or, where it counts, a fraction.
    wrong = 0 if is_list else {bool: "true", int: 0.5, float: float("nan"), str: 3}[declared.inner]
    yield wrong, "empty" if declared.required else wrong, "it must"


@every_field
def test_what_is_not_allowed_is_refused_by_name_value_and_rule(kind, declared):
    for value, shown, rule in bad_values(declared):
        with pytest.raises(LyotError) as refused:
            kind(**required(kind) | {declared.name: value})
        text = str(refused.value)
        assert text.startswith(f"{declared.name} is {shown!r}".replace("'empty'", "empty"))
        assert rule in text
        assert refused.value.parameter == declared.name


@every_field
def test_it_is_in_the_spec_of_its_steps_with_help_and_default(kind, declared):
    for name in homes_of(kind):
        if name not in STEPS:
            continue
        spec = STEP_CLASSES[name].load_spec_file()
        assert declared.step in spec
        assert values_of(STEP_CLASSES[name](), kind) == kind()
        if declared.step.startswith("override_"):  # stpipe says it in its own words
            assert f"{declared.step} = " in STEP_CLASSES[name].spec
            continue
        assert spec.inline_comments[declared.step] == f"# {declared.description}"
        for choice in declared.choices:
            assert f"'{choice}'" in spec[declared.step]


@every_field
def test_the_command_line_can_set_it(kind, declared):
    for name in homes_of(kind):
        command = main.commands["run" if name in STEPS else name]
        if name in STEPS and not declared.option:
            assert option_of(command, declared.name)
            continue
        [option] = [
            p
            for p in command.params
            if isinstance(p, ParameterOption)
            and p.parameter.name == declared.name
            and p.parameter.help == declared.help
        ]
        assert option.help.startswith(declared.description)
        assert option_of(command, declared.name).startswith("--")


@every_field
def test_it_is_in_the_table_of_its_pages(kind, declared, tables):
    for name in homes_of(kind):
        [row] = [row for row in tables.rows_of(name) if row[0] == declared.step]
        assert row[1] == declared.kind
        assert declared.description in row[3]
        assert declared.allowed in row[3]
        if declared.default not in (None, (), ""):
            default = declared.default
            shown = default if not isinstance(default, tuple) else ", ".join(map(str, default))
            assert row[2] == str(shown)


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if not required(kind)])
def test_plain_values_give_it_back(kind):
    assert from_dict(kind, json.loads(json.dumps(to_dict(kind())))) == kind()


@dataclass(frozen=True, kw_only=True)
class Toy(Parameters):
    """A class with parameters of every kind."""

    strength: float = parameter(
        0.5, "How strongly toys are weighted", unit="toy", minimum=0.0, maximum=1.0
    )
    color: str = parameter("red", "Color of the toy", choices=("red", "blue"))
    counts: tuple[int, ...] = parameter((1, 2), "Numbers of toys", minimum=0, required=True)
    is_new: bool = parameter(False, "Whether the toy is new")


@dataclass(frozen=True, kw_only=True)
class MoreSubtraction(SubtractRecipe):
    """The parameters of the subtraction, and one more."""

    boldness: int = parameter(3, "How boldly the star is subtracted", minimum=1)


class ToyStep(LyotStep):
    """A step that takes toys and a longer recipe of the subtraction."""

    class_alias = "toy"
    spec = spec_of(Toy, MoreSubtraction, suffix="toy")

    def process(self, source):
        return source


def test_a_field_more_is_a_parameter_of_its_step():
    step = ToyStep(strength="0.25", color="blue", counts=["4", "5"], boldness="7")
    assert values_of(step, Toy) == Toy(strength=0.25, color="blue", counts=(4, 5))
    assert values_of(step, MoreSubtraction) == MoreSubtraction(boldness=7)
    assert values_of(ToyStep(), Toy) == Toy()
    comments = ToyStep.load_spec_file().inline_comments
    assert comments["boldness"] == "# How boldly the star is subtracted"
    assert comments["strength"] == "# How strongly toys are weighted [toy]"
    for wrong in ({"strength": "1.5"}, {"color": "green"}, {"boldness": "0"}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            ToyStep(**wrong)


def test_a_field_more_is_an_option_and_a_row_of_the_table(tables):
    values = {}

    @click.command(cls=Command)
    @parameter_options(lambda _: (Toy, MoreSubtraction))
    def play(**options):
        values["toy"] = taken(Toy, options)
        values["more"] = taken(MoreSubtraction, options)

    play.main(
        ["--strength", "0", "--counts", "3,4", "--is-new", "--boldness", "2", "--truncate", "9"],
        standalone_mode=False,
    )
    assert values["toy"] == Toy(strength=0.0, counts=(3, 4), is_new=True)
    assert values["more"] == MoreSubtraction(boldness=2, n_modes=(9,))
    assert option_of(play, "n_modes") == "--truncate"
    shown = click.Context(play).get_help()
    assert "How boldly the star is subtracted." in " ".join(shown.split())
    rows = [tables.row_of(each) for each in parameters_of(Toy)]
    assert rows[0] == (
        "strength",
        "float",
        "0.5",
        "How strongly toys are weighted [toy] (between 0 and 1)",
    )
    assert rows[2] == ("counts", "list", "1, 2", "Numbers of toys (at least 0)")


def test_a_field_more_is_in_the_docstring_and_in_messages():
    assert "boldness : " in MoreSubtraction.__doc__
    with pytest.raises(LyotError, match="boldness is 0; it must be at least 1"):
        MoreSubtraction(boldness=0)
    with pytest.raises(LyotError, match="counts is empty; it must have at least one value"):
        Toy(counts=())


def test_true_is_no_number():
    for wrong in ({"strength": True}, {"counts": (True,)}):
        with pytest.raises(LyotError, match="is True; it must be"):
            Toy(**wrong)


def test_the_unit_stands_behind_what_is_measured():
    [n] = [p for p in parameters_of(SubtractRecipe) if p.name == "outer_arcsec"]
    assert n.description.startswith("Outer edge of the last annulus [arcsec]; 0 for the nearest")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"truncate": "5,x"}, "truncate is 'x'; give whole numbers"),
        ({"truncate": "-1"}, "truncate is -1; it must lie between 0 and 100000"),
        ({"n_refs": "many"}, "n_refs is 'many'; give a whole number"),
        ({"sector_overlap": "wide"}, "sector_overlap is 'wide'; give a number"),
        ({"subtract_mean": "perhaps"}, "subtract_mean is 'perhaps'; it must be true or false"),
    ],
)
def test_texts_are_read_under_the_name_that_was_typed(given, text):
    with pytest.raises(LyotError, match=text):
        from_names(SubtractRecipe, given)


def test_texts_are_read_by_type():
    assert from_names(SubtractRecipe, {"truncate": 5}) == SubtractRecipe(n_modes=(5,))
    given = {"truncate": "5,20", "subtract_mean": "False", "n_refs": "3", "select": "time"}
    expected = SubtractRecipe(n_modes=(5, 20), subtract_mean=False, n_refs=3, select="time")
    assert from_names(SubtractRecipe, given) == expected

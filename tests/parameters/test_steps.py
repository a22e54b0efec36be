"""Parameters by step: as they are typed, and as the pipeline takes them."""

import pytest

from lyot.errors import LyotError
from lyot.parameters import (
    STEPS,
    CompanionParameters,
    ComputeParameters,
    StarParameters,
    SubtractRecipe,
    by_step,
    complete,
    read_steps,
)


def test_a_value_goes_to_every_step_that_takes_its_class():
    star, modes = StarParameters(star_x=1.0, star_y=2.0), SubtractRecipe(n_modes=(3,))
    assert by_step(modes, star) == {"align_refs": (star,), "klip": (modes, star)}
    with pytest.raises(LyotError, match="No step of the pipeline takes CompanionParameters"):
        by_step(CompanionParameters(at=((1.0, 2.0),)))


def test_what_is_missing_has_its_default():
    done = complete(by_step(SubtractRecipe(n_modes=(3,))))
    assert list(done) == list(STEPS)
    assert [type(value) for value in done["klip"]] == list(STEPS["klip"])
    assert done["klip"][0].n_modes == (3,)
    assert done["klip"][-1] == ComputeParameters()


def test_one_step_alone_can_be_set():
    values = read_steps({"klip": {"device": "torch"}})
    assert complete(values)["klip"][-1].device == "torch"
    assert complete(values)["align_refs"][-1].device == "cpu"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"clip": {"truncate": "3"}}, "'clip' is no step; the steps are calwebb_coron3"),
        ({"klip": {"trunkate": "3"}}, "'trunkate' is no parameter of klip; its parameters are"),
        ({"klip": {"star_x": "3"}}, "star_x is 3.0 and star_y is None; give both or neither"),
        ({"resample": {"skip": "maybe"}}, "skip is 'maybe'; it must be true or false"),
    ],
)
def test_what_no_step_takes_is_refused(given, text):
    with pytest.raises(LyotError, match=text):
        read_steps(given)

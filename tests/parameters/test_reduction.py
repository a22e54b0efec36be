"""A recipe checks itself, and survives being written."""

import json

import pytest

from lyot.errors import LyotError
from lyot.parameters import (
    AlignRecipe,
    CombineRecipe,
    OutlierRecipe,
    Recipe,
    SubtractRecipe,
    from_dict,
    to_dict,
)


def test_a_recipe_survives_json():
    recipe = Recipe(
        star_xy=(10.5, 11.25),
        outlier=OutlierRecipe(skip=True),
        align=AlignRecipe(align_to="first", max_shift=0.5),
        subtract=SubtractRecipe(n_modes=(3, 5), zones="annuli", n_sectors=4),
        combine=CombineRecipe(rotation=0.0),
    )
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_what_is_missing_takes_its_default():
    assert from_dict(Recipe, {"align": {"align_to": "first"}}).align == AlignRecipe(
        align_to="first"
    )


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: from_dict(Recipe, {"klip": {}}), "'klip' is no parameter of Recipe"),
        (lambda: AlignRecipe(align_to="second"), "align_to is 'second'; it must be one of all"),
        (lambda: AlignRecipe(max_shift=-1.0), "max_shift is -1"),
        (lambda: OutlierRecipe(n_sigma=0.5), "n_sigma is 0.5; it must be at least 1"),
        (lambda: CombineRecipe(pixfrac=2.0), "pixfrac is 2"),
        (lambda: CombineRecipe(pixel_scale_ratio=0.0), "it must lie between 0.05 and 20"),
        (lambda: CombineRecipe(align_on="sky"), "align_on is 'sky'"),
    ],
)
def test_bad_values_are_refused(make, text):
    with pytest.raises(LyotError, match=text):
        make()


def test_a_recipe_cannot_be_changed():
    with pytest.raises(AttributeError):
        Recipe().star_xy = (0.0, 0.0)

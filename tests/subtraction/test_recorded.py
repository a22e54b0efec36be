"""Fits that a product records, against those that are made again."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.algorithms.zones import annuli, full_frame
from lyot.files.aligned import AlignedArrays, ReferenceInfo
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.recorded import Recorded, record_of, restored
from lyot.subtraction.result import SkyNoise
from lyot.subtraction.subtract import subtract
from scenes import cube

SHAPE, N_INT, N_REF = (30, 34), 3, 8


@pytest.fixture
def scene(rng):
    """An exposure with gaps, and references of each integration, without a pixel in all."""
    patterns = rng.normal(size=(3, *SHAPE)) * 30.0
    frames = np.tensordot(rng.normal(size=(N_INT, 3)), patterns, 1) + rng.normal(
        size=(N_INT, *SHAPE)
    )
    target = cube(frames, 1.0, target="T", roll_ref_deg=0.0)
    target.dq[1, 4, 5:9] = 1
    refs = np.tensordot(rng.normal(size=(N_INT, N_REF, 3)), patterns, 1)
    refs = (refs + rng.normal(size=refs.shape)).astype(np.float32)
    refs[:, :, 20, 3] = np.nan
    info = ReferenceInfo(tuple("AAAABBBB"), np.zeros(N_REF), np.zeros(N_REF))
    parts = {"star": StarPosition(16.0, 15.0), "ref_info": info}
    flags = np.zeros(refs.shape, np.uint32)
    return target, AlignedArrays(refs, np.ones_like(refs), flags, **parts)


def products_of(subtracted, factor=1.0):
    """Products of a subtraction, their errors scaled."""
    sky = SkyNoise(factor, 9, is_applied=factor != 1.0)._asdict()
    return [
        Recorded(
            (scaled := result.with_err_times(factor)).sci,
            scaled.err,
            scaled.record() | record_of(subtracted) | {"sky_noise": sky},
        )
        for result in subtracted
    ]


ZONES = {
    "full": full_frame(SHAPE),
    "annuli": annuli(
        np.hypot(*(np.indices(SHAPE) - np.array([15.0, 16.0])[:, None, None])),
        np.zeros(SHAPE),
        np.array([0.0, 8.0, 15.0]),
    ),
}


@pytest.mark.parametrize("zones", ZONES)
@pytest.mark.parametrize("select", ["all", "correlation"])
def test_what_is_recorded_is_what_was_made(scene, zones, select):
    target, aligned = scene
    recipe = SubtractRecipe(n_modes=(2, 4), select=select, n_refs=6 * (select != "all"))
    made = subtract(target, aligned, ZONES[zones], recipe)
    again = restored(products_of(made, 1.25), target, aligned, ZONES[zones], recipe)
    np.testing.assert_array_equal(again.missing, made.missing)
    assert len(again.fits) == len(made.fits) >= N_INT
    for a, b in zip(again.fits, made.fits, strict=True):
        for name, value in vars(b).items():
            if name == "zone":
                np.testing.assert_array_equal(a.zone.share, value.share)
            elif name == "operator":
                np.testing.assert_array_equal(a.operator.matrix, value.matrix)
            else:
                np.testing.assert_array_equal(getattr(a, name), value, err_msg=name)
        np.testing.assert_allclose(a.coefs(4), b.coefs(4), rtol=1e-10, atol=1e-14)
    for a, b in zip(again, made, strict=True):
        np.testing.assert_array_equal(a.sci, b.sci)
        np.testing.assert_allclose(a.err, b.err, rtol=3e-7)
        for mine, other in zip(a.mean(), b.mean(), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-6)


def test_what_was_not_fitted_is_to_be_subtracted_again(scene):
    target, aligned = scene
    recipe, zones = SubtractRecipe(n_modes=(3,)), full_frame(SHAPE)
    products = products_of(subtract(target, aligned, zones, recipe))
    assert restored(products, target, aligned, zones, recipe) is not None
    assert restored(products, target, aligned, zones, replace(recipe, n_modes=(2,))) is None
    assert restored([], target, aligned, zones, recipe) is None
    bare = [p._replace(record={k: v for k, v in p.record.items() if k != "fits"}) for p in products]
    assert restored(bare, target, aligned, zones, recipe) is None
    other = replace(aligned, sci=aligned.sci + np.float32(0.01))
    assert restored(products, target, other, zones, recipe) is None
    brighter = replace(target, sci=target.sci * np.float32(1.001))
    assert restored(products, brighter, aligned, zones, recipe) is None
    target.dq[0, 9, 9] = 1
    assert restored(products, target, aligned, zones, recipe) is None


def test_numbers_that_are_cut_are_refused(scene):
    target, aligned = scene
    recipe, zones = SubtractRecipe(n_modes=(3,)), full_frame(SHAPE)
    [product] = products_of(subtract(target, aligned, zones, recipe))
    for numbers in (product.record["fits"][:-1], np.append(product.record["fits"], 1.0)):
        damaged = product._replace(record=product.record | {"fits": numbers})
        with pytest.raises(ValueError, match=r"reshape|numbers of fits"):
            restored([damaged], target, aligned, zones, recipe)


def test_frames_made_of_references_are_not_recorded(scene):
    target, aligned = scene
    recipe = SubtractRecipe(method="nmf", n_modes=(2,))
    assert record_of(subtract(target, aligned, full_frame(SHAPE), recipe)) == {}

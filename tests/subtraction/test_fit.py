"""One type of fit: shared references are one, patterns of gaps a few, chosen references many."""

import numpy as np
import pytest

from lyot.algorithms.zones import full_frame
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.parameters import SubtractRecipe
from lyot.subtraction.subtract import subtract

SHAPE, N_INT, N_REF = (20, 22), 5, 6


@pytest.fixture
def scene(rng):
    patterns = rng.normal(size=(3, *SHAPE)) * 10
    refs = np.tensordot(rng.normal(size=(N_REF, 3)), patterns, 1) + rng.normal(size=(N_REF, *SHAPE))
    targets = np.tensordot(rng.normal(size=(N_INT, 3)), patterns, 1)
    return targets + rng.normal(size=targets.shape), refs


def subtracted(targets, refs, dtype=np.float64, **recipe):
    dq = np.zeros(targets.shape, np.uint32)
    target = Cube(targets, np.ones(targets.shape, np.float32), dq, ExposureInfo("t", dq.shape))
    err, flags = np.ones(refs.shape, np.float32), np.zeros(refs.shape, np.uint32)
    aligned = AlignedArrays(refs, err, flags, dtype=dtype)
    recipe = SubtractRecipe(n_modes=(4,), level_inner_arcsec=0.0, **recipe)
    return subtract(target, aligned, full_frame(SHAPE), recipe, keep_fits=True, dtype=dtype)


def groups_of(result):
    return [fit.rows.tolist() for fit in result.fits]


def test_targets_that_share_references_and_gaps_are_one_fit(scene):
    targets, refs = scene
    assert groups_of(subtracted(targets, refs)) == [[0, 1, 2, 3, 4]]
    assert groups_of(subtracted(targets, refs, select="residual", n_refs=2)) == [
        [i] for i in range(N_INT)
    ]
    each = np.broadcast_to(refs, (N_INT, *refs.shape))
    assert [fit.reference_set for fit in subtracted(targets, each).fits] == [0, 1, 2, 3, 4]
    targets[[0, 3], 4, 5] = np.nan
    targets[2, 7, 8:10] = np.nan
    targets[:, 1, 1] = np.nan
    assert groups_of(subtracted(targets, refs)) == [[0, 3], [1, 4], [2]]


def test_residual_and_record_follow_from_the_fit(scene):
    targets, refs = scene
    targets[2, 7, 8:10] = np.nan
    result = subtracted(targets, refs)
    for fit in result.fits:
        coefs = fit.coefs(4)
        np.testing.assert_allclose(result[0].coefficients[0, fit.rows], coefs, rtol=1e-12)
        model = np.tensordot(coefs, refs - (fit.mean_ref + fit.offset)[:, None, None], 1)
        residual = targets[fit.rows] - fit.mean_target[:, None, None] - model
        np.testing.assert_allclose(result[0].sci[fit.rows], residual, atol=1e-10)
        power = np.nansum(residual**2, axis=(1, 2))
        np.testing.assert_allclose(fit.residual_power(4)[:, -1], power, rtol=1e-9)


def test_float64_is_asked_for_by_a_parameter(scene):
    targets, refs = scene
    single, double = subtracted(targets, refs, np.float32)[0], subtracted(targets, refs)[0]
    assert (single.sci.dtype, double.sci.dtype) == (np.float32, np.float64)
    # A pixel of a reference, and the residual, are rounded to one part in 2**24. What that does to
    # coefficients at the optimum is as small again, and is allowed for by the factor.
    shares = np.tensordot(np.abs(double.coefficients[0]), np.abs(refs), 1)
    bound = 2.0**-24 * (shares + np.abs(double.sci))
    assert (np.abs(single.sci - double.sci) < 1.5 * bound + 1e-7).all()
    # Pixels that float32 holds are subtracted in float64, and rounded once.
    refs = refs.astype(np.float32).astype(np.float64)
    single, double = subtracted(targets, refs, np.float32)[0], subtracted(targets, refs)[0]
    np.testing.assert_allclose(single.sci, double.sci, rtol=2.0**-24, atol=1e-40)

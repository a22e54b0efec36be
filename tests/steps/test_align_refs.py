"""References on the pixels of the science, and the star."""

import json

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from lyot.errors import LyotError
from lyot.files.provenance import provenance_of, star_of
from lyot.steps import AlignRefsStep
from scenes import assert_unchanged, snapshot


def test_align_refs_gives_every_reference_for_every_integration(target, psfstack):
    before, before_refs = snapshot(target), snapshot(psfstack)
    result = AlignRefsStep.call(target, psfstack)
    assert isinstance(result, datamodels.QuadModel)
    assert result.data.shape == (2, 6, 48, 52)
    assert result.meta.cal_step.align_psfs == "COMPLETE"
    # What is bad in every reference stays missing; nothing else is.
    assert (np.isnan(result.data).all(axis=1) == np.isnan(result.data).any(axis=1)).all()
    assert np.isnan(result.data).mean() < 0.005
    np.testing.assert_array_equal(np.isnan(result.err), np.isnan(result.data))
    details = provenance_of(result)["steps"]["align_psfs"]
    assert details["shift_yx"].shape == (2, 6, 2)
    assert details["shift_covariance"].shape == (2, 6, 2, 2)
    assert details["scale"].shape == (2, 6)
    assert details["converged"].all()
    assert star_of(result).origin == "measured"
    assert_unchanged(target, before)
    assert_unchanged(psfstack, before_refs)


def test_align_refs_to_the_first_integration_gives_a_cube(target, psfstack):
    every = AlignRefsStep.call(target, psfstack)
    first = AlignRefsStep.call(target, psfstack, align_to="first")
    assert isinstance(first, datamodels.CubeModel)
    assert first.data.shape == (6, 48, 52)
    np.testing.assert_allclose(first.data, every.data[0], rtol=1e-4, atol=1e-3)


def test_aligned_references_match_the_target(target, psfstack):
    result = AlignRefsStep.call(target, psfstack)
    details = provenance_of(result)["steps"]["align_psfs"]
    good = np.isfinite(target.data[0]) & (target.dq[0] == 0)
    y, x = np.indices((48, 52))
    near = good & (np.hypot(y - 23.75, x - 25.25) < 12)
    for k in range(6):
        shifted = details["scale"][0, k] * result.data[0, k]
        unshifted = details["scale"][0, k] * psfstack.data[k]
        now = np.std((target.data[0] - shifted)[near])
        then = np.nanstd((target.data[0] - unshifted)[near & (psfstack.dq[k] == 0)])
        assert now < then


def test_a_psfmask_is_used_where_it_is_given(target, psfstack, tmp_path, caplog):
    weight = np.zeros((48, 52), np.float32)
    weight[10:40, 10:42] = 1.0
    path = tmp_path / "mask.fits"
    datamodels.ImageModel(weight).save(path)
    with caplog.at_level("INFO", logger="lyot"):
        AlignRefsStep.call(target, psfstack, override_psfmask=str(path), configure_log=False)
    assert "PSFMASK" in caplog.text
    assert "override" in caplog.text
    datamodels.ImageModel(weight[:20]).save(path)
    with pytest.raises(LyotError, match="give the file of this subarray"):
        AlignRefsStep.call(target, psfstack, override_psfmask=str(path))


def test_a_star_given_is_the_star_used(target, psfstack):
    result = AlignRefsStep.call(target, psfstack, star_x=25.0, star_y=24.0)
    star = star_of(result)
    assert (star.x, star.y, star.origin) == (25.0, 24.0, "parameter")


@pytest.mark.parametrize("method", ["symmetry", "model"])
def test_the_star_is_measured_as_asked_for(target, psfstack, small, method):
    result = AlignRefsStep.call(target, psfstack, star_from=method)
    star = star_of(result)
    truth = json.loads((small.parent / "truth.json").read_text())["exposures"]
    x, y = truth[target.meta.filename]["star_xy"]
    assert star.origin == "measured"
    assert np.hypot(star.x - x, star.y - y) < 0.2
    assert provenance_of(result)["steps"]["align_psfs"]["recipe"]["star_from"] == method
    other = star_of(
        AlignRefsStep.call(
            target, psfstack, star_from={"symmetry": "model", "model": "symmetry"}[method]
        )
    )
    assert (star.x, star.y) != (other.x, other.y)


def test_crds_that_does_not_answer_is_said_and_done_without(
    target, psfstack, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("CRDS_PATH", str(tmp_path))
    with caplog.at_level("INFO", logger="lyot"):
        result = AlignRefsStep.call(target, psfstack, configure_log=False)
    assert "CRDS is set but did not answer" in caplog.text
    assert "built in" in caplog.text
    assert result.meta.cal_step.align_psfs == "COMPLETE"

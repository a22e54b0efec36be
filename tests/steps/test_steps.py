"""Each step runs alone, from Python and the shell, without CRDS, and leaves its input as is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from lyot.errors import LyotError
from lyot.files.provenance import provenance_of, star_of
from lyot.steps import (
    AlignRefsStep,
    HlspStep,
    KlipStep,
    OutlierDetectionStep,
    ResampleStep,
    StackRefsStep,
)

BIN = Path(sys.executable).parent


@pytest.fixture
def files(small):
    science = sorted(small.parent.glob("jw09999001*"))
    psf = sorted(small.parent.glob("jw09999002*"))
    return [str(p) for p in science], [str(p) for p in psf]


@pytest.fixture
def target(files):
    with datamodels.CubeModel(files[0][0]) as model:
        yield model


@pytest.fixture(scope="module")
def psfstack(small):
    return StackRefsStep.call(str(small), save_results=False)


def snapshot(model):
    return {
        "data": np.array(model.data),
        "err": np.array(model.err),
        "dq": np.array(model.dq),
        "steps": dict(model.meta.cal_step.instance),
        "branch": provenance_of(model),
    }


def assert_unchanged(model, before):
    after = snapshot(model)
    for key in ("data", "err", "dq"):
        np.testing.assert_array_equal(after[key], before[key])
    assert after["steps"] == before["steps"]
    assert after["branch"].keys() == before["branch"].keys()


@pytest.mark.parametrize("kind", ["association", "names", "models", "generator"])
def test_stack_refs_takes_anything_that_holds_exposures(small, files, psfstack, kind):
    models = [datamodels.CubeModel(f) for f in files[1]]
    given = {
        "association": str(small),
        "names": files[1],
        "models": models,
        "generator": (m for m in models),
    }[kind]
    result = StackRefsStep("stack_refs").run(given)
    assert isinstance(result, datamodels.CubeModel)
    expected = np.concatenate([m.data for m in models])
    np.testing.assert_array_equal(result.data, expected)
    np.testing.assert_array_equal(result.data, psfstack.data)
    np.testing.assert_array_equal(result.dq, np.concatenate([m.dq for m in models]))
    assert result.meta.cal_step.stack_psfs == "COMPLETE"
    assert [m.meta.cal_step.stack_psfs for m in models] == [None] * len(models)
    for model in models:
        model.close()


def test_stack_refs_refuses_what_it_cannot_stack(files, tmp_path):
    with pytest.raises(LyotError, match="no psf member"):
        StackRefsStep.call([])
    with datamodels.CubeModel(files[1][0]) as a:
        cut = a.copy()
        cut.data, cut.err, cut.dq = a.data[:, :40], a.err[:, :40], a.dq[:, :40]
        with pytest.raises(LyotError, match="they must be equal"):
            StackRefsStep.call([a, cut])
        other = a.copy()
        other.meta.instrument.filter = "F335M"
        with pytest.raises(LyotError, match="filter F335M"):
            StackRefsStep.call([a, other])


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


@pytest.mark.parametrize("align_to", ["all", "first"])
def test_klip_gives_a_cube_of_the_shape_of_the_science(target, psfstack, align_to):
    aligned = AlignRefsStep.call(target, psfstack, align_to=align_to)
    before, before_refs = snapshot(target), snapshot(aligned)
    result = KlipStep.call(target, aligned, truncate=3)
    assert isinstance(result, datamodels.CubeModel)
    assert result.data.shape == target.data.shape
    assert result.meta.cal_step.klip == "COMPLETE"
    details = provenance_of(result)["steps"]["klip"]
    assert details["coefficients"].shape == (1, 2, 6)
    assert details["n_kept"] == 3
    assert (details["rms_after"] < 0.3 * details["rms_before"]).all()
    bad = ~np.isfinite(target.data) | ((target.dq & 1) > 0)
    np.testing.assert_array_equal(np.isnan(result.data), bad)
    assert (result.dq[bad] & 1).all()
    assert_unchanged(target, before)
    assert_unchanged(aligned, before_refs)


def test_klip_with_more_modes_than_references_uses_all(target, psfstack):
    aligned = AlignRefsStep.call(target, psfstack)
    result = KlipStep("klip").run(target, aligned)
    assert provenance_of(result)["steps"]["klip"]["n_kept"] == 6


def test_several_truncations_give_a_product_each(target, psfstack, tmp_path):
    aligned = AlignRefsStep.call(target, psfstack)
    results = KlipStep.call(
        target, aligned, truncate=[1, 4], output_dir=str(tmp_path), save_results=True
    )
    assert [provenance_of(r)["steps"]["klip"]["n_modes"] for r in results] == [1, 4]
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "jw09999001001_03102_00001_nrcalong_k001_psfsub.fits",
        "jw09999001001_03102_00001_nrcalong_k004_psfsub.fits",
    ]


def test_klip_in_annuli_and_with_a_map(target, psfstack, tmp_path):
    aligned = AlignRefsStep.call(target, psfstack)
    rings = KlipStep.call(target, aligned, zones="annuli", n_annuli=3, n_sectors=2)
    assert provenance_of(rings)["steps"]["klip"]["coefficients"].shape[0] == 6
    labels = np.ones((48, 52), np.float32)
    labels[:24] = 2
    datamodels.ImageModel(labels).save(tmp_path / "map.fits")
    halves = KlipStep.call(target, aligned, zones="map", zone_map=str(tmp_path / "map.fits"))
    assert provenance_of(halves)["steps"]["klip"]["coefficients"].shape[0] == 2


def test_parameters_come_from_a_file(target, psfstack, tmp_path):
    KlipStep("klip", truncate=2).export_config(tmp_path / "klip.asdf")
    aligned = AlignRefsStep.call(target, psfstack)
    result = KlipStep.call(target, aligned, config_file=str(tmp_path / "klip.asdf"))
    assert provenance_of(result)["steps"]["klip"]["n_modes"] == 2


def test_outliers_are_flagged_in_a_copy(target):
    cube = datamodels.CubeModel()
    rng = np.random.default_rng(1)
    cube.update(target)
    cube.data = rng.normal(size=(5, 48, 52)).astype(np.float32)
    cube.err = np.ones(cube.data.shape, np.float32)
    cube.dq = np.zeros(cube.data.shape, np.uint32)
    cube.data[1, 7, 8] = 99.0
    before = snapshot(cube)
    result = OutlierDetectionStep.call(cube)
    assert result.dq[1, 7, 8] == 17
    assert result.meta.cal_step.outlier_detection == "COMPLETE"
    assert_unchanged(cube, before)


def test_resample_and_hlsp_on_one_exposure(target, psfstack, tmp_path):
    aligned = AlignRefsStep.call(target, psfstack)
    subtracted = KlipStep.call(target, aligned)
    before = snapshot(subtracted)
    image = ResampleStep.call(subtracted)
    assert_unchanged(subtracted, before)
    assert isinstance(image, datamodels.ImageModel)
    assert image.meta.cal_step.resample == "COMPLETE"
    star = star_of(image)
    sky = image.meta.wcs(star.x, star.y)
    np.testing.assert_allclose(sky, (150.0, -25.0), atol=1e-7)
    covered = np.isfinite(image.data)
    assert np.isfinite(image.err[covered]).all()
    path = tmp_path / "one_i2d.fits"
    image.save(path)
    snr, contrast = HlspStep.call(str(path), output_dir=str(tmp_path))
    np.testing.assert_allclose(snr.data[covered], (image.data / image.err)[covered], rtol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "one_contrast.fits",
        "one_i2d.fits",
        "one_snr.fits",
    ]
    table = contrast.contrast_table
    y, x = np.indices(image.data.shape)
    r = np.hypot(y - star.y, x - star.x)
    ring = image.data[(r >= 10) & (r < 12)]
    np.testing.assert_allclose(table["sigma"][5], np.nanstd(ring), rtol=1e-4)
    np.testing.assert_allclose(table["radius"][:3], [1, 3, 5])


def test_hlsp_saves_each_time_it_runs(tmp_path):
    image = datamodels.ImageModel(np.ones((20, 20), np.float32))
    image.err = np.ones((20, 20), np.float32)
    image.meta.filename = "a_i2d.fits"
    step = HlspStep("hlsp")
    for number in ("1", "2"):
        step.output_dir = str(tmp_path / number)
        step.run(image)
        names = sorted(p.name for p in (tmp_path / number).iterdir())
        assert names == ["a_contrast.fits", "a_snr.fits"]


def test_hlsp_of_a_plain_image_is_centered_on_the_image(tmp_path):
    rng = np.random.default_rng(2)
    image = datamodels.ImageModel(rng.normal(size=(40, 44)).astype(np.float32))
    image.err = np.full((40, 44), 2.0, np.float32)
    image.meta.filename = "plain_i2d.fits"
    _, contrast = HlspStep.call(image, save_results=False)
    recipe = provenance_of(contrast)["steps"]["hlsp"]["recipe"]
    assert recipe["center_yx"] == [19.0, 21.0]
    assert recipe["center_on"] == "image"
    with pytest.raises(LyotError, match="records no star"):
        HlspStep.call(image, center_on="star", save_results=False)


def test_a_missing_wcs_is_said(target, psfstack):
    subtracted = KlipStep.call(target, AlignRefsStep.call(target, psfstack))
    subtracted.meta.wcs = None
    with pytest.raises(LyotError, match="has no WCS"):
        ResampleStep.call(subtracted)


def test_crds_that_does_not_answer_is_said_and_done_without(
    target, psfstack, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("CRDS_PATH", str(tmp_path))
    with caplog.at_level("INFO", logger="lyot"):
        result = AlignRefsStep.call(target, psfstack, configure_log=False)
    assert "CRDS is set but did not answer" in caplog.text
    assert "built in" in caplog.text
    assert result.meta.cal_step.align_psfs == "COMPLETE"


def shell(*arguments, cwd):
    env = {k: v for k, v in os.environ.items() if not k.startswith("CRDS")}
    return subprocess.run(
        [str(a) for a in arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


def test_steps_run_from_the_shell_without_crds(files, small, tmp_path):
    done = shell(BIN / "strun", "lyot::stack_refs", small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [stack] = tmp_path.glob("*_psfstack.fits")
    done = shell(
        BIN / "strun",
        "lyot::align_refs",
        files[0][0],
        stack,
        f"--output_dir={tmp_path}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [aligned] = tmp_path.glob("*_psfalign.fits")
    done = shell(
        BIN / "strun",
        "lyot::klip",
        files[0][0],
        aligned,
        "--truncate=2",
        f"--output_dir={tmp_path}",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    [subtracted] = tmp_path.glob("*_psfsub.fits")
    with datamodels.open(subtracted) as model:
        assert provenance_of(model)["steps"]["klip"]["n_kept"] == 2


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


def test_klip_measures_a_star_that_its_references_do_not_record(target, psfstack):
    aligned = AlignRefsStep.call(target, psfstack)
    recorded = star_of(aligned)
    branch = provenance_of(aligned)
    del branch["star"]
    aligned.instance["lyot"] = branch
    star = star_of(KlipStep.call(target, aligned, truncate=3))
    assert star.origin == "measured"
    assert np.hypot(star.x - recorded.x, star.y - recorded.y) < 0.3

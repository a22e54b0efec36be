"""The star is subtracted, whatever the zones and the number of modes."""

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels

from lyot.files.provenance import provenance_of, star_of
from lyot.simulate import Scene, simulate_observation
from lyot.steps import AlignRefsStep, KlipStep, StackRefsStep
from scenes import assert_unchanged, snapshot


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


def test_klip_measures_a_star_that_its_references_do_not_record(target, psfstack):
    aligned = AlignRefsStep.call(target, psfstack)
    recorded = star_of(aligned)
    branch = provenance_of(aligned)
    del branch["star"]
    aligned.instance["lyot"] = branch
    star = star_of(KlipStep.call(target, aligned, truncate=3))
    assert star.origin == "measured"
    assert np.hypot(star.x - recorded.x, star.y - recorded.y) < 0.3


def test_err_is_scaled_to_the_sky_where_it_is_asked_for(rng, tmp_path):
    """Frames whose noise is twice what they state."""
    scene = Scene(shape=(200, 200), n_int=2, n_int_psf=1, n_dither=3, companions=(), disc=None)
    simulate_observation(tmp_path, scene, seed=3)
    files = sorted(tmp_path.glob("*_calints.fits"))
    for path in files:
        with fits.open(path, mode="update") as hdus:
            hdus["ERR"].data *= 0.5
    kinds = {path: fits.getval(path, "IS_PSF", 0) for path in files}
    science = next(p for p, is_psf in kinds.items() if not is_psf)
    stacked = StackRefsStep.call([str(p) for p, is_psf in kinds.items() if is_psf])
    aligned = AlignRefsStep.call(str(science), stacked)
    plain, scaled = (KlipStep.call(str(science), aligned, scale_err=on) for on in (False, True))
    first, second = (provenance_of(r)["steps"]["klip"] for r in (plain, scaled))
    ratio = first["sky_noise"]["ratio"]
    assert 1.5 < ratio < 2.5
    assert (first["sky_noise"]["is_applied"], second["sky_noise"]["is_applied"]) == (False, True)
    np.testing.assert_allclose(scaled.err, ratio * plain.err, rtol=1e-5)
    for name in ("variance_refs", "variance_refs_coherent"):
        np.testing.assert_allclose(second[name], ratio**2 * first[name], rtol=1e-5)
    np.testing.assert_array_equal(scaled.data, plain.data)


def test_a_target_without_flags_gets_those_of_the_result(target, psfstack):
    aligned = AlignRefsStep.call(target, psfstack)
    with datamodels.open(target) as model:
        model.dq = None  # as of a combined image
        result = KlipStep("klip").run(model, aligned)
    assert result.dq.shape == result.data.shape
    np.testing.assert_array_equal(result.dq != 0, ~np.isfinite(result.data))

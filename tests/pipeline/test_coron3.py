"""The whole pipeline on the simulated observation, against its truth."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from stdatamodels.jwst import datamodels

from lyot._version import __version__
from lyot.algorithms.geometry import radius_map
from lyot.analysis.observation import open_run
from lyot.errors import LyotError
from lyot.files.atomic import checksum
from lyot.files.provenance import provenance_of, star_of
from lyot.files.sorting import build_associations
from lyot.parameters import Recipe, from_dict
from lyot.pipeline import Coron3Pipeline
from lyot.steps import KlipStep
from scenes import acquisition_of, lyot

NAME = "jw09999_demo_nircam_f444w-mask335r"
EXPOSURES = ("jw09999001001_03102_00001_nrcalong", "jw09999002001_03102_00001_nrcalong")
KINDS = {
    "psfstack": "CubeModel",
    "crfints": "CubeModel",
    "psfalign": "QuadModel",
    "psfsub": "CubeModel",
    "i2d": "ImageModel",
    "snr": "ImageModel",
    "contrast": "ContrastModel",
}


def test_every_product_is_there_and_nothing_else(demo):
    expected = {f"{NAME}_{s}.fits" for s in ("psfstack", "i2d", "snr", "contrast")}
    expected |= {
        f"{e}_a3001_{s}.fits" for e in EXPOSURES for s in ("crfints", "psfalign", "psfsub")
    }
    assert {p.name for p in demo.folder.iterdir()} == expected


@pytest.mark.parametrize("suffix", KINDS)
def test_products_open_without_a_warning(demo, suffix):
    for path in demo.folder.glob(f"*_{suffix}.fits"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with datamodels.open(path) as model:
                assert type(model).__name__ == KINDS[suffix]
                assert model.meta.filename == path.name
                assert provenance_of(model)["version"] == __version__
                if suffix != "contrast":
                    assert model.data.dtype.kind == "f"


def test_steps_are_stamped(demo):
    with datamodels.open(demo.product("1001_03102_00001_nrcalong_a3001_psfsub.fits")) as model:
        done = model.meta.cal_step
        for step in ("outlier_detection", "stack_psfs", "align_psfs", "klip"):
            assert getattr(done, step) == "COMPLETE"
        assert done.resample is None
    with datamodels.open(demo.product("_i2d.fits")) as model:
        assert model.meta.cal_step.resample == "COMPLETE"
        assert model.meta.cal_step.klip == "COMPLETE"
        assert model.meta.asn.table_name == "demo_asn.json"


def test_provenance_is_complete(demo):
    with datamodels.open(demo.product("_i2d.fits")) as model:
        branch = provenance_of(model)
    made = branch["steps"]["association"]
    files = sorted(demo.association.parent.glob("*_calints.fits"))
    assert sorted(made["sha256"]) == [p.name for p in files]
    assert made["sha256"][files[0].name] == checksum(files[0])
    assert branch["steps"]["resample"]["recipe"]["align_on"] == "star"
    assert {e["n_modes"] for e in branch["exposures"].values()} == {50}
    assert from_dict(Recipe, branch["recipe"]) == Recipe()


def test_measured_shifts_are_the_true_ones(demo):
    truth = demo.truth["exposures"]
    names = sorted(n for n in truth if "9003001" in n)
    for exposure in EXPOSURES:
        [path] = demo.folder.glob(f"{exposure}*psfsub.fits")
        with datamodels.open(path) as model:
            shift = np.asarray(provenance_of(model)["steps"]["align_psfs"]["shift_yx"])
        target = truth[f"{exposure}_calints.fits"]
        jitter_t = np.array(target["jitter_xy_pix"])
        refs = np.concatenate(
            [np.array(truth[n]["star_xy"]) + np.array(truth[n]["jitter_xy_pix"]) for n in names]
        )
        expected = (np.array(target["star_xy"]) + jitter_t)[:, None] - refs[None]
        # A star moves behind a mask that does not: the image is not only shifted. Some of the
        # pattern stays, so what is found is a little less than what was commanded.
        difference = shift[..., ::-1] - expected
        assert np.abs(difference).max() < 0.15
        assert np.corrcoef(shift[..., ::-1].ravel(), expected.ravel())[0, 1] > 0.98


def test_the_star_is_found(demo):
    for exposure in EXPOSURES:
        [path] = demo.folder.glob(f"{exposure}*psfsub.fits")
        with datamodels.open(path) as model:
            star = star_of(model)
        x, y = demo.truth["exposures"][f"{exposure}_calints.fits"]["star_xy"]
        assert star.origin == "measured"
        # The wavefront error of the instrument, which is as large as in flight, moves the lobes.
        assert np.hypot(star.x - x, star.y - y) < np.hypot(star.x_err, star.y_err)


def test_the_star_of_both_rolls_falls_on_the_recorded_pixel(demo):
    with datamodels.open(demo.product("_i2d.fits")) as model:
        star = star_of(model)
        sky = model.meta.wcs(star.x, star.y)
        np.testing.assert_allclose(sky, (150.0, -25.0), atol=1e-8)
        fits_wcs = WCS(fits.getheader(demo.product("_i2d.fits"), "SCI"))
        np.testing.assert_allclose(fits_wcs.wcs_pix2world([[star.x, star.y]], 0)[0], sky, atol=1e-7)


def test_companions_stand_out_where_they_are(demo):
    with (
        datamodels.open(demo.product("_snr.fits")) as model,
        datamodels.open(demo.product("_i2d.fits")) as image,
    ):
        snr = np.nan_to_num(np.asarray(model.data, float))
        wcs = image.meta.wcs
    for companion in demo.truth["scene"]["companions"]:
        pa = np.radians(companion["pa_deg"])
        dec = -25.0 + companion["separation_arcsec"] * np.cos(pa) / 3600
        ra = 150.0 + companion["separation_arcsec"] * np.sin(pa) / 3600 / np.cos(np.radians(-25.0))
        x, y = (float(v) for v in wcs.invert(ra, dec))
        r = radius_map(snr.shape, (y, x))
        near = (r < 3.0) * np.maximum(snr, 0.0)
        assert (snr * (r < 2.0)).max() > 8
        yy, xx = np.indices(snr.shape)
        power = near**2
        found = (power * xx).sum() / power.sum(), (power * yy).sum() / power.sum()
        assert np.hypot(found[0] - x, found[1] - y) < 0.3


def test_speckles_are_gone(demo):
    for line in demo.summary:
        assert line["rms_after"] < 0.05 * line["rms_before"]


def test_exposure_times_add_up(demo):
    with datamodels.open(demo.product("_i2d.fits")) as model:
        assert model.meta.exposure.exposure_time == pytest.approx(600.0)
        assert model.meta.resample.pointings == 2
        assert model.meta.wcsinfo.s_region.startswith("POLYGON ICRS")
        assert model.con.shape[0] == 1
        assert int(model.con.max()) == 2**10 - 1
        for name in ("wht", "var_rnoise", "var_poisson"):
            assert np.isfinite(getattr(model, name)[90, 90])


def test_intermediate_products_can_be_left_out(small, tmp_path):
    Coron3Pipeline.call(
        str(small),
        output_dir=str(tmp_path),
        save_psfalign=False,
        save_crfints=False,
        save_psfstack=False,
        save_psfsub=False,
        steps={"hlsp": {"skip": True}},
    )
    assert [p.name.rpartition("_")[2] for p in tmp_path.iterdir()] == ["i2d.fits"]


def test_the_4d_and_3d_runs_and_steps_by_hand_agree(small, tmp_path):
    from lyot.steps import AlignRefsStep, KlipStep, StackRefsStep

    Coron3Pipeline.call(
        str(small),
        output_dir=str(tmp_path),
        # The references are stacked by hand without a search for outliers.
        steps={"klip": {"truncate": 4}, "outlier_detection": {"spikes": "never"}},
    )
    [product] = tmp_path.glob("*psfsub.fits")
    [crfints] = tmp_path.glob("*crfints.fits")
    stack = StackRefsStep.call(str(small))
    aligned = AlignRefsStep.call(str(crfints), stack)
    [saved] = tmp_path.glob("*psfalign.fits")
    with datamodels.open(saved) as model:
        np.testing.assert_array_equal(model.data, aligned.data)
        np.testing.assert_array_equal(model.dq, aligned.dq)
        np.testing.assert_allclose(model.err, aligned.err, rtol=1e-6)
    by_hand = KlipStep.call(str(crfints), str(saved), truncate=4)
    with datamodels.open(product) as model:
        np.testing.assert_allclose(model.data, by_hand.data, atol=1e-5)
        np.testing.assert_allclose(model.err, by_hand.err, rtol=1e-5)


@pytest.mark.parametrize("step", ["stack_refs", "align_refs", "klip"])
def test_a_step_that_the_others_need_cannot_be_skipped(small, tmp_path, step):
    with pytest.raises(LyotError, match=f"{step} is skipped; only background, outlier"):
        Coron3Pipeline.call(str(small), output_dir=str(tmp_path), steps={step: {"skip": True}})
    assert not list(tmp_path.iterdir())


def test_a_pipeline_can_run_twice(small, tmp_path):
    pipeline = Coron3Pipeline()
    for number in ("1", "2"):
        pipeline.output_dir = str(tmp_path / number)
        pipeline.run(str(small))
        assert len(list((tmp_path / number).iterdir())) == 7
        assert len(pipeline.products) == 7
    pipeline.save_results = False
    pipeline.output_dir = str(tmp_path / "3")
    pipeline.run(str(small))
    assert not list((tmp_path / "3").iterdir())


def test_several_truncations_give_an_image_each(small, tmp_path):
    results = Coron3Pipeline.call(
        str(small), output_dir=str(tmp_path), steps={"klip": {"truncate": [1, 5]}}
    )
    assert len(results) == 2
    names = {p.name for p in tmp_path.glob("*_i2d.fits")}
    assert names == {f"{NAME}_k001_i2d.fits", f"{NAME}_k005_i2d.fits"}


def test_the_same_input_gives_the_same_arrays_on_one_thread_or_two(small, tmp_path, monkeypatch):
    images = []
    for threads in ("1", "2"):
        monkeypatch.setenv("LYOT_THREADS", threads)
        result = Coron3Pipeline.call(str(small), output_dir=str(tmp_path / threads))
        images.append((np.array(result.data), np.array(result.err)))
    for a, b in zip(*images, strict=True):
        np.testing.assert_array_equal(a, b)


PROCESS = """
import sys
import numpy as np
from lyot import Coron3Pipeline, contrast_curve, open_run
folder = sys.argv[2]
result = Coron3Pipeline.call(sys.argv[1], output_dir=folder)
with open_run(folder, star_magnitude=5.0) as observation:
    curve = contrast_curve(observation, separations_arcsec=[0.6, 0.9])
own = {name: getattr(curve, name) for name in ("calibrated", "throughput", "throughput_scatter")}
np.savez(folder + "/arrays.npz", sci=result.data, err=result.err, weight=result.wht, **own)
"""


def arrays_of_a_process(small, folder, **environment):
    """What a whole reduction and its limits give in a process of their own."""
    known = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "LYOT", "CRDS"))}
    command = [sys.executable, "-W", "ignore", "-c", PROCESS, str(small), str(folder)]
    subprocess.run(command, env=known | environment, check=True, capture_output=True)
    with np.load(folder / "arrays.npz") as stored:
        found = dict(stored)
    for path in sorted(folder.glob("*_psfsub.fits")):
        found |= {f"{path.name} {name}": fits.getdata(path, name) for name in ("SCI", "ERR", "DQ")}
    return found


@pytest.fixture(scope="module")
def alone(small, tmp_path_factory):
    one = {"OPENBLAS_NUM_THREADS": "1", "LYOT_THREADS": "1"}
    return arrays_of_a_process(small, tmp_path_factory.mktemp("one"), **one)


@pytest.mark.parametrize(
    ("environment", "tolerance"),
    [
        ({"OPENBLAS_NUM_THREADS": "2", "LYOT_THREADS": "2"}, 1e-12),
        # As if on another processor: without the instructions of today's.
        (
            {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 X86_V3"},
            1e-5,
        ),
    ],
)
def test_another_process_gives_the_same_arrays(small, tmp_path, alone, environment, tolerance):
    found = arrays_of_a_process(small, tmp_path, **environment)
    assert found.keys() == alone.keys()
    for name, array in alone.items():
        array = np.asarray(array, dtype=float)
        scale = np.nanmax(np.abs(array))
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * scale, err_msg=name)


def test_inputs_are_never_modified(small, tmp_path):
    before = {p: checksum(p) for p in small.parent.iterdir()}
    Coron3Pipeline.call(str(small), output_dir=str(tmp_path))
    assert {p: checksum(p) for p in small.parent.iterdir()} == before


def test_it_runs_from_the_shell_without_crds(small, tmp_path):
    env = {k: v for k, v in os.environ.items() if not k.startswith("CRDS")}
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "strun"),
            "lyot::calwebb_coron3",
            str(small),
            f"--output_dir={tmp_path}",
            "--steps.klip.truncate=3",
        ],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with datamodels.open(next(tmp_path.glob("*psfsub.fits"))) as model:
        assert provenance_of(model)["steps"]["klip"]["n_kept"] == 3


def test_an_interrupt_leaves_no_half_product(small, tmp_path):
    def interrupt(stage, *_):
        if stage.startswith("exposure"):  # while its aligned references are written
            raise KeyboardInterrupt

    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.progress = str(tmp_path), interrupt
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(str(small))
    # What another thread had finished by then is there, and whole.
    kinds = {p.name.rpartition("_")[2] for p in tmp_path.iterdir()}
    assert kinds <= {"crfints.fits", "psfstack.fits"}
    for path in tmp_path.iterdir():
        datamodels.open(path).close()


def test_references_of_another_mode_are_refused_before_any_work(small, tmp_path):
    content = json.loads(small.read_text())
    for path in small.parent.glob("*_calints.fits"):
        with fits.open(path) as hdus:
            if "9002001" in path.name:
                hdus[0].header["CORONMSK"] = "MASKA210R"
            hdus.writeto(tmp_path / path.name)
    (tmp_path / "asn.json").write_text(json.dumps(content))
    with pytest.raises(LyotError, match="with coronagraph MASKA210R"):
        Coron3Pipeline.call(str(tmp_path / "asn.json"), output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


RUN_KEYWORDS = ["DATE", "ASNPOOL", "ASNTABLE"]
"""What a product says of its run, or of the time when it was made."""


def same_file(a, b, *, tolerance):
    """Compare headers and arrays of two products."""
    with fits.open(a) as ours, fits.open(b) as theirs:
        assert [hdu.name for hdu in ours] == [hdu.name for hdu in theirs]
        for one, other in zip(ours, theirs, strict=True):
            if one.name == "ASDF":
                continue
            mine, its = (
                {k: v for k, v in hdu.header.items() if k and k not in RUN_KEYWORDS}
                for hdu in (one, other)
            )
            assert mine.keys() == its.keys()
            for key, value in mine.items():
                number = isinstance(value, float)
                assert its[key] == (pytest.approx(value, rel=tolerance) if number else value), key
            if one.data is None:
                continue
            if one.data.dtype.names:
                for name in one.data.dtype.names:
                    np.testing.assert_allclose(one.data[name], other.data[name], rtol=tolerance)
            else:
                atol = tolerance * np.nanmax(np.abs(one.data.astype(float)))
                np.testing.assert_allclose(one.data, other.data, rtol=tolerance, atol=atol)


def same_provenance(a, b):
    """Compare what two products record, but for what a run adds to what its steps record."""
    if isinstance(a, dict):
        keys = (set(a) | set(b)) - {"association"}
        if "steps" in keys:
            keys -= {"recipe", "exposures"}
        for key in keys:
            assert key in a, key
            assert key in b, key
            same_provenance(a[key], b[key])
    elif isinstance(a, np.ndarray) and a.dtype.kind == "f":
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.nanmax(np.abs(a), initial=0))
    elif isinstance(a, list | tuple | np.ndarray):
        assert np.array_equal(a, b)
    else:
        is_number = isinstance(a, float)
        assert b == (pytest.approx(a, rel=1e-4, nan_ok=True) if is_number else a)


def test_steps_run_one_by_one_make_the_products_of_the_pipeline(small, tmp_path):
    from lyot.files.products import save_atomically
    from lyot.steps import (
        AlignRefsStep,
        HlspStep,
        KlipStep,
        OutlierDetectionStep,
        ResampleStep,
        StackRefsStep,
    )

    run, hand = tmp_path / "run", tmp_path / "hand"
    # The references are stacked by hand without a search for outliers.
    options = {"klip": {"truncate": 4}, "outlier_detection": {"spikes": "never"}}
    Coron3Pipeline.call(str(small), output_dir=str(run), steps=options)
    names = {p.stem.rpartition("_")[2]: p.name for p in run.iterdir()}

    def save(model, suffix):
        model.meta.filename = names[suffix]
        return save_atomically(model, hand / names[suffix])

    [science] = small.parent.glob("jw09999001*_calints.fits")
    target = save(OutlierDetectionStep.call(str(science), spikes="never"), "crfints")
    stack = save(StackRefsStep.call(str(small)), "psfstack")
    aligned = save(AlignRefsStep.call(target, stack), "psfalign")
    subtracted = save(KlipStep.call(target, aligned, truncate=4), "psfsub")
    image = save(ResampleStep.call(subtracted), "i2d")
    products = HlspStep.call(image, save_results=False)
    for model, suffix in zip(products, ("snr", "contrast"), strict=True):
        save(model, suffix)
    assert {p.name for p in hand.iterdir()} == set(names.values())
    for suffix, name in names.items():
        # The errors of aligned references are rounded when they are written and read again.
        rounded = suffix in ("psfsub", "i2d", "snr", "contrast")
        same_file(run / name, hand / name, tolerance=1e-4 if rounded else 0.0)
        with datamodels.open(run / name) as ours, datamodels.open(hand / name) as theirs:
            same_provenance(provenance_of(ours), provenance_of(theirs))


@pytest.fixture(scope="module")
def rolls(tmp_path_factory):
    """Return a small observation of two rolls, with a bright companion and no disc."""
    from lyot.simulate import Companion, Scene, simulate_observation

    scene = Scene(
        shape=(64, 66),
        rolls_deg=(0.0, 40.0),
        n_int=3,
        n_int_psf=2,
        n_dither=3,
        disc=None,
        companions=(Companion(separation_arcsec=1.2, pa_deg=130.0, contrast=1e-3),),
    )
    return simulate_observation(tmp_path_factory.mktemp("rolls"), scene, seed=8)


@pytest.mark.parametrize(("strategy", "n_refs"), [("rdi", 6), ("adi", 3), ("adi+rdi", 9)])
def test_each_strategy_finds_the_companion(rolls, tmp_path, strategy, n_refs):
    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.strategy = str(tmp_path), strategy
    pipeline.klip.truncate = [3]
    image = pipeline.run(str(rolls))
    assert [line["references"] for line in pipeline.summary] == [n_refs, n_refs]
    planned = set(pipeline.plan(str(rolls)).products)
    assert {p.name for p in tmp_path.iterdir()} == planned
    for path in tmp_path.glob("*psfsub.fits"):
        with datamodels.open(path) as model:
            align = provenance_of(model)["steps"]["align_psfs"]
            rolls_of_refs = np.asarray(align["ref_pa_y_deg"])
            target = {str(name) for name in align["ref_targets"]}
        # The roll itself is never among its own references.
        assert len(target) == {"rdi": 1, "adi": 1, "adi+rdi": 2}[strategy]
        assert len(rolls_of_refs) == n_refs
    pa = np.radians(130.0)
    dec = -25.0 + 1.2 * np.cos(pa) / 3600
    ra = 150.0 + 1.2 * np.sin(pa) / 3600 / np.cos(np.radians(-25.0))
    x, y = (float(v) for v in image.meta.wcs.invert(ra, dec))
    data = np.nan_to_num(np.asarray(image.data, float))
    star = star_of(image)
    r = radius_map(data.shape, (y, x))
    ring = np.abs(radius_map(data.shape, star.yx) - np.hypot(y - star.y, x - star.x)) < 2
    elsewhere = data[ring & (r > 5)]
    assert data[r < 1.5].max() > 5 * np.std(elsewhere)


def one_exposure(small, folder, name, **association):
    """An association of the exposures of a small observation, the science one renamed."""
    content = json.loads(small.read_text())
    for member in content["products"][0]["members"]:
        source = small.parent / member["expname"]
        if member["exptype"] == "science":
            member["expname"] = name
        (folder / member["expname"]).write_bytes(source.read_bytes())
    path = folder / "x_asn.json"
    path.write_text(json.dumps(content | association))
    return path


def test_a_product_never_replaces_a_member(small, tmp_path):
    path = one_exposure(small, tmp_path, "t1_crfints.fits", asn_id="")
    with pytest.raises(LyotError, match=r"t1_crfints\.fits would replace the member"):
        Coron3Pipeline(output_dir=str(tmp_path)).plan(path)
    assert Coron3Pipeline(output_dir=str(tmp_path / "other")).plan(path).exposures


def test_compressed_flags_are_those_that_are_not(small, tmp_path):
    for compress in (False, True):
        pipeline = Coron3Pipeline(compress_dq=compress)
        pipeline.output_dir = str(tmp_path / str(compress))
        pipeline.run(small)
    plain, packed = (next((tmp_path / n).glob("*_psfalign.fits")) for n in ("False", "True"))
    assert packed.stat().st_size < 0.8 * plain.stat().st_size
    with datamodels.open(plain) as one, datamodels.open(packed) as other:
        assert type(one) is type(other)
        assert one.dq.any()
        for name in ("data", "err", "dq"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    with open_run(packed.parent) as observation:
        assert np.isfinite(observation.exposures[0].aligned.sci).any()
    with pytest.raises(LyotError, match=r"DQ of .* is a compressed image; decompress it"):
        KlipStep().run(str(next(packed.parent.glob("*_crfints.fits"))), str(packed))


def test_an_analysis_has_finished_products_and_its_failure_spoils_none(small, tmp_path):
    names = []

    def analyze():
        for kind in ("psfstack", "crfints", "psfalign", "psfsub"):
            for path in tmp_path.glob(f"*_{kind}.fits"):
                with fits.open(path) as hdus:
                    names.append(hdus["ASDF"].data.nbytes and kind)
        raise LyotError("Nothing was found.")

    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.analyze = str(tmp_path), analyze
    with pytest.raises(LyotError, match="Nothing was found"):
        pipeline.run(small)
    assert set(names) == {"psfstack", "crfints", "psfalign", "psfsub"}
    for kind in ("i2d", "snr", "contrast"):
        [path] = tmp_path.glob(f"*_{kind}.fits")
        with fits.open(path) as hdus:
            assert "ASDF" in hdus


def test_copies_of_an_exposure_are_refused(small, tmp_path):
    path = one_exposure(small, tmp_path, "t1_calints.fits")
    names = [m["expname"] for m in json.loads(path.read_text())["products"][0]["members"]]
    (tmp_path / names[-1]).write_bytes((tmp_path / "t1_calints.fits").read_bytes())
    with pytest.raises(LyotError, match="are copies of one exposure"):
        Coron3Pipeline(output_dir=str(tmp_path / "out")).run(str(path))
    assert not list((tmp_path / "out").glob("*.fits"))


def test_a_target_acquisition_is_used_for_the_star(small, tmp_path):
    """It is found in the folder by its header, weighed with the frames, and recorded."""
    truth = json.loads((small.parent / "truth.json").read_text())["exposures"]
    files = [Path(shutil.copy(path, tmp_path)) for path in small.parent.glob("*_calints.fits")]
    [science] = [path for path in files if "9001001" in path.name]
    fits.setval(science, "VISIT_ID", value="09999001001")
    fits.setval(science, "GDSTARID", value="S1AB000001")
    star = truth[science.name]["star_xy"]
    acquisition = acquisition_of(science, tmp_path, star_xy=star)
    planned = lyot("run", tmp_path, "-o", tmp_path / "out", "--plan")
    assert f"star by {acquisition.name}" in planned.output
    pipeline = Coron3Pipeline()
    pipeline.output_dir = str(tmp_path / "out")
    [content] = build_associations([tmp_path])
    pipeline.run(content)
    [product] = (tmp_path / "out").glob("*psfsub.fits")
    with datamodels.open(product) as model:
        steps, found = provenance_of(model)["steps"], star_of(model)
    assert found.origin == "measured and acquisition"
    assert steps["association"]["acquisitions"] == {science.name: [acquisition.name]}
    assert acquisition.name in steps["association"]["sha256"]
    acquired = steps["align_psfs"]["star_by_acquisitions"]
    assert (acquired["x"], acquired["y"]) == pytest.approx(star, abs=0.1)
    assert found.x_err < acquired["x_err"] == pytest.approx(0.020 / 0.063, rel=0.05)

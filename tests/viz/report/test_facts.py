"""The facts of a report: read from a run's folder, equal to what the products hold."""

import json
import re
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from stdatamodels.jwst.datamodels.dqflags import pixel

from lyot.errors import LyotError
from lyot.pipeline import Coron3Pipeline
from lyot.viz.report.facts import read_facts
from robustness.fitsbytes import tree_of, with_tree


@pytest.fixture(scope="module")
def facts(demo):
    return read_facts(demo.folder, command=None, products=None)


def test_every_exposure_is_there_before_and_after_subtraction(facts, demo):
    products = sorted(demo.folder.glob("*_psfsub.fits"))
    roots = [path.name.removesuffix("_psfsub.fits") for path in products]
    assert [exposure.root for exposure in facts.exposures] == roots
    for exposure, path in zip(facts.exposures, products, strict=True):
        np.testing.assert_array_equal(exposure.best.view.data, fits.getdata(path, "SCI"))
        flagged = demo.folder / f"{exposure.root}_crfints.fits"
        np.testing.assert_array_equal(exposure.before, fits.getdata(flagged, "SCI"))


def test_the_reduction_is_told_by_numbers_that_agree(facts):
    for exposure in facts.exposures:
        align, best = exposure.alignment, exposure.best
        n_int, n_ref = len(best.view.data), len(align.targets)
        assert align.shift_yx.shape == (n_int, n_ref, 2)
        assert align.converged.shape == align.scale.shape == (n_int, n_ref)
        assert best.n_modes_used <= min(best.n_modes, n_ref)
        assert best.rms_after < best.rms_before


def test_one_alignment_may_serve_all_integrations(small, tmp_path):
    pipeline = Coron3Pipeline(strategy="rdi")
    pipeline.align_refs.align_to, pipeline.output_dir = "first", str(tmp_path)
    pipeline.run(str(small))
    [exposure] = read_facts(tmp_path, command=None, products=None).exposures
    assert exposure.alignment.shift_yx.shape[0] == 1 < len(exposure.best.view.data)


def test_pixels_are_counted_by_the_names_of_their_flags(facts, demo):
    counted = {counts.product: counts for counts in facts.pixels}
    paths = [*demo.folder.glob("*_crfints.fits"), *demo.folder.glob("*_psfstack.fits")]
    assert set(counted) == {path.name for path in paths}
    for path in paths:
        dq, counts = fits.getdata(path, "DQ").astype(np.uint32), counted[path.name]
        unusable = (dq & np.uint32(pixel["DO_NOT_USE"])) != 0
        assert counts.unusable_fraction == pytest.approx(unusable.mean(), rel=1e-12)
        assert counts.n_outliers == ((dq & np.uint32(pixel["OUTLIER"])) != 0).sum()
        assert counts.n_saturated == ((dq & np.uint32(pixel["SATURATED"])) != 0).sum()
        assert counts.n_frames == len(dq)


def test_only_the_named_products_are_read(demo):
    one = demo.product("_psfsub.fits").name
    names = [one, demo.product("_i2d.fits").name]
    facts = read_facts(demo.folder, command=None, products=names)
    assert [f"{exposure.root}_psfsub.fits" for exposure in facts.exposures] == [one]


def test_a_folder_without_a_combined_image_is_refused(tmp_path):
    with pytest.raises(LyotError, match="holds no combined image"):
        read_facts(tmp_path, command=None, products=None)


@pytest.fixture(scope="module")
def part(demo, tmp_path_factory):
    """One exposure of the run, and the combined image."""
    folder = tmp_path_factory.mktemp("part")
    for ending in ("_i2d.fits", "_psfsub.fits", "_crfints.fits"):
        shutil.copy(demo.product(ending), folder)
    return folder


@pytest.mark.parametrize(
    ("ending", "before", "after"),
    [
        ("_psfsub.fits", b"n_kept: ", b"n_kept: x"),
        ("_psfsub.fits", b"shift_yx:", b"shift:"),
        ("_psfsub.fits", b"star_yx: [", b"star_yx: [1, "),
        ("_psfsub.fits", b"  plane:", b"  plane: []\n      level:"),
        ("_psfsub.fits", b"rms_after:", b"rms_after: 1\n      rms_later:"),
        ("_i2d.fits", b"sha256: ", b"sha256: 7\n      other: "),
        ("_i2d.fits", b"n_modes: ", b"n_modes: x"),
    ],
)
def test_a_record_that_was_changed_is_named(part, tmp_path, ending, before, after):
    shutil.copytree(part, tmp_path, dirs_exist_ok=True)
    [path] = tmp_path.glob(f"*{ending}")
    tree = tree_of(path)
    assert before in tree
    with_tree(path, tree.replace(before, after))
    with pytest.raises(LyotError, match=f"{path.name} cannot be read .*; run the pipeline again"):
        read_facts(tmp_path, command=None, products=None)


@pytest.mark.parametrize("x", ["[1, 2]", ".nan", "''"])
def test_a_star_that_was_changed_is_named(part, tmp_path, x):
    shutil.copytree(part, tmp_path, dirs_exist_ok=True)
    [path] = tmp_path.glob("*_psfsub.fits")
    with_tree(
        path,
        re.sub(rb"(\n  star:.*?\W)x: [\d.]+", rb"\1x: " + x.encode(), tree_of(path), flags=re.S),
    )
    with pytest.raises(LyotError, match=f"{path.name} cannot be read .*; fetch it again"):
        read_facts(tmp_path, command=None, products=None)


def test_a_table_that_was_changed_is_named(part, tmp_path):
    shutil.copytree(part, tmp_path, dirs_exist_ok=True)
    name = read_facts(part, command=None, products=None).name
    for kind in ("limits", "candidates"):
        path = tmp_path / f"{name}_{kind}.ecsv"
        Table({"separation": ["near"], "n_modes": [3]}).write(path, format="ascii.ecsv")
        with pytest.raises(
            LyotError, match=f"{path.name} cannot be read .*; run the analysis again"
        ):
            read_facts(tmp_path, command=None, products=None)
        path.unlink()


@pytest.mark.parametrize("record", [{"products": True}, {"command": 5}])
def test_a_record_of_the_run_that_was_changed_is_a_sentence(part, tmp_path, record):
    shutil.copytree(part, tmp_path, dirs_exist_ok=True)
    (tmp_path / "a_run.json").write_text(json.dumps(record))
    with pytest.raises(LyotError, match=r"cannot be read .*; run the pipeline again"):
        read_facts(tmp_path, command=None, products=None)

"""References that may spoil a subtraction are told, and others are not."""

import json
import shutil

import numpy as np
import pytest
from astropy.io import fits

from lyot.files.aligned import AlignedFrames, ReferenceInfo
from lyot.files.exposure import Cube
from lyot.files.star import StarPosition
from lyot.instruments import NIRCAM
from lyot.parameters import AlignRecipe
from lyot.pipeline import Coron3Pipeline
from lyot.references.prepare import prepare_refs
from lyot.references.vet import find_contaminated, find_saturated
from scenes import info

SHAPE, STAR = (90, 92), StarPosition(46.0, 45.0)
INFO = info((1, *SHAPE), target="T")


@pytest.fixture
def refs(star_image, rng):
    """Nine references of three stars that share speckles, which change by a tenth."""
    images = [1e3 * star_image(SHAPE, seed=s) for s in (1, 2, 3)]
    mix = np.array([1.0, 0.5, 0.3]) * (1 + 0.1 * rng.normal(size=(9, 3)))
    sci = np.tensordot(mix, images, 1) + rng.normal(size=(9, *SHAPE))
    ref_info = ReferenceInfo(
        tuple("ABC"[k // 3] for k in range(9)), 40.0 + 10.0 * np.arange(9.0), np.zeros(9)
    )
    return sci.astype(np.float32), ref_info


def frames(sci):
    return AlignedFrames(sci, np.ones_like(sci), np.zeros(sci.shape, np.uint32))


def test_clean_references_raise_no_doubt(refs):
    sci, ref_info = refs
    assert find_contaminated(frames(sci), ref_info, STAR, INFO) == []
    assert find_contaminated(frames(sci), None, STAR, INFO) == []


def test_a_source_in_a_reference_is_found_where_it_is(refs):
    sci, ref_info = refs
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    at = (STAR.y + 22.0, STAR.x - 12.0)
    source = 60.0 * np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / 1.0**2)
    sci[4] += source.astype(np.float32)
    [doubt] = find_contaminated(frames(sci), ref_info, STAR, INFO)
    assert (doubt.reference, doubt.target) == (4, "B")
    separation = np.hypot(22.0, 12.0) * 0.063
    pa = np.degrees(np.arctan2(12.0, 22.0)) + ref_info.pa_y_deg[4]
    assert f"at {separation:.2f} arcsec, position angle {pa:.0f}" in doubt.reason


def test_hot_and_predicted_pixels_are_no_sources(refs):
    sci, ref_info = refs
    sci[4, 60, 30] += 3000.0
    dq = np.zeros(sci.shape, np.uint32)
    sci[7, 30:33, 60:63] += 3000.0
    dq[7, 30:33, 60:63] = NIRCAM.flag_value("FLUX_ESTIMATED")
    flagged = AlignedFrames(sci, np.ones_like(sci), dq)
    assert find_contaminated(flagged, ref_info, STAR, INFO) == []


def test_one_star_alone_cannot_be_judged(refs):
    sci, ref_info = refs
    alone = ReferenceInfo(("A",) * 9, ref_info.pa_y_deg, ref_info.mjd)
    assert find_contaminated(frames(sci), alone, STAR, INFO) == []


def test_saturated_references_are_told(refs):
    sci, ref_info = refs
    dq = np.zeros(sci.shape, np.uint32)
    dq[2, 40:44, 46] = 2
    dq[5, 45, 46] = 2  # one pixel is a hit, or a bad pixel
    dq[7, :4, :4] = 2  # far from the star
    stack = Cube(sci, np.ones_like(sci), dq, INFO, targets=ref_info.targets)
    [doubt] = find_saturated(prepare_refs(stack, AlignRecipe()), STAR)
    assert (doubt.reference, doubt.target) == (2, "A")
    assert doubt.reason == "4 pixels within 1 arcsec are saturated"


def test_a_run_warns_and_its_products_say_so(small, tmp_path, caplog):
    folder = tmp_path / "in"
    shutil.copytree(small.parent, folder)
    path = sorted(folder.glob("jw09999002*"))[1]
    with fits.open(path, mode="update") as hdus:
        hdus["DQ"].data[1, 20:26, 26] |= 2
    pipeline = Coron3Pipeline()
    pipeline.output_dir = str(tmp_path / "out")
    pipeline.run(str(folder / small.name))
    assert "Reference 4 of" in caplog.text
    assert "6 pixels within 1 arcsec are saturated" in caplog.text
    [doubt] = pipeline.summary[0]["reference_warnings"]
    assert doubt["reference"] == 3
    assert json.dumps(pipeline.summary)

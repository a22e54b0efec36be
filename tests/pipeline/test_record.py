"""What products record of their run."""

import json
from pathlib import Path

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

from lyot.files.association import Association
from lyot.files.headers import ExposureInfo
from lyot.files.provenance import provenance_of, set_provenance
from lyot.parameters import Recipe, SubtractRecipe, from_dict
from lyot.pipeline.plan import RunParameters, make_plan
from lyot.pipeline.record import Record, record_library, summary_of

SCIENCE, STAR = Path("a_calints.fits"), Path("b_calints.fits")
INFOS = {path: ExposureInfo(path.name, (2, 8, 8)) for path in (SCIENCE, STAR)}
ASN = Association("p", (SCIENCE,), (STAR,), asn_id="a3001", pool="pool.csv", table="p_asn.json")


@pytest.fixture
def plan():
    recipe = Recipe(subtract=SubtractRecipe(n_modes=(3,)))
    return make_plan(ASN, INFOS, RunParameters(recipe=recipe))


@pytest.fixture
def model():
    cube = datamodels.CubeModel(np.zeros((2, 8, 8), np.float32))
    cube.meta.filename = "a_a3001_psfsub.fits"
    klip = {
        "n_modes": 3,
        "n_kept": 2,
        "rms_before": np.array([[4.0, 6.0]]),
        "rms_after": np.array([[1.0, np.nan]]),
        "recipe": {},
    }
    shift = np.zeros((2, 5, 2))
    shift[1, 4] = (3.0, 4.0)
    steps = {"align_psfs": {"shift_yx": shift, "reference_warnings": []}, "klip": klip}
    set_provenance(cube, {"steps": steps, "star": {"x": 1.0, "y": 2.0}})
    return cube


def test_a_subtracted_exposure_says_what_its_run_was(plan, model):
    Record(plan, {"a_calints.fits": "00", "b_calints.fits": "11"}).exposure(
        model, library={}, backgrounds={}
    )
    branch = provenance_of(model)
    made = branch["steps"]["association"]
    assert (made["product"], made["table"]) == ("p", "p_asn.json")
    assert (made["science"], made["psf"]) == ([SCIENCE.name], [STAR.name])
    assert made["sha256"]["b_calints.fits"] == "11"
    assert from_dict(Recipe, branch["recipe"]) == plan.parameters.recipe
    assert (model.meta.asn.pool_name, model.meta.asn.table_name) == ("pool.csv", "p_asn.json")
    assert "library" not in branch["steps"]


def test_frames_of_a_library_are_named(plan, model):
    Record(plan, {}).exposure(model, library={"frames": ["c[1]"]}, backgrounds={})
    assert provenance_of(model)["steps"]["library"] == {"frames": ["c[1]"]}
    stack = datamodels.CubeModel()
    set_provenance(stack, {"steps": {"stack_psfs": {}}})
    record_library(stack, {})
    assert provenance_of(stack)["steps"]["stack_psfs"] == {}
    record_library(stack, {"frames": ["c[1]"]})
    assert provenance_of(stack)["steps"]["stack_psfs"]["library"] == {"frames": ["c[1]"]}


def test_a_combined_image_names_its_exposures(plan, model):
    image = datamodels.ImageModel(np.zeros((8, 8), np.float32))
    set_provenance(image, {"steps": {"resample": {}}})
    Record(plan, {}).image(image, [model])
    branch = provenance_of(image)
    assert list(branch["steps"]) == ["association", "resample"]
    assert branch["exposures"]["a_a3001_psfsub.fits"]["n_kept"] == 2


def test_the_summary_is_plain_and_says_the_numbers(plan, model):
    [exposure] = plan.exposures
    line = summary_of(exposure, model)
    assert json.loads(json.dumps(line)) == line
    assert (line["exposure"], line["integrations"], line["references"]) == (SCIENCE.name, 2, 5)
    assert (line["median_shift_pix"], line["largest_shift_pix"]) == (0.0, 5.0)
    assert (line["rms_before"], line["rms_after"]) == (5.0, 1.0)

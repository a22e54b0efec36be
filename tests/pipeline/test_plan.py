"""What a run will do follows from headers and parameters alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lyot.errors import LyotError
from lyot.files.association import Association
from lyot.files.headers import ExposureInfo
from lyot.parameters import (
    AlignRecipe,
    LibraryRecipe,
    Recipe,
    ReferenceParameters,
    SaveParameters,
    SubtractRecipe,
)
from lyot.pipeline.plan import RunParameters, check_memory, make_plan

A, B, C = (Path(f"roll{k}_calints.fits") for k in "abc")
STAR, OTHER = Path("star1_calints.fits"), Path("star2_calints.fits")
INFOS = {
    A: ExposureInfo(A.name, (3, 20, 30), roll_ref_deg=10.0),
    B: ExposureInfo(B.name, (4, 20, 30), roll_ref_deg=20.0),
    C: ExposureInfo(C.name, (4, 20, 30), roll_ref_deg=10.2),
    STAR: ExposureInfo(STAR.name, (5, 20, 30), roll_ref_deg=15.0),
    OTHER: ExposureInfo(OTHER.name, (20, 30), roll_ref_deg=15.0),
}
ASN = Association("product", (A, B), (STAR, OTHER), asn_id="c1001", table="x_asn.json")
NO_STARS = replace(ASN, psf=())


def by(strategy, **more):
    return RunParameters(references=ReferenceParameters(strategy=strategy, **more))


def references(association, strategy="auto"):
    plan = make_plan(association, INFOS, by(strategy))
    return [exposure.references for exposure in plan.exposures]


def test_each_strategy_takes_its_references():
    assert references(ASN) == [(STAR, OTHER)] * 2
    assert references(ASN, "rdi") == [(STAR, OTHER)] * 2
    assert references(ASN, "adi") == [(B,), (A,)]
    assert references(ASN, "adi+rdi") == [(B, STAR, OTHER), (A, STAR, OTHER)]
    assert references(NO_STARS) == [(B,), (A,)]


def test_a_memory_that_many_references_do_not_fit_is_refused():
    parameters = replace(by("rdi", library="lib"), library=LibraryRecipe(n=0))
    plan = make_plan(ASN, INFOS, parameters, n_library=2000)
    with pytest.raises(LyotError, match=r"memory is 700 MB, and a run with 20\d\d references"):
        check_memory(plan, 700_000_000)
    for n_bytes in (0, 2_000_000_000):
        check_memory(plan, n_bytes)
    check_memory(make_plan(ASN, INFOS, by("rdi")), 700_000_000)


def test_rolls_that_are_nearly_equal_are_not_subtracted_from_one_another():
    three = replace(NO_STARS, science=(A, B, C))
    assert references(three, "adi") == [(B,), (A, C), (B,)]
    with pytest.raises(LyotError, match="no science exposure at another roll than rolla"):
        references(replace(NO_STARS, science=(A, C)))


def test_a_roll_across_north_is_no_large_difference():
    near = {
        A: replace(INFOS[A], roll_ref_deg=359.9),
        B: replace(INFOS[B], roll_ref_deg=0.1),
    }
    with pytest.raises(LyotError, match="at another roll"):
        make_plan(NO_STARS, near, by("adi"))


def test_auto_is_resolved_and_says_when_it_falls_back():
    assert make_plan(ASN, INFOS, RunParameters()).warnings == ()
    plan = make_plan(NO_STARS, INFOS, RunParameters())
    assert plan.parameters.references.strategy == "adi"
    [warning] = plan.warnings
    assert "x_asn.json has no member of exptype 'psf'" in warning
    assert "Warning: x_asn.json has no member" in str(plan)


def test_a_library_stands_in_for_reference_stars():
    parameters = replace(by("auto", library="lib"), library=LibraryRecipe(n=50))
    plan = make_plan(NO_STARS, INFOS, parameters, n_library=40)
    assert plan.parameters.references.strategy == "rdi"
    assert [e.n_references for e in plan.exposures] == [40, 40]
    # Each exposure chooses frames of its own, so each has a stack of its own.
    assert len({e.psfstack for e in plan.exposures}) == 2
    more = make_plan(ASN, INFOS, parameters, n_library=400)
    assert [e.n_references for e in more.exposures] == [56, 56]
    every = replace(parameters, library=LibraryRecipe(n=0))
    assert make_plan(NO_STARS, INFOS, every, n_library=400).exposures[0].n_references == 400
    with pytest.raises(LyotError, match="takes no reference star"):
        make_plan(ASN, INFOS, by("adi", library="lib"), n_library=40)


def test_references_that_are_missing_are_refused():
    with pytest.raises(LyotError, match="has no member of exptype 'psf'; add reference"):
        make_plan(NO_STARS, INFOS, by("adi+rdi"))
    with pytest.raises(LyotError, match="has no member of exptype 'psf'; add reference"):
        make_plan(NO_STARS, INFOS, by("rdi"))


def test_exposures_of_another_mode_are_refused():
    other = INFOS | {STAR: replace(INFOS[STAR], shape=(5, 21, 30))}
    with pytest.raises(LyotError, match="they must be equal"):
        make_plan(ASN, other, RunParameters())


def test_products_are_named_after_their_exposure_and_association():
    plan = make_plan(ASN, INFOS, RunParameters())
    assert list(plan.products) == [
        "product_psfstack.fits",
        "rolla_c1001_crfints.fits",
        "rolla_c1001_psfalign.fits",
        "rolla_c1001_psfsub.fits",
        "rollb_c1001_crfints.fits",
        "rollb_c1001_psfalign.fits",
        "rollb_c1001_psfsub.fits",
        "product_i2d.fits",
        "product_snr.fits",
        "product_contrast.fits",
    ]
    adi = make_plan(ASN, INFOS, by("adi"))
    assert [e.psfstack for e in adi.exposures] == [
        "rolla_c1001_psfstack.fits",
        "rollb_c1001_psfstack.fits",
    ]


def test_several_numbers_of_modes_give_a_product_each():
    recipe = Recipe(subtract=SubtractRecipe(n_modes=(3, 20)))
    plan = make_plan(ASN, INFOS, RunParameters(recipe=recipe))
    assert plan.exposures[0].psfsub == (
        "rolla_c1001_k003_psfsub.fits",
        "rolla_c1001_k020_psfsub.fits",
    )
    assert [image.image for image in plan.images] == [
        "product_k003_i2d.fits",
        "product_k020_i2d.fits",
    ]


def test_the_disk_needed_is_that_of_the_arrays():
    plan = make_plan(ASN, INFOS, RunParameters())
    size = plan.products
    assert size["product_psfstack.fits"] == 12 * 6 * 600
    assert size["rolla_c1001_psfalign.fits"] == 12 * 3 * 6 * 600
    assert size["rollb_c1001_psfsub.fits"] == 12 * 4 * 600
    assert plan.n_bytes == sum(size.values())
    first = Recipe(align=AlignRecipe(align_to="first"))
    plan = make_plan(ASN, INFOS, RunParameters(recipe=first))
    assert plan.products["rolla_c1001_psfalign.fits"] == 12 * 6 * 600


def test_what_is_not_wanted_is_not_planned():
    parameters = RunParameters(
        save=SaveParameters(save_crfints=False, save_psfstack=False, save_psfalign=False),
        contrast=False,
    )
    names = list(make_plan(ASN, INFOS, parameters).products)
    assert names == ["rolla_c1001_psfsub.fits", "rollb_c1001_psfsub.fits", "product_i2d.fits"]
    assert make_plan(ASN, INFOS, replace(parameters, combine=False)).images == ()


def test_a_plan_prints_and_is_json():
    parameters = by("auto", library="lib")
    plan = make_plan(ASN, INFOS, parameters, n_library=7)
    content = json.loads(json.dumps(plan.to_dict()))
    assert content["n_bytes"] == plan.n_bytes
    assert content["exposures"][0]["references"] == [STAR.name, OTHER.name]
    assert content["parameters"]["subtract"]["n_modes"] == [50]
    text = str(plan)
    for part in (
        "PSF reference stars (rdi)",
        "at most 13 reference frames",
        "rolla_c1001_psfalign.fits",
    ):
        assert part in text
    assert make_plan(ASN, INFOS, parameters, n_library=7) == plan


def test_two_members_of_one_name_are_refused():
    twice = replace(ASN, science=(A, Path("rolla_cal.fits")))
    with pytest.raises(LyotError, match=r"would both make rolla_c1001_crfints\.fits"):
        make_plan(twice, {**INFOS, Path("rolla_cal.fits"): INFOS[A]}, by("auto"))


def test_other_units_and_pupils_are_refused():
    raw = {path: replace(info, unit="DN/s") for path, info in INFOS.items()}
    with pytest.raises(LyotError, match="must be calibrated to MJy/sr"):
        make_plan(ASN, raw, by("auto"))
    named = {"unit": "MJy/sr", "pupil": "MASKRND", "subarray": "SUB320A335R"}
    infos = {path: replace(info, **named) for path, info in INFOS.items()}
    assert make_plan(ASN, infos, by("auto")).warnings == ()
    for key, value in {"unit": "DN/s", "pupil": "MASKBAR", "subarray": "FULL"}.items():
        changed = {**infos, STAR: replace(infos[STAR], **{key: value})}
        with pytest.raises(LyotError, match=f"taken with {key} {value}"):
            make_plan(ASN, changed, by("auto"))


def test_a_plan_says_what_is_strange_in_the_headers():
    infos = {**INFOS, A: replace(INFOS[A], is_psf=True, roll_ref_deg=float("nan"))}
    says_psf, says_roll = make_plan(ASN, infos, by("rdi")).warnings
    assert "rolla_calints.fits is a science member" in says_psf
    assert "rolla_calints.fits records no roll" in says_roll


def test_acquisitions_tell_the_star_of_their_own_visit():
    """Where the star's position is not given; the plan says why the others do not."""
    first, other, listed = (Path(f"{name}_cal.fits") for name in ("first", "other", "gone"))
    lock = {"visit": "01184001001", "guide_star": "S1"}
    infos = INFOS | {
        A: replace(INFOS[A], aperture="MASK", **lock),
        first: ExposureInfo(first.name, (8, 8), aperture="TA", exposure_type="NRC_TACQ", **lock),
        other: ExposureInfo(other.name, (8, 8), aperture="TA", exposure_type="NRC_TACONFIRM"),
    }
    asn = replace(ASN, acquisitions=(first, other), unused=((listed.name, "target_acquisition"),))
    plan = make_plan(asn, infos, RunParameters())
    assert plan.acquisitions == {A: (first,)}
    assert plan.unused == (
        (listed.name, "target_acquisition"),
        (other.name, "confirmation: it is of another visit"),
    )
    assert "    star by first_cal.fits" in str(plan).splitlines()
    assert plan.to_dict()["acquisitions"] == {A.name: [first.name]}
    given = make_plan(asn, infos, RunParameters(recipe=Recipe(star_xy=(10.0, 9.0))))
    assert given.acquisitions == {}
    assert (first.name, "target_acquisition: the position of the star is given") in given.unused

"""A detection that rests on one reference star is told from one that does not."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.analysis.brightness import star_brightness
from lyot.analysis.detection import detect
from lyot.analysis.exposure import exposure_of_run, make_exposure
from lyot.analysis.observation import make_observation
from lyot.analysis.psf import psf_from_image
from lyot.analysis.statistic import Statistic
from lyot.errors import LyotError
from lyot.files.aligned import AlignedArrays, ReferenceInfo
from lyot.files.run import open_products
from lyot.files.star import StarPosition
from lyot.instruments import NIRCAM
from lyot.parameters import SubtractRecipe, from_dict
from scenes import aligned, cube

SHAPE, STAR = (101, 103), StarPosition(51.0, 50.0)


@pytest.fixture(scope="module")
def observation():
    """Two sources: one in the target, one that is a hole in the references of one star."""
    rng = np.random.default_rng(8)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    halo = 400.0 * np.exp(-np.hypot(y - STAR.y, x - STAR.x) / 8.0)
    patterns = halo * rng.uniform(0.5, 1.5, size=(3, *SHAPE))

    def spot(dy, dx, peak):
        return peak * np.exp(-0.5 * ((y - STAR.y - dy) ** 2 + (x - STAR.x - dx) ** 2) / 1.1**2)

    refs = np.tensordot(rng.uniform(0.5, 1.5, size=(9, 3)), patterns, 1)
    targets = np.tensordot(rng.uniform(0.8, 1.2, size=(2, 3)), patterns, 1)
    refs[6:] -= spot(-20.0, 10.0, 60.0)
    targets = targets + spot(15.0, -18.0, 12.0)
    targets += rng.normal(size=targets.shape)
    refs += 0.5 * rng.normal(size=refs.shape)
    target = cube(targets, 1.0, coronagraph="MASKA335R", target="T", roll_ref_deg=0.0)
    ref_info = ReferenceInfo(tuple("AAABBBCCC"), np.zeros(9), np.zeros(9))
    references = aligned(refs, 0.5, star=STAR, ref_info=ref_info)
    recipe = SubtractRecipe(n_modes=(3,), level_inner_arcsec=0.0)
    exposure = make_exposure(target, references, STAR, recipe)
    py, px = np.mgrid[-8:9, -8:9]
    psf = psf_from_image(np.exp(-0.5 * (px**2 + py**2) / 1.1**2), origin="a Gaussian")
    star = star_brightness(NIRCAM.filter("F444W"), jy=1.0)
    return make_observation("t", [exposure], recipe, psf=psf, star=star)


def test_a_run_is_read_as_if_it_were_subtracted_again(demo):
    def exposures(change):
        with open_products(demo.folder) as (_, [run, *_]):
            changed = replace(run, views=[change(view) for view in run.views])
            exposure = exposure_of_run(changed, from_dict(SubtractRecipe, run.recipe))
            box = slice(30, 49), slice(32, 51)
            light = np.random.default_rng(0).uniform(size=(1, 19, 19))
            return exposure, exposure.response.of_images(box, light, box)

    def without_fits(view):
        steps = view.provenance["steps"]
        klip = {name: value for name, value in steps["klip"].items() if name != "fits"}
        return replace(view, provenance=view.provenance | {"steps": steps | {"klip": klip}})

    taken, light = exposures(lambda view: view)
    made, expected = exposures(without_fits)
    np.testing.assert_array_equal(taken.residual, made.residual)
    np.testing.assert_allclose(taken.variance, made.variance, rtol=1e-6)
    np.testing.assert_array_equal(taken.bad, made.bad)
    np.testing.assert_allclose(light, expected, atol=1e-12)
    brighter, _ = exposures(lambda view: replace(view, data=view.data + 1.0))
    np.testing.assert_allclose(brighter.residual, made.residual + 1.0, atol=1e-4)


def test_what_rests_on_one_star_is_told(observation):
    found = detect(observation, statistic=Statistic(fpf=1e-4))
    places = {}
    for c in found.candidates:
        pa = np.radians(c.pa_deg)
        r = c.separation_arcsec / 0.063
        places[round(r * np.cos(pa)), round(-r * np.sin(pa))] = c
    real = next(c for (dy, dx), c in places.items() if abs(dy - 15) < 2 and abs(dx + 18) < 2)
    hole = next(c for (dy, dx), c in places.items() if abs(dy + 20) < 2 and abs(dx - 10) < 2)
    assert real.jackknife_snr > 0.6 * real.snr
    assert hole.key_reference == "C"
    assert hole.jackknife_snr < 3.0 < hole.snr


def test_without_references_is_a_reduction_with_the_others(observation):
    [exposure] = observation.exposures
    out = np.array([name == "B" for name in exposure.aligned.ref_info.targets])
    made = exposure.without_refs(out)
    refs = exposure.aligned
    others = AlignedArrays(*(array[~out] for array in (refs.sci, refs.err, refs.dq)))
    alone = make_exposure(exposure.target, others, STAR, observation.recipe)
    np.testing.assert_array_equal(made.residual, alone.residual)
    assert made.aligned.ref_info.targets == tuple("AAACCC")
    with pytest.raises(LyotError, match="have been excluded from this exposure already"):
        made.without_refs(out[:6])

"""A method of one's own: one class, and one row of the table, followed through everything."""

import numpy as np
import pytest
from astropy.io import fits

from lyot.analysis.companion import fit_companions
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.observation import open_run
from lyot.errors import LyotError
from lyot.parameters import SubtractRecipe
from lyot.pipeline import Coron3Pipeline
from lyot.subtraction.methods import METHODS, Method, method_of


class BestReference(Method):
    """For each target the one reference that lowers its residual most, scaled to it."""

    selects = True
    takes_choice = False

    def select(self, gram, cross):
        """Return the reference with the largest ``b_k^2 / G_kk``."""
        return np.arange(len(cross)) == np.argmax(cross**2 / np.diagonal(gram))


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory):
    """Return two reductions: by the toy method, and by KLIP with one chosen reference."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "best", BestReference())
        for name, klip in (
            ("best", {"method": "best"}),
            ("chosen", {"method": "klip", "select": "residual", "n_refs": 1}),
        ):
            folders[name] = tmp_path_factory.mktemp(name)
            pipeline = Coron3Pipeline()
            pipeline.output_dir = str(folders[name])
            for key, value in klip.items():
                setattr(pipeline.klip, key, value)
            pipeline.klip.truncate = [1]
            pipeline.run(str(small))
        yield folders


def read(folder, suffix):
    [path] = folder.glob(f"*_{suffix}.fits")
    return fits.getdata(path).astype(float)


def test_the_pipeline_subtracts_by_it(runs):
    targets, refs = read(runs["best"], "crfints"), read(runs["best"], "psfalign")
    flags = fits.getdata(next(runs["best"].glob("*_crfints.fits")), "DQ")
    result = read(runs["best"], "psfsub")
    for target, own_refs, residual, dq in zip(targets, refs, result, flags, strict=True):
        # The pixels of the fit are those that are good in this integration: as many as are not
        # NaN in the product.
        good = np.isfinite(residual)
        assert not (good & (dq & 1 > 0)).any()
        t, r = target[good], own_refs[:, good]
        t, r = t - t.mean(), r - r.mean(axis=1, keepdims=True)
        left = [t - (t @ ref) / (ref @ ref) * ref for ref in r]
        best = min(left, key=lambda rest: rest @ rest)
        np.testing.assert_allclose(residual[good], best, atol=1e-4 * np.abs(t).max())


def test_its_products_are_those_of_klip_with_one_chosen_reference(runs):
    for suffix in ("psfsub", "i2d", "snr"):
        best, chosen = read(runs["best"], suffix), read(runs["chosen"], suffix)
        np.testing.assert_array_equal(best, chosen)


def test_injection_contrast_and_companions_follow_it(runs):
    found = {}
    for name, folder in runs.items():
        with open_run(folder, star_magnitude=4.0) as observation:
            assert observation.recipe.method == ("best" if name == "best" else "klip")
            [exposure] = observation.exposures
            _, added = observation.added(exposure, 12.0, 40.0, 300.0)
            curve = contrast_curve(observation, separations_arcsec=[0.6, 0.9], n_angles=3)
            bright = observation.with_source(0.8, 100.0, 3e-3)
            fit = fit_companions(bright, [(0.81, 101.0)], n_likelihoods=400, n_injections=2)
            [companion] = fit.companions
            found[name] = (added, curve.throughput, curve.calibrated, companion)
    best, chosen = found["best"], found["chosen"]
    for ours, theirs in zip(best[:3], chosen[:3], strict=True):
        assert np.isfinite(ours).any()
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert best[3].flux.value == pytest.approx(chosen[3].flux.value, rel=1e-6)
    assert best[3].separation_arcsec.value == pytest.approx(0.8, abs=0.02)


def test_the_response_is_that_of_the_chosen_reference(runs):
    with open_run(runs["best"]) as observation:
        [exposure] = observation.exposures
        box, added = observation.added(exposure, 12.0, 40.0, 300.0)
        source = observation.source(exposure, 12.0, 40.0)
        _, image = source.on(exposure)
    light = np.zeros(exposure.shape)
    light[box] = 300.0 * image
    refs = read(runs["best"], "psfalign")
    expected = []
    for i, good in enumerate(~exposure.missing.reshape(exposure.bad.shape)):
        [fit] = [each for each in exposure.fits if i in each.rows]
        [k] = fit.refs
        mean, ref = light[good].mean(), refs[i, k] - refs[i, k][good].mean()
        scale = (light[good] @ ref[good]) / (ref[good] @ ref[good])
        expected.append(np.where(good, light - mean - scale * np.nan_to_num(ref), 0.0))
    n_good = np.maximum(exposure.n_good, 1)
    expected = np.where(exposure.n_good > 0, np.sum(expected, axis=0) / n_good, np.nan)[box]
    np.testing.assert_allclose(added[0], expected, atol=1e-5 * np.nanmax(np.abs(added)))


def test_what_a_method_does_not_allow_is_said():
    with pytest.raises(LyotError, match=r"method is 'nearest'; it must be one of klip, mean"):
        method_of(SubtractRecipe(method="nearest"))
    with pytest.raises(LyotError, match="'median', which takes all references; leave out select"):
        method_of(SubtractRecipe(method="median", select="correlation", n_refs=3))
    with pytest.raises(LyotError, match="needs the KL modes of all references"):
        method_of(SubtractRecipe(method="mean", error="scatter"))

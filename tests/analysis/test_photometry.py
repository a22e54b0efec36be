"""The flux of a source, and how much of it the subtraction leaves."""

from dataclasses import replace

import numpy as np

from lyot.analysis.photometry import FluxMaps
from lyot.parameters import SubtractRecipe


def test_references_that_hold_a_companion_subtract_part_of_it(draw):
    truth = (1.0, 100.0, 300.0)
    recipe = SubtractRecipe(n_modes=(12,), level_inner_arcsec=2.0)
    alone, rolls = (draw(4, [truth], rolls_too=r, recipe=recipe) for r in (False, True))
    r = truth[0] / alone.pixel_scale_arcsec
    kept = FluxMaps(alone, "matched").throughput(r, truth[1])[0, 0]
    left = FluxMaps(rolls, "matched").throughput(r, truth[1], flux=truth[2])[0, 0]
    assert left < kept - 0.005
    # What is measured, over the exact throughput, is the flux all the same.
    flux = FluxMaps(rolls, "matched").sample(np.array([r]), np.array([truth[1]]))[0, 0]
    assert abs(flux / left - truth[2]) < 0.1 * truth[2]


def test_the_flux_of_an_isolated_source_is_measured(draw):
    noiseless = draw(11, [(1.5, 77.0, 1000.0)], noise=1e-3)
    for method in ("whitened", "matched", "aperture"):
        maps = FluxMaps(noiseless, method)
        r = 1.5 / noiseless.pixel_scale_arcsec
        through = maps.throughput(r, 77.0)[0, 0]
        flux = maps.sample(np.array([r]), np.array([77.0]))[0, 0]
        np.testing.assert_allclose(flux / through, 1000.0, rtol=0.01)


def test_places_together_have_the_throughputs_of_each_alone(draw):
    observation = draw(12)
    r, pa = np.array([5.0, 17.3, 30.1]), np.array([10.0, 200.0, 311.0])
    together = FluxMaps(observation).throughput(r, pa)
    for k in range(len(r)):
        alone = FluxMaps(observation).throughput(r[k], pa[k])
        np.testing.assert_allclose(together[..., k], alone, rtol=1e-12)
    assert FluxMaps(observation).throughput(r[:0], pa[:0]).shape == (2, 1, 0)


def test_a_level_adds_no_flux_to_whitened_filters(draw):
    observation = draw(40)
    raised = replace(
        observation,
        exposures=[replace(e, residual=e.residual + 20.0) for e in observation.exposures],
    )
    added = {
        method: FluxMaps(raised, method).images[0][0] - FluxMaps(observation, method).images[0][0]
        for method in ("whitened", "matched")
    }
    assert np.nanmin(added["matched"]) > 100.0
    assert np.abs(added["whitened"][5:-5, 5:-5]).max() < 1.0
    # Where the frame's edge cuts the filter, the level would count: nothing is measured there.
    assert np.isnan(added["whitened"]).sum() > np.isnan(added["matched"]).sum()


def test_exposures_count_by_their_noise(draw):
    observation, rng = draw(14), np.random.default_rng(5)
    quiet, loud = observation.exposures
    residual = loud.residual + rng.normal(size=loud.residual.shape) * 4.0 * loud.residual.std()
    maps = FluxMaps(replace(observation, exposures=[quiet, replace(loud, residual=residual)]))
    r, pa = np.full(300, 25.0), np.arange(300) * 1.2
    each = np.array([maps.only([e]).sample(r, pa)[0].std() for e in (0, 1)])
    weights = maps.placed(r, pa).weight
    np.testing.assert_allclose(weights[0] / weights[1], (each[1] / each[0]) ** 2, rtol=0.4)
    # Independent noise: the mean with these weights has the least scatter.
    least = 1.0 / np.sqrt((1.0 / each**2).sum())
    assert abs(maps.sample(r, pa)[0].std() / least - 1.0) < 0.1
    assert each.mean() / np.sqrt(2.0) > 1.5 * least

"""From contrast to mass, by a law of brightness that is known."""

import numpy as np

from lyot.analysis.completeness import completeness_map
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.mass import mass_limits
from lyot.files.evolution import Evolution


def models(mass, magnitude):
    """Models of one age, 20 Myr."""
    return Evolution(np.full(len(mass), 20.0), mass, magnitude, "a power law")


def measured(observation):
    """Curve and completeness at three separations."""
    options = {"separations_arcsec": [0.8, 1.3, 2.0], "n_angles": 2}
    contrasts = np.geomspace(1e-8, 1e-4, 60)
    curve = contrast_curve(observation, **options)
    return curve, completeness_map(observation, **options, contrasts=contrasts)


def test_the_limit_in_mass_is_that_of_the_law_of_brightness(draw):
    """With flux as the square of the mass, mass is distance times the root of the contrast."""
    observation = draw(12)
    curve, complete = measured(observation)
    mass = np.geomspace(0.01, 100.0, 30)
    law = models(mass, 20.0 - 5.0 * np.log10(mass))
    zero = observation.filter.vega_jy
    for distance in (10.0, 40.0):
        found = mass_limits(curve, complete, law, observation.filter, 20.0, distance)
        jy = curve.calibrated * curve.star_jy
        expected = np.sqrt(jy / zero * 10**8) * distance / 10.0
        np.testing.assert_allclose(found.limit_mjup, expected, rtol=1e-6)
        # Half of the bodies at the limit are found, as half of the sources at the contrast are.
        for j, limit in enumerate(found.limit_mjup[0]):
            share = np.interp(np.log(limit), np.log(found.mass_mjup), found.probability[:, j])
            assert abs(share - 0.5) < 0.2
    assert (np.diff(found.probability, axis=0) >= 0).all()


def test_beyond_the_models_there_is_no_limit_and_below_them_the_lowest_mass(draw):
    observation = draw(12)
    curve, complete = measured(observation)
    mass = np.array([1.0, 10.0])
    for magnitude, expected in ((np.array([60.0, 50.0]), np.nan), (np.array([9.0, 5.0]), 1.0)):
        found = mass_limits(
            curve, complete, models(mass, magnitude), observation.filter, 20.0, 10.0
        )
        np.testing.assert_array_equal(found.limit_mjup, np.full((1, 3), expected))


def test_where_more_massive_bodies_are_fainter_the_limit_is_above_them(draw):
    observation = draw(12)
    curve, complete = measured(observation)
    # As bright as the limit at 3 and 8 Jupiter masses; fainter between.
    at = -2.5 * np.log10(curve.calibrated[0, 1] * curve.star_jy / observation.filter.vega_jy)
    mass = np.array([1.0, 3.0, 5.0, 8.0, 20.0])
    bumpy = models(mass, at + np.array([2.0, 0.0, 0.5, 0.0, -2.0]))
    found = mass_limits(curve, complete, bumpy, observation.filter, 20.0, 10.0)
    np.testing.assert_allclose(found.limit_mjup[0, 1], 8.0, rtol=1e-6)

"""One place for all modes, and colors there: against least squares by hand, and on real frames."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lyot.algorithms.geometry import east_north
from lyot.analysis.brightness import star_brightness
from lyot.analysis.colors import ModeFit, at_common_place, common_places, fit_mode, table_of_modes
from lyot.analysis.companion.budget import ErrorBudget, ErrorTerm
from lyot.analysis.exposure import make_exposure
from lyot.analysis.observation import make_observation
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import read_cube, stack
from lyot.files.star import StarPosition
from lyot.instruments import NIRCAM
from lyot.parameters import SubtractRecipe


def draw(rng, filter, truth, jy):
    """A fit that errs as its covariances say."""
    root = np.tril(rng.normal(0.0, 1.0, (3, 3))) * np.array([5e-3, 5e-3, 0.03 * jy])[:, None]
    theta = root @ root.T + np.diag([1e-6, 1e-6, (0.01 * jy) ** 2])
    place = np.diag(rng.uniform(2e-3, 8e-3, 2) ** 2)
    offset = truth + rng.multivariate_normal(np.zeros(2), theta[:2, :2] + place)
    budget = ErrorBudget(calibration=ErrorTerm(flux=0.05), transmission=ErrorTerm(flux=0.02))
    return ModeFit(filter.name, filter, "MASK335R", offset, theta, place, jy, budget)


FILTERS = [NIRCAM.filter(name) for name in ("F335M", "F356W", "F444W")]


def test_places_and_fluxes_are_those_of_least_squares_over_all_modes(rng):
    """Unknowns: the place, the shift of each mode by its star, the flux in each."""
    truth = np.array([0.8, -0.4])
    fits = [draw(rng, f, truth, jy) for f, jy in zip(FILTERS, (2e-6, 3e-6, 5e-6), strict=True)]
    n = len(fits)
    rows, data = [], []
    for k, fit in enumerate(fits):
        white = np.linalg.inv(np.linalg.cholesky(fit.theta))
        design = np.zeros((3, 2 + 3 * n))
        design[:2, :2] = np.eye(2)
        own = slice(2 + 3 * k, 5 + 3 * k)
        design[:, own] = np.eye(3)
        rows.append(white @ design)
        data.append(white @ [*fit.offset, fit.jy])
        prior = np.zeros((2, 2 + 3 * n))
        prior[:, 2 + 3 * k : 4 + 3 * k] = np.linalg.inv(np.sqrt(fit.place))
        rows.append(prior)
        data.append(np.zeros(2))
    design, data = np.concatenate(rows), np.concatenate(data)
    solution = np.linalg.lstsq(design, data, rcond=None)[0]
    covariance = np.linalg.inv(design.T @ design)
    found = at_common_place(fits)
    place = east_north(found.separation_arcsec.value, found.pa_deg.value)
    assert_allclose(place, solution[:2], atol=1e-9)
    for k, mode in enumerate(found.modes):
        assert mode.jy.value == pytest.approx(solution[4 + 3 * k], rel=1e-9)
        noise = np.hypot(mode.jy.value / mode.snr, 0.0)
        assert noise == pytest.approx(np.sqrt(covariance[4 + 3 * k, 4 + 3 * k]), rel=1e-6)
        of_magnitude = 2.5 / np.log(10) * np.sqrt(mode.snr**-2.0 + 0.05**2 + 0.02**2)
        assert mode.magnitude.err == pytest.approx(of_magnitude)
    along = np.array(east_north(1.0, found.pa_deg.value))
    expected = np.sqrt(along @ covariance[:2, :2] @ along)
    assert found.separation_arcsec.err == pytest.approx(expected, rel=1e-9)


def test_colors_hold_no_error_of_the_mask_that_both_have(rng):
    fits = [draw(rng, f, np.array([0.8, -0.4]), 3e-6) for f in FILTERS]
    found = at_common_place(fits[::-1])
    assert [c.name for c in found.colors] == ["F335M - F356W", "F356W - F444W"]
    first, second, _ = found.modes
    [color, _] = found.colors
    assert color.magnitude.value == first.magnitude.value - second.magnitude.value
    noise = np.hypot(1.0 / first.snr, 1.0 / second.snr)
    expected = 2.5 / np.log(10) * np.hypot(noise, np.sqrt(2.0) * 0.05)
    assert color.magnitude.err == pytest.approx(expected, rel=1e-6)


def test_candidates_of_modes_are_one_companion_where_they_lie_together():
    modes = [[(1.0, 40.0, 10.0), (3.0, 100.0, 6.0)], [(1.02, 40.5, 20.0)], [(1.0, 220.0, 7.0)]]
    places = common_places(modes, 0.1)
    assert [p.seen_in for p in places] == [{0, 1}, {2}, {0}]
    assert places[0].separation_arcsec == pytest.approx(1.016, abs=1e-3)
    assert common_places(modes, 0.1, most=1) == places[:1]
    assert common_places([[], []], 0.1) == []


@pytest.fixture(scope="module")
def rolls(data_dir):
    """The two rolls of AU Mic, each as if it were a mode."""
    files = sorted((data_dir / "aumic_f444w").glob("*_calints.fits"))
    refs = stack(map(read_cube, files[2:]))
    star = StarPosition(150.0, 174.0, 0.1, 0.1)
    aligned = AlignedArrays(refs.sci, refs.err, refs.dq, star=star)
    recipe = SubtractRecipe(n_modes=(6,))
    brightness = star_brightness(NIRCAM.filter("F444W"), magnitude=4.0)
    return [
        make_observation(
            file.name[:13],
            [make_exposure(read_cube(file), aligned, star, recipe)],
            recipe,
            star=brightness,
        )
        for file in files[:2]
    ]


def test_a_companion_of_real_frames_has_one_place_and_no_color(rolls):
    """The same flux put into both rolls."""
    modes = [each.with_source(2.0, 220.0, 3e-5) for each in rolls]
    found = common_places([[(2.01, 220.2, 9.0)], [(1.99, 219.9, 9.0)]], 0.15)
    fits = [fit_mode(each, k, found) for k, each in enumerate(modes)]
    companion = at_common_place([f[0] for f in fits])
    assert abs(companion.separation_arcsec.value - 2.0) < 2 * companion.separation_arcsec.err
    assert abs(companion.pa_deg.value - 220.0) < 2 * companion.pa_deg.err
    [color] = companion.colors
    one, two = companion.modes
    noise = 2.5 / np.log(10) * np.hypot(1 / one.snr, 1 / two.snr)
    assert abs(color.magnitude.value) < 2.5 * noise
    assert noise < color.magnitude.err
    assert max(one.apart, two.apart) < 3.0
    # Where a mode is not known to show it, its flux at the place is measured all the same.
    alone = found[0]._replace(seen_in=frozenset({0}))
    [fit] = fit_mode(modes[1], 1, [alone])
    assert fit.offset is None
    assert fit.jy == pytest.approx(two.jy.value, rel=0.15)
    table = table_of_modes({"AU Mic": [companion]})
    assert list(table["filter"]) == ["F444W", "F444W"]
    assert table["flux_density"].unit == "Jy"


def test_what_is_not_seen_has_a_limit_and_what_is_off_the_frames_nothing(rolls):
    [place] = common_places([[(4.0, 300.0, 6.0)], []], 0.15)
    fit = fit_mode(rolls[1], 1, [place._replace(seen_in=frozenset({0}))])[0]
    seen = fit_mode(rolls[0].with_source(4.0, 300.0, 3e-5), 0, [place])[0]
    found = at_common_place([seen, fit])
    [limit] = [m for m in found.modes if np.isnan(m.magnitude.value)]
    [seen_in] = [m for m in found.modes if np.isfinite(m.magnitude.value)]
    assert limit.magnitude_limit > seen_in.magnitude.value
    assert found.colors == ()
    assert fit_mode(rolls[0], 0, [place._replace(separation_arcsec=30.0)]) == [None]
    assert at_common_place([None, fit]) is None

"""One statistic for contrast, completeness and detection: published values, and agreement."""

import numpy as np
import pytest

from lyot.analysis.completeness import completeness_map
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.detection import detect, snr_map
from lyot.analysis.noise import KnownSource
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.statistic import Statistic, chance_text
from lyot.errors import LyotError

N_OF_RADII = (6, 9, 12, 18, 31, 62)
STATISTICS = [
    Statistic(),
    Statistic(fpf=1e-4, noise="laplace"),
    Statistic(fpf=1e-4, flux_by="aperture"),
    Statistic(fpf=1e-3, noise="laplace", flux_by="aperture", others="n"),
]


def test_thresholds_of_five_sigma():
    """Mawet et al. 2014 at 1, 1.5, 2, 3, 5 and 10 FWHM."""
    found = [Statistic().tau(n) for n in N_OF_RADII]
    np.testing.assert_allclose(found, [62.3, 18.1, 11.7, 8.21, 6.48, 5.64], rtol=4e-3)


def test_thresholds_as_pyklip_and_vip_print_them():
    found = [Statistic(others="n").tau(n) for n in N_OF_RADII]
    np.testing.assert_allclose(found, [34.4, 15.0, 10.7, 7.95, 6.42, 5.63], rtol=4e-3)


@pytest.mark.parametrize("statistic", STATISTICS, ids=str)
def test_the_fraction_is_the_inverse_of_the_threshold(statistic):
    for n in (6, 20, 60):
        fpf = statistic.fpf_of(statistic.threshold(n), n)
        np.testing.assert_allclose(fpf, statistic.fpf, rtol=1e-9)


def test_no_number_is_given_where_nobody_has_seen_the_tail():
    assert [chance_text(v) for v in (3.7e-55, 1e-6, 1.26e-6, 0.02)] == [
        "< 1e-6",
        "< 1e-6",
        "1.3e-06",
        "2.0e-02",
    ]


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_thresholds_fall_with_the_number_of_positions(noise):
    thresholds = Statistic(noise=noise).thresholds(np.array([6, 12, 50, 400]))
    assert (np.diff(thresholds) < 0).all()


def test_too_few_positions_have_no_threshold():
    assert np.isnan(Statistic().threshold(2))
    assert np.isnan(Statistic().taus(np.array([3, 9]))).tolist() == [True, False]


def test_values_that_are_not_allowed_are_refused():
    with pytest.raises(LyotError, match="noise is 'cauchy'; it must be one of gaussian, laplace"):
        Statistic(noise="cauchy")
    with pytest.raises(LyotError, match=r"fpf is .*; it must lie between 0 and"):
        Statistic(fpf=0.0)


@pytest.mark.parametrize("statistic", STATISTICS, ids=str)
def test_a_source_at_the_limit_is_at_the_threshold_of_the_detection(draw, statistic):
    """The contrast at which the map's S/N reaches the threshold is the one that completeness and
    curve state there."""
    observation = draw(30)
    # The center of a pixel, so that nothing is interpolated in the map of S/N, and where the noise
    # changes little over the three rings of a limit.
    grid, (dy, dx) = observation.grid, (30, -19)
    r = np.hypot(dy, dx)
    separation = float(r) * observation.pixel_scale_arcsec
    pa = float(np.degrees(np.arctan2(-dx, dy)))
    pixel = y, x = (grid.half_pix + dy, grid.half_pix + dx)
    source = (KnownSource(separation, pa),)

    def snr(contrast):
        made = observation.with_source(separation, pa, contrast)
        maps = FluxMaps(made, statistic.flux_by)
        found, number = snr_map(maps, statistic=statistic, known_sources=source)
        return found[pixel], int(number[pixel])

    [limit] = contrast_curve(
        observation,
        separations_arcsec=np.array([separation]),
        statistic=statistic,
        known_sources=source,
    ).calibrated[0]
    empty, n = snr(0.0)
    slope = (snr(limit)[0] - empty) / limit
    # Of an average position the limit brings t from 0 to the threshold, less what a source gains
    # because it is read where the flux about it is highest.
    threshold = statistic.threshold(n)
    np.testing.assert_allclose(slope * limit, threshold - 1.0 / threshold, rtol=0.12)
    needed = (statistic.threshold(n) - empty) / slope
    for contrast, is_found in ((0.6 * needed, False), (1.01 * needed, True)):
        made = observation.with_source(separation, pa, contrast)
        found = detect(made, statistic=statistic, known_sources=source)
        near = [c for c in found.candidates if c.is_known]
        assert len(near) == is_found
        for c in near:
            # The peak may lie a pixel away, where another position fits on the circle, and other
            # sources that were found exclude more or less of it.
            numbers = found.n_positions[y - 1 : y + 2, x - 1 : x + 2]
            numbers = np.arange(numbers.min(), numbers.max() + 1).astype(int)
            fractions = [statistic.fpf_of(c.snr, k) for k in numbers]
            assert np.isclose(c.fpf, fractions, rtol=1e-12).any()
            assert c.fpf < statistic.fpf


@pytest.mark.parametrize("statistic", STATISTICS[1:3], ids=str)
def test_half_of_the_sources_at_the_limit_are_found(draw, statistic):
    separations, fractions = np.array([0.7, 1.3]), []
    for seed in range(12):
        observation = draw(1500 + seed)
        curve = contrast_curve(observation, separations_arcsec=separations, statistic=statistic)
        fractions.append(
            [
                completeness_map(
                    observation,
                    separations_arcsec=[separation],
                    contrasts=[limit],
                    statistic=statistic,
                ).fraction[0, 0]
                for separation, limit in zip(separations, curve.calibrated[0], strict=True)
            ]
        )
    np.testing.assert_allclose(np.mean(fractions, axis=0), 0.5, atol=0.05)

"""The S/N of every position, and the candidates."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from lyot.analysis.detection import detect, find_sources, snr_map, stim_map
from lyot.analysis.noise import KnownSource
from lyot.analysis.observation import make_observation
from lyot.analysis.photometry import FluxMaps
from lyot.errors import LyotError


def test_candidates_are_found_where_they_are(draw):
    truth = [(1.0, 60.0, 200.0), (2.0, 300.0, 150.0)]
    observation = draw(7, truth)
    known = tuple(KnownSource(s, pa) for s, pa, _ in truth)
    found = detect(observation, known_sources=known)
    assert len(found.candidates) == 2
    for separation, pa, flux in truth:
        best = min(found.candidates, key=lambda c: abs(c.pa_deg - pa))
        assert abs(best.separation_arcsec - separation) < 0.3 * observation.pixel_scale_arcsec
        assert abs(np.radians(best.pa_deg - pa)) * separation < 0.3 * 0.063
        assert abs(best.flux - flux) < 0.15 * flux
        assert best.false_alarms < 1e-3
        assert best.is_known
    assert len(found.to_table()) == 2
    sources = find_sources(observation, known_sources=known)
    places = {(c.separation_arcsec, c.pa_deg) for c in found.candidates}
    assert {(source.separation_arcsec, source.pa_deg) for source in sources} == places
    assert np.nanmax(found.stim) > 5


def test_a_search_of_nothing_says_so(draw):
    observation = draw(7)
    none = [np.full_like(e.residual, np.nan) for e in observation.exposures]
    empty = replace(
        observation,
        exposures=[
            replace(e, residual=r) for e, r in zip(observation.exposures, none, strict=True)
        ],
    )
    for search in (detect, find_sources):
        with pytest.raises(LyotError, match="enough independent positions"):
            search(empty)


def test_noise_alone_gives_no_candidate(draw):
    found = detect(draw(8))
    assert not found.candidates
    good = np.isfinite(found.snr)
    assert 0.8 < np.std(found.snr[good]) < 1.3


def test_the_map_is_the_statistic_of_independent_positions(draw):
    observation = draw(9)
    maps = FluxMaps(observation)
    grid, (snr, number) = maps.observation.grid, snr_map(maps)
    y, x = grid.half_pix + 17, grid.half_pix - 12
    r, pa = np.hypot(17, 12), np.degrees(np.arctan2(12, 17))
    n = int(2 * np.pi * r / observation.fwhm_pix)
    around = maps.sample(np.full(n, r), pa + 360.0 * np.arange(n) / n)[0]
    expected = (around[0] - around[1:].mean()) / (around[1:].std(ddof=1) * np.sqrt(1 + 1 / (n - 1)))
    assert abs(maps.sky_flux[0, y, x] - around[0]) < 1e-9
    assert abs(number[y, x] - n) <= 1
    # The ring nearest to the pixel is up to a quarter of a pixel away.
    assert abs(snr[y, x] - expected) < 0.25


def test_places_under_the_mask_are_not_searched(draw, gaussian_psf):
    observation = draw(18)
    y, x = np.mgrid[:91, :93]
    mask = np.where(np.hypot(y - 44.9, x - 46.3) < 8.0, 0.001, 1.0)
    masked = make_observation(
        "x", observation.exposures, observation.recipe, psf=gaussian_psf, transmission=mask
    )
    maps = FluxMaps(masked)
    snr, _ = snr_map(maps)
    radius, _ = maps.observation.grid.polar
    assert np.isnan(snr[radius < 7]).all()
    assert np.isfinite(snr[(radius > 10) & (radius < 40)]).all()


def test_stim_is_that_of_derotated_integrations(draw):
    """Against SciPy's interpolation, with pixels that are bad in some integrations alone."""
    observation = draw(21)
    rng, changed = np.random.default_rng(0), []
    for exposure in observation.exposures:
        bad = exposure.bad | (rng.random(exposure.bad.shape) < 0.02)
        changed.append(replace(exposure, bad=bad))
    observation = replace(observation, exposures=changed)
    seen = []
    for exposure, yx, inside in zip(
        observation.exposures, observation.sky.yx, observation.sky.inside, strict=True
    ):
        for image, bad in zip(exposure.integrations[0], exposure.bad, strict=True):
            data, share = (
                map_coordinates(values.astype(float), yx, order=1, mode="nearest")
                for values in (np.where(bad, 0.0, image), ~bad)
            )
            good = inside & (share > 0.5)
            seen.append(np.where(good, data / np.where(good, share, 1.0), np.nan))
    number, found = np.isfinite(seen).sum(axis=0), stim_map(observation)
    known = number >= 2
    of_known = np.array(seen)[:, known]
    expected = np.nanmean(of_known, axis=0) / np.nanstd(of_known, axis=0, ddof=1)
    assert (np.isfinite(found) == known).all()
    assert np.abs(found[known] - expected).max() < 1e-6

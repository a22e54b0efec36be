"""Sources that are put in are found as the search finds them."""

import numpy as np

from lyot.analysis import candidate
from lyot.analysis.detection import find_sources
from lyot.analysis.noise import KnownSource
from lyot.analysis.peaks import flux_maps
from lyot.analysis.statistic import FIVE_SIGMA
from lyot.analysis.trial import Trials


def test_the_search_finds_a_source_from_the_flux_that_a_trial_says(draw):
    observation = draw(40)
    scale = observation.pixel_scale_arcsec
    trials = Trials.of(candidate.Tests(flux_maps(observation), 0, FIVE_SIGMA, ()))
    for r, pa in ((7.3, 20.0), (14.6, 130.0), (21.2, 250.0), (33.7, 310.0)):
        [excess] = trials.excesses([(r, pa)])
        assert abs(excess) < 0.3
        [needed] = trials.needed([(r, pa)], np.array([30.0]))
        near = KnownSource(r * scale, pa, observation.fwhm_pix * scale)
        for factor, is_found in ((0.93, False), (1.07, True)):
            contrast = factor * needed / observation.star_flux
            put = observation.with_source(r * scale, pa, contrast)
            # Filters measured again, with the source in the frames.
            seen = [near.covers(s.separation_arcsec, s.pa_deg, 0.0) for s in find_sources(put)]
            assert any(seen) == is_found, (r, pa, factor)


def test_places_on_known_sources_are_not_tried(draw):
    observation = draw(41)
    known = (KnownSource(14.6 * observation.pixel_scale_arcsec, 130.0),)
    trials = Trials.of(candidate.Tests(flux_maps(observation), 0, FIVE_SIGMA, known))
    on_it, off_it = trials.excesses([(14.6, 131.0), (14.6, 250.0)])
    assert np.isnan(on_it)
    assert np.isfinite(off_it)

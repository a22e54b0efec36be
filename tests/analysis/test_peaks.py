"""Places that stand out."""

import numpy as np

from lyot.analysis.peaks import flux_maps
from lyot.analysis.photometry import FluxMaps


def snr(maps, r, pa, added=None):
    n = int(2.0 * np.pi * r / maps.observation.fwhm_pix)
    placed = maps.placed(np.full(n, r), pa + 360.0 * np.arange(n) / n)
    flux = maps.flux_at(placed)[0]
    if added is not None:
        flux += added.at(placed, 0)
    others = flux[3:-2]  # its lobes are not among them
    return (flux[0] - others.mean()) / others.std(ddof=1)


def test_a_source_in_the_frames_does_not_lower_its_own_significance(draw):
    r, pa, source = 7.0, 75.0, 25.0
    with_it, without = [], []
    for seed in range(6):
        empty = draw(60 + seed, smooth=4.0)
        place = r * empty.pixel_scale_arcsec, pa
        put = empty.with_source(*place, source / empty.star_flux)
        trained = FluxMaps(put)
        with_it.append([snr(maps, r, pa) for maps in (trained, flux_maps(put))])
        # The same light, through filters that never saw it.
        clean = FluxMaps(empty)
        [added] = clean.flux_of(np.array([r]), np.array([pa]), flux=np.array([source]))
        without.append(snr(clean, r, pa, added))
    trained, left_out = np.mean(with_it, axis=0)
    never = np.mean(without)
    assert trained < 0.98 * never
    assert abs(left_out - never) < 0.5 * (never - trained)


def test_peaks_are_found_between_the_pixels_and_leave_the_training(draw):
    truth = (1.013, 61.0, 200.0)
    observation = draw(7, [truth])
    [(r, pa, flux)] = flux_maps(observation).sources
    scale = observation.pixel_scale_arcsec
    assert abs(r * scale - truth[0]) < 0.3 * scale
    assert abs(np.radians(pa - truth[1])) * truth[0] < 0.3 * scale
    assert abs(flux[0] - truth[2]) < 0.15 * truth[2]

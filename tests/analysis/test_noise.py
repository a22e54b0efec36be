"""Noise among independent positions."""

from dataclasses import replace

import numpy as np

from lyot.analysis.noise import noise_rings
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.statistic import Statistic


def test_false_alarms_on_images_come_at_the_stated_rate(draw):
    fpf, alarms, tests = 5e-3, 0, 0
    for seed in range(12):
        observation = draw(3000 + seed)
        maps = FluxMaps(observation)
        rings = noise_rings(maps, np.arange(5.0, 40.0, 2.4))
        mean, scatter, number = rings.others(0)
        above = rings.flux[0] > mean + Statistic(fpf=fpf).taus(number + 1) * scatter
        for j in range(len(rings.places.radius_pix)):
            first = rings.of(j, above)[:, 0]
            alarms, tests = alarms + first.sum(), tests + first.size
    assert tests > 5000
    assert abs(alarms - fpf * tests) < 4 * np.sqrt(fpf * tests)


def test_the_others_are_all_positions_but_one(draw):
    rings = noise_rings(FluxMaps(draw(31)), np.array([6.0, 30.0, 33.3]))
    rings = replace(rings, used=rings.used & (np.arange(rings.used.size) % 7 > 0))
    others = rings.others(0)
    for ring in range(3):
        flux, used = (rings.of(ring, values) for values in (rings.flux[0], rings.used))
        mean, scatter, number = (rings.of(ring, values) for values in others)
        for i, phase in np.ndindex(flux.shape):
            rest = np.delete(flux[:, phase], i)[np.delete(used[:, phase], i)]
            assert number[i, phase] == len(rest)
            assert abs(mean[i, phase] - rest.mean()) < 1e-9 * np.abs(rest).max()
            assert abs(scatter[i, phase] - rest.std(ddof=1)) < 1e-9 * np.abs(rest).max()

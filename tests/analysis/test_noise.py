"""Noise among independent positions."""

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
        for j in range(len(rings.radius_pix)):
            first = rings.of(j, above)[:, 0]
            alarms, tests = alarms + first.sum(), tests + first.size
    assert tests > 5000
    assert abs(alarms - fpf * tests) < 4 * np.sqrt(fpf * tests)

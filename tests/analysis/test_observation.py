"""An observation and what of it is sent to a worker."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from lyot.analysis.observation import open_run


def test_an_observation_on_disk_travels_without_its_pixels(demo, draw):
    with open_run(demo.folder, star_jy=0.2) as observation:
        sent = pickle.loads(pickle.dumps(observation.without_pixels))
        assert "0 exposures" in repr(sent)
        with sent.with_pixels() as again:
            assert again.star == observation.star
            np.testing.assert_array_equal(
                again.psf.stamp(0.2, 0.1), observation.psf.stamp(0.2, 0.1)
            )
            for there, here in zip(again.exposures, observation.exposures, strict=True):
                np.testing.assert_array_equal(there.residual, here.residual)
    assert draw(3).without_pixels is None


def test_a_source_is_seen_through_the_mask_at_its_place_in_each_roll(draw):
    observation = draw(3)
    exposure = observation.exposures[0]
    ramp = np.broadcast_to(np.linspace(0.1, 1.0, exposure.shape[1]), exposure.shape)
    through = replace(observation.transmission, image=ramp)
    source = replace(observation, transmission=through).source(exposure, 20.0, 75.0)
    _, x = exposure.position(20.0, 75.0)
    _, there = exposure.position(20.0, 75.0 - 30.0)  # of a detector turned by 30 degrees
    assert source.transmission == pytest.approx(np.interp(x, np.arange(len(ramp[0])), ramp[0]))
    _, share = source.at_roll(30.0)
    expected = np.interp(there, np.arange(len(ramp[0])), ramp[0]) / source.transmission
    assert share == pytest.approx(expected)
    assert abs(share - 1.0) > 0.2


def test_a_place_is_seen_where_every_frame_holds_it(draw):
    observation = draw(12)
    scale = observation.pixel_scale_arcsec
    exposure = observation.exposures[0]
    n_x = exposure.shape[1]
    for x, is_seen in ((n_x - 2.0, True), (n_x + 2.0, False)):
        r = (x - exposure.star.x) * scale
        angles = np.arange(0.0, 360.0, 1.0)
        places = [exposure.position(r / scale, pa) for pa in angles]
        # The position angle at which the place lies on the star's row, towards larger x.
        pa = angles[np.argmin([np.hypot(py - exposure.star.y, px - x) for py, px in places])]
        one = replace(observation, exposures=[exposure])
        assert one.sees(r, float(pa)) == is_seen
    assert not observation.sees(1e3 * scale, 0.0)

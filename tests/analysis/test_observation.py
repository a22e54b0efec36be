"""An observation and what of it is sent to a worker."""

import pickle

import numpy as np

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

"""The star on the observatory's own image behind a mask, whose wavefront was measured in flight."""

import numpy as np
import pytest

from lyot.files.star import StarPosition
from lyot.parameters import BY_MODEL, BY_SYMMETRY
from lyot.references.star import measure_star
from scenes import cube, observatory_on_axis


@pytest.mark.parametrize("method", [BY_SYMMETRY, BY_MODEL])
def test_the_star_of_the_observatorys_model_is_in_the_middle(data_dir, method):
    image = observatory_on_axis(data_dir)[None]
    frames = cube(image, filter="F335M", coronagraph="MASK335R")
    star = measure_star(
        frames, image, np.zeros(image.shape, bool), StarPosition(32.0, 32.0), method=method
    )
    assert star.origin == "measured"
    assert np.abs(np.array(star.yx) - 32.0).max() < 2.0 * star.x_err

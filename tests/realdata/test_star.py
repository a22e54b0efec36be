"""The star on the observatory's own image behind a mask, whose wavefront was measured in flight."""

import numpy as np
import pytest

from lyot.files.star import StarPosition
from lyot.parameters import AUTO, BY_MODEL, BY_SYMMETRY
from lyot.references.star import Frames, measure_star
from scenes import cube, observatory_on_axis


@pytest.mark.parametrize("method", [AUTO, BY_SYMMETRY, BY_MODEL])
def test_the_star_of_the_observatorys_model_is_in_the_middle(data_dir, method):
    image = observatory_on_axis(data_dir)[None]
    frames = cube(image, filter="F335M", coronagraph="MASK335R")
    shown = Frames(image, np.zeros(image.shape), np.zeros(image.shape, bool))
    star = measure_star(frames.info, shown, StarPosition(32.0, 32.0), method=method)
    assert star.origin == "measured"
    assert abs(star.x - 32.0) < 2.0 * star.x_err
    assert abs(star.y - 32.0) < 2.0 * star.y_err

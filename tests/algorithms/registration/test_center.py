"""The center of a pattern is where it is symmetric."""

import numpy as np

from lyot.algorithms import registration


def test_center_of_a_symmetric_pattern_is_found(star_image):
    y, x = np.ogrid[:81, :81]
    center = (40.31, 39.58)
    r = np.hypot(y - center[0], x - center[1])
    angle = np.arctan2(y - center[0], x - center[1])
    image = np.exp(-((r / 12) ** 2)) * (2 + np.cos(4 * angle) * np.minimum(r, 3) / 3)
    found = registration.symmetry_center(
        image,
        np.ones_like(image),
        np.zeros(image.shape, bool),
        (40.0, 40.0),
        inner_pix=4.0,
        outer_pix=30.0,
    )
    np.testing.assert_allclose(found.center_yx, center, atol=2e-3)
    assert found.converged
    assert found.contrast > 0.999

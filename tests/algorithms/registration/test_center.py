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


def test_centers_found_together_are_those_found_alone(star_image, rng):
    images = np.stack([star_image(shift_yx=d) for d in ((0.1, 0.0), (0.0, -0.2), (0.05, 0.15))])
    images += rng.normal(0.0, 0.01, images.shape)
    one, none = np.ones(images.shape[1:]), np.zeros(images.shape[1:], bool)
    guesses = np.array([32.0, 33.0]) + rng.uniform(-0.2, 0.2, (3, 2))
    ring = {"inner_pix": 0.0, "outer_pix": 20.0}
    together = registration.symmetry_centers(images, one, none, guesses, **ring)
    for k, guess in enumerate(guesses):
        alone = registration.symmetry_center(images[k], one, none, tuple(guess), **ring)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[k], b, rtol=1e-9)

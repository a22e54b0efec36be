"""Search areas cover the frame once."""

import numpy as np
import pytest

from lyot.algorithms import geometry, zones


@pytest.mark.parametrize("spacing", zones.SPACINGS)
@pytest.mark.parametrize(("n_sectors", "overlap"), [(1, 0.0), (6, 0.0), (6, 0.3), (3, 0.5)])
def test_shares_of_all_zones_sum_to_one(spacing, n_sectors, overlap):
    edges = zones.radial_edges(2.0, 20.0, 4, spacing=spacing)
    shape, center = (48, 52), (23.4, 25.7)
    radius, angle = geometry.radius_map(shape, center), geometry.angle_map(shape, center)
    made = zones.annuli(radius, angle, edges, n_sectors=n_sectors, overlap=overlap)
    total = sum(z.share for z in made)
    covered = radius >= 2.0
    np.testing.assert_allclose(total[covered], 1.0, atol=1e-12)
    assert not total[~covered].any()


def test_widths_of_annuli():
    np.testing.assert_allclose(zones.radial_edges(0, 12, 3), [0, 4, 8, 12])
    np.testing.assert_allclose(zones.radial_edges(0, 12, 3, spacing="linear"), [0, 2, 6, 12])
    log = zones.radial_edges(1, 8, 3, spacing="log")
    np.testing.assert_allclose(log, [1, 2, 4, 8])
    with pytest.raises(ValueError, match="'square'; it must be one of"):
        zones.radial_edges(0, 1, 1, spacing="square")


def test_map_zones_follow_the_labels():
    labels = np.array([[0, 1, 1], [2, 2, -1]])
    made = zones.from_map(labels)
    np.testing.assert_array_equal(made[0].weight, labels == 1)
    np.testing.assert_array_equal(made[1].share, labels == 2)

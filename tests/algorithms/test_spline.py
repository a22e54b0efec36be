"""Splines: an independent code, and what a cubic is."""

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from lyot.algorithms.spline import along_pieces, cubic_pieces

RNG = np.random.default_rng(3)
NODES = np.cumsum(RNG.uniform(0.3, 2.0, 25))


def spline(x, nodes, values):
    return along_pieces(x, nodes, cubic_pieces(nodes, values))


@pytest.mark.parametrize("n", [4, 5, 25])
def test_a_spline_is_that_of_scipy(n):
    values = RNG.normal(size=n)
    x = RNG.uniform(NODES[0], NODES[n - 1], (40, 30))
    expected = CubicSpline(NODES[:n], values)(x)
    np.testing.assert_allclose(spline(x, NODES[:n], values), expected, atol=1e-12)


def test_a_cubic_comes_back_and_nodes_have_their_values():
    values = 1.0 + NODES - 0.5 * NODES**2 + 0.1 * NODES**3
    x = np.linspace(NODES[0], NODES[-1], 100)
    expected = 1.0 + x - 0.5 * x**2 + 0.1 * x**3
    np.testing.assert_allclose(spline(x, NODES, values), expected, rtol=1e-10)
    np.testing.assert_allclose(spline(NODES, NODES, values), values, rtol=1e-12)

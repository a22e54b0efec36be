"""What the plots of a report show."""

import numpy as np
import pytest

from lyot.viz.report import plots
from lyot.viz.report.drawing import Bars, Line


def test_the_drift_is_the_mean_over_references_and_the_shifts_the_mean_over_integrations():
    drift, place = (
        np.array([[-1.0, 2.0], [1.0, -2.0]]),
        np.array([[0.0, 5.0], [3.0, 7.0], [4.0, 1.0]]),
    )
    shift = drift[:, None] + place
    above, below = plots.shifts(shift, np.full(shift.shape, 0.3))
    y, x = above.marks
    assert y.y == pytest.approx(drift[:, 0])
    assert x.y == pytest.approx(drift[:, 1])
    assert y.y_error == pytest.approx(0.3 / np.sqrt(3))
    [points] = [mark for mark in below.marks if isinstance(mark, Line)]
    assert np.stack([points.y, points.x], axis=1) == pytest.approx(place)
    assert len(plots.shifts(shift[:1], np.zeros((1, 3, 2)))) == 1  # no drift of one integration


def test_each_star_has_its_bars():
    coefs = np.array([[[2.0, 4.0, 6.0]], [[4.0, 8.0, 10.0]]])  # two zones
    panel = plots.weights(coefs, np.array([[1.0, 2.0, 4.0]]), ["A", "B", "A"])
    found = {
        bar.label: (bar.x.tolist(), bar.y.tolist()) for bar in panel.marks if isinstance(bar, Bars)
    }
    assert found == {"A": ([1, 3], [3.0, 2.0]), "B": ([2], [3.0])}


def test_limits_beside_one_another_are_told_apart():
    r = np.array([0.5, 1.0, 2.0])
    [panel] = plots.compared({f"star {k}": (r, 10.0**-k * r) for k in range(9)}, "limit")
    assert [line.label for line in panel.marks] == [f"star {k}" for k in range(9)]
    assert len({(line.color, line.dash) for line in panel.marks}) == 9
    assert panel.marks[4].y == pytest.approx(1e-4 * r)
    assert panel.x.log
    assert panel.y.log


def test_eigenvalues_begin_with_one_mode_and_residuals_with_none():
    panel = plots.spectrum(np.array([[8.0, 4.0, 2.0]]), np.array([3.0, 2.0]))
    [left], [right] = panel.marks, panel.right_marks
    assert (left.x.tolist(), left.y.tolist()) == ([1, 2, 3], [1.0, 0.5, 0.25])
    assert (right.x.tolist(), right.y.tolist()) == ([0, 1], [3.0, 2.0])
    assert plots.spectrum(np.ones((1, 3)), np.array(())).right is None


def test_the_noise_of_each_product_is_named_where_there_are_several():
    table = {"radius": np.array([1.0, 2.0]), "sigma": np.array([5.0, 4.0])}
    [panel] = plots.noise({"one": table}, 0.5)
    [line] = panel.marks
    assert line.x.tolist() == [0.5, 1.0]
    assert line.label == ""
    [panel] = plots.noise({"one": table, "two": table}, 0.5)
    assert [mark.label for mark in panel.marks] == ["one", "two"]


def test_completeness_is_where_a_share_of_the_sources_is_found():
    contrast = np.geomspace(1e-7, 1e-3, 161)
    limits = np.array([1e-4, 1e-5, 1e-2])  # of the last none is found
    fraction = 1.0 / (1.0 + (limits / contrast[:, None]) ** 4)
    fraction[:, 2] = 0.0
    [panel] = plots.completeness(np.array([0.5, 1.0, 2.0]), contrast, fraction)
    half, most = panel.marks
    np.testing.assert_array_equal(half.x, [0.5, 1.0])
    np.testing.assert_allclose(half.y, limits[:2], rtol=0.01)
    np.testing.assert_allclose(most.y, limits[:2] * 9.0**0.25, rtol=0.02)

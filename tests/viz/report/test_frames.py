"""Frames of the report: circles of candidates are where the table says."""

import numpy as np
import pytest
from astropy.table import Table

from lyot.algorithms.geometry import TangentPlane, polar
from lyot.viz.report.frames import circles

FOUND = Table({"separation": [0.5, 2.0, 3.1], "position_angle": [10.0, 128.7, 307.3]})


def test_known_sources_have_circles_of_their_own():
    found = FOUND.copy()
    found.meta["lyot"] = {"known_sources": [[2.0, 128.7], [4.0, 30.0]]}
    marks = circles(found, TangentPlane.linear((40.0, 50.0), 0.0, 0.1))
    assert [mark["text"] for mark in marks] == ["1", "2", "3", "K1", "K2"]
    assert (marks[3]["x"], marks[3]["y"]) == pytest.approx((marks[1]["x"], marks[1]["y"]))
    assert np.hypot(marks[4]["x"] - 50.0, marks[4]["y"] - 40.0) * 0.1 == pytest.approx(4.0)


@pytest.mark.parametrize("pa_y", [0.0, 69.6])
def test_circles_lie_at_separation_and_position_angle(pa_y):
    scale, star_yx = 0.11, (40.2, 51.7)
    marks = circles(FOUND, TangentPlane.linear(star_yx, pa_y, scale), (5, 3))
    x, y = (np.array([mark[axis] for mark in marks]) for axis in "xy")
    y, x = y + 3, x + 5
    assert np.hypot(y - star_yx[0], x - star_yx[1]) * scale == pytest.approx(FOUND["separation"])
    angles = (np.degrees(np.arctan2(star_yx[1] - x, y - star_yx[0])) + pa_y) % 360
    assert angles == pytest.approx(FOUND["position_angle"])
    assert [mark["text"] for mark in marks] == ["1", "2", "3"]


def test_circles_follow_a_bent_sky():
    y, x = np.mgrid[0:60:7, 0:60:7].reshape(2, -1).astype(float)
    east = -0.1 * (x - 30) + 2e-4 * (y - 28) ** 2
    north = 0.1 * (y - 28) - 1e-4 * (x - 30) * (y - 28)
    plane = TangentPlane.through((28.0, 30.0), y, x, east, north)
    for mark, row in zip(circles(FOUND[:2], plane), FOUND, strict=False):
        r, pa = polar(*plane.offset(mark["y"], mark["x"]))
        assert r == pytest.approx(row["separation"], abs=2e-3)
        assert pa == pytest.approx(row["position_angle"], abs=0.1)

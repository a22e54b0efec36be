import pytest

from lyot.analysis.grid import SkyGrid


@pytest.mark.parametrize(
    ("row", "column", "pixel"),
    [(3.4, 6.6, (3, 7)), (10.75, 4.0, (10, 4)), (-0.75, 10.75, (0, 10)), (5.0, -0.51, (5, 0))],
)
def test_a_place_beyond_the_outermost_pixels_has_the_nearest_one(row, column, pixel):
    grid = SkyGrid(5)
    assert grid.pixel(*grid.place(row, column)) == pixel
    assert grid.row_column(*grid.place(row, column)) == pytest.approx((row, column))

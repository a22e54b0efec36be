"""Products are read and described without stdatamodels."""

from lyot.files.view import describe


def test_an_exposure_is_described(exposure):
    row = describe(exposure)
    assert row["what"] == "science exposure"
    assert row["shape"] == "2 x 48 x 52"
    assert "F444W" in row["mode"]

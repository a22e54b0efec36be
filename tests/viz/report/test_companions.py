"""Fitted companions in the report: values with their errors, and the errors cause by cause."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import QTable
from matplotlib.image import imread

from lyot.errors import LyotError
from lyot.files.results import FitImages, read_fit, write_fit
from lyot.viz.report import sections
from lyot.viz.report.companions import companions, with_error
from lyot.viz.report.facts import read_facts


@pytest.fixture(scope="module")
def facts(demo):
    return read_facts(demo.folder, command=["lyot", "run"], products=None)


def test_a_psf_that_does_not_describe_a_companion_is_a_warning(facts):
    text = "The PSF does not describe companion 1."
    settings = {"warnings": [text], "psf": "a file; not checked"}
    table = QTable({"snr": [40.0], "described_by_psf": [False]}, meta={"lyot": settings})
    with_fit = replace(facts, companions=table)
    assert text in sections.warnings(with_fit)
    psf, grid = companions(with_fit)
    assert psf.text == "PSF: a file; not checked."
    [shown] = grid.blocks[:1]
    assert ["the PSF describes it (chi-squared at most 2 per pixel)", "False"] in shown.rows


def test_the_errors_of_a_companion_are_shown_cause_by_cause(facts):
    columns = {"snr": [40.0], "described_by_psf": [True]}
    for cause, sizes in {"star": (0.009, 0.4, 0.0), "calibration": (0.0, 0.0, 0.05)}.items():
        for what, size in zip(("separation", "pa", "flux"), sizes, strict=True):
            columns[f"{cause}_{what}_err"] = [size]
    for term in ("separation", "pa", "flux"):
        columns[f"psf_{term}_err"] = [0.0]
    with_fit = replace(facts, companions=QTable(columns))
    grid, shown = companions(with_fit)
    assert not any("err" in row[0] for row in grid.blocks[0].rows)
    assert "Error budget of companion 1" in shown.caption
    # What is zero is not shown.
    assert [[str(getattr(v, "text", v)) for v in row] for row in shown.rows] == [
        ["position of the star", "0.009", "0.4", "0"],
        ["flux calibration", "0", "0", "0.05"],
    ]


def test_residuals_and_posteriors_of_a_fit_are_drawn_from_its_file(facts, tmp_path):
    rng = np.random.default_rng(3)
    model = np.exp(-0.5 * (np.hypot(*np.mgrid[-4:5, -4:5]) / 1.5) ** 2)
    samples = rng.normal([[0.4], [-0.9], [300.0]], [[2e-3], [3e-3], [9.0]], (1, 3, 2000))
    given = FitImages([("a_1", 2.0 + 3.0 * model, 3.0 * model)], samples)
    fit = read_fit(write_fit(given, tmp_path / "fit.fits"))
    np.testing.assert_array_equal(fit.samples, samples)
    grid = next(companions(replace(facts, fit=fit, companions=QTable({"snr": [40.0]}))))
    _, picture, counts, _ = grid.blocks
    image = imread(io.BytesIO(picture.png))[..., :3]
    data, fitted, residual = np.split(image, 3, axis=1)
    np.testing.assert_allclose(data, fitted, atol=0.02)  # the level is taken off
    row, column = (n // 2 for n in data.shape[:2])
    red, _, blue = data[row, column]
    assert red > 2.0 * blue
    assert np.ptp(residual[row, column]) < 0.02  # white
    assert "less the median: 0.40" in counts.caption


@pytest.mark.parametrize(
    ("data", "model", "samples", "text"),
    [
        (np.ones((5, 5)), np.ones((5, 4)), np.ones((1, 3, 9)), "shape (5, 4)"),
        (np.ones((5, 5)), np.ones((5, 5)), np.ones((3, 9)), "shape (3, 9)"),
        (np.full((5, 5), np.nan), np.ones((5, 5)), np.ones((1, 3, 9)), "no data or no samples"),
        (np.ones((5, 5)), np.ones((5, 5)), np.full((1, 3, 9), np.nan), "no data or no samples"),
    ],
)
def test_a_damaged_fit_is_refused(demo, facts, tmp_path, data, model, samples, text):
    for path in demo.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    path = tmp_path / f"{facts.name}_companions.fits"
    write_fit(FitImages([("a_1", data, model)], samples), path)
    with pytest.raises(LyotError, match=re.escape(text)):
        read_facts(tmp_path, command=None, products=None)


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (7.10441, 0.00961, "7.1044 \u00b1 0.0096"),
        (307.35, 0.0841, "307.350 \u00b1 0.084"),
        (9.572e-5, 6.47e-6, "9.57e-05 \u00b1 6.5e-06"),
        (334.6, 23.1, "335 \u00b1 23"),
        (0.0, 0.1, "0.0e+00 \u00b1 1.0e-01"),
        (2.5, 0.0, "2.5 \u00b1 0"),
    ],
)
def test_a_value_has_the_digits_of_its_error(value, error, shown):
    row = QTable({"pa": [value], "pa_err": [error]})[0]
    text, full = with_error(row, "pa")
    assert text == shown
    assert float(full) == value

"""Figures show what the results hold."""

import numpy as np
from matplotlib.figure import Figure

from lyot.analysis.companion import fit_companions
from lyot.analysis.completeness import completeness_map
from lyot.analysis.contrast import ContrastCurve, contrast_curve, sensitivity_map
from lyot.analysis.detection import detect
from lyot.parameters import SubtractRecipe
from lyot.viz import analysis as figures


def test_the_curve_that_is_drawn_is_the_result(draw):
    observation = draw(20)
    curve = contrast_curve(observation, separations_arcsec=np.array([0.4, 1.0, 2.0]))
    figure = Figure()
    upper, lower = figure.subplots(2, 1)
    figures.contrast(upper, curve)
    np.testing.assert_array_equal(upper.lines[0].get_ydata(), curve.calibrated[0])
    assert upper.get_xscale() == upper.get_yscale() == "log"
    assert "5 sigma" in upper.get_ylabel()
    figures.throughput(lower, curve)
    np.testing.assert_array_equal(lower.lines[0].get_ydata(), curve.throughput[0])
    figure.canvas.draw()


def test_the_legend_names_the_modes_that_were_used(draw):
    """Ten references about their common mean have fewer modes than were requested."""
    recipe = SubtractRecipe(n_modes=(3, 50), level_inner_arcsec=2.0)
    curve = contrast_curve(draw(23, recipe=recipe), separations_arcsec=np.array([0.6, 1.2]))
    n_used = curve.n_modes_used[1]
    assert curve.n_modes_used[0] == 3
    assert 3 < n_used <= 10
    upper, lower = Figure().subplots(2, 1)
    figures.contrast(upper, curve)
    figures.throughput(lower, curve)
    for ax, first in ((upper, ""), (lower, "subtraction, ")):
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert labels[:2] == [f"{first}3 modes", f"{first}{n_used} modes (50 requested)"]
    again = ContrastCurve.from_table(curve.to_table())
    assert again.n_modes_used == curve.n_modes_used


def test_maps_and_companions_are_drawn_with_north_up(draw, tmp_path):
    observation = draw(21, [(1.2, 60.0, 300.0)])
    found = detect(observation)
    figure = Figure()
    ax = figures.snr_map(figure.subplots(), found)
    left, right, bottom, top = ax.images[0].get_extent()
    assert left > right
    assert top > bottom
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(marks) == len(found.candidates)
    east, north = marks[0].get_xdata()[0], marks[0].get_ydata()[0]
    np.testing.assert_allclose(np.hypot(east, north), 1.2, atol=0.03)
    np.testing.assert_allclose(np.degrees(np.arctan2(east, north)), 60.0, atol=1.5)
    fit = fit_companions(observation, [(1.2, 60.0)], n_likelihoods=0, n_injections=0)
    panels = Figure()
    axes = figures.companion(panels.subplots(2, 3), fit)
    np.testing.assert_array_equal(axes[0, 1].images[0].get_array(), fit.boxes[0][2])
    figures.posterior(Figure(), fit=fit)
    curve = contrast_curve(observation, separations_arcsec=np.array([0.4, 1.0, 2.0]))
    path = figures.save(
        tmp_path / "a.pdf",
        lambda f: figures.sensitivity(f.subplots(), sensitivity_map(observation, curve)),
        (4.0, 4.0),
    )
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert path.endswith("a.pdf")
    complete = completeness_map(observation, separations_arcsec=np.array([0.5, 1.0, 2.0]))
    figures.completeness(Figure().subplots(), complete)


def test_one_separation_is_drawn(draw):
    observation = draw(22)
    curve = contrast_curve(observation, separations_arcsec=[1.0])
    complete = completeness_map(observation, separations_arcsec=[1.0])
    figure = Figure()
    figures.contrast_figure(figure, curve, title="one")
    figures.sensitivity_figure(Figure(), sensitivity_map(observation, curve), complete)
    figure.canvas.draw()
    assert complete.fraction.shape == (40, 1)

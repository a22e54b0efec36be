"""Plots of a report: each value where its axes put it, in the colors of the page."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from lyot.viz.report.drawing import LEFT, RIGHT, WIDTH, Axis, Band, Bars, Line, Panel, Rule, drawing

SVG = "{http://www.w3.org/2000/svg}"
INNER = WIDTH - LEFT - RIGHT
UNIT = (0.0, 1.0)


def draw(*panels, alt="any"):
    text = drawing(panels, alt, "a caption").svg
    return ElementTree.fromstring(
        text.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    )


def on_unit_axes(*marks, height=200.0, **options):
    return Panel(Axis("x", limits=UNIT), Axis("y", limits=UNIT), marks, height, **options)


def paths(root):
    [inside] = root.findall(f".//{SVG}svg")
    return [path.get("d") for path in inside.findall(f"{SVG}path")]


def test_a_line_goes_where_its_values_lie():
    [path] = paths(
        draw(on_unit_axes(Line(np.array([0, 0.5, 1.0]), np.array([0, 1.0, 0.5]), "red")))
    )
    assert path == f"M0.0 200.0L{INNER / 2:.1f} 0.0L{INNER:.1f} 100.0"


def test_a_line_is_interrupted_where_a_value_is_missing():
    y = np.array([0.0, np.nan, 1.0, 0.5])
    [path] = paths(draw(on_unit_axes(Line(np.linspace(0, 1, 4), y, "red"))))
    assert re.sub(r"[\d. ]", "", path) == "MML"


def test_equal_factors_are_equally_far_apart_on_a_logarithmic_axis():
    y = Axis("y", log=True, limits=(1e-4, 1.0))
    root = draw(Panel(Axis("x", limits=UNIT), y, [], 200.0))
    places = {t.text: float(t.get("y")) for t in root.iter(f"{SVG}text") if t.get("y")}
    places = {name: places[name] for name in ("1", "0.1", "0.01", "0.001", "10\u207b\u2074")}
    assert np.diff(list(places.values())) == pytest.approx(50.0)


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-3e-5, 7e-5), (12.0, 4000.0), (0.97, 0.99)])
@pytest.mark.parametrize("log", [False, True])
def test_what_is_written_along_an_axis_is_round_and_lies_there(limits, log):
    if log and limits[0] <= 0:
        limits = (1e-7, limits[1])
    root = draw(Panel(Axis("", log=log, limits=limits), Axis("y", limits=UNIT), [], 200.0))
    middle = [t for t in root.iter(f"{SVG}text") if t.get("text-anchor") == "middle" and t.text]
    middle = [t for t in middle if t.get("x") and float(t.get("y")) < 220]
    assert 2 <= len(middle) <= 10
    raised = str.maketrans(
        "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "-0123456789"
    )
    for text in middle:
        number, _, power = text.text.replace(" \u00d7 ", "*").partition("10\u207b")
        value = float(number.strip("*") or 1) * (
            10 ** -float(power.translate(raised)) if power else 1
        )
        f = np.log10 if log else float
        part = (f(value) - f(limits[0])) / (f(limits[1]) - f(limits[0]))
        assert float(text.get("x")) == pytest.approx(INNER * part, abs=0.06)


def test_a_unit_is_as_long_on_both_axes_of_a_square_panel():
    points = Line(np.array([0.0, 3.0, 3.0]), np.array([0.0, 0.0, 3.0]), "red", width=0, radius=2)
    [path] = paths(draw(Panel(Axis("x"), Axis("y"), [points], 150.0, square=True)))
    x, y = np.array(re.findall(r"M([\d.]+) ([\d.]+)", path), float).T
    assert x[1] - x[0] == pytest.approx(y[1] - y[2], abs=0.2)


def test_errors_bars_and_areas_have_their_size():
    one, half = np.array([0.5]), np.array([0.25])
    line = Line(one, one, "red", width=0, x_error=half, y_error=0.5 * half)
    bars, band = Bars(one, one, "blue"), Band(np.array(UNIT), np.zeros(2), np.ones(2), "green")
    errors, bar, area, rule = paths(draw(on_unit_axes(line, bars, band, Rule(y=0.25))))
    assert errors == (f"M{INNER / 2:.1f} 125.0V75.0M{0.25 * INNER:.1f} 100.0H{0.75 * INNER:.1f}")
    assert bar.endswith("V200.0")
    assert "V100.0" in bar
    assert area == f"M0.0 200.0L{INNER:.1f} 200.0L{INNER:.1f} 0.0L0.0 0.0"
    assert rule == f"M0 150.0H{INNER:.0f}"


def test_the_axis_at_the_right_has_its_own_range():
    line = Line(np.array(UNIT), np.array([10.0, 30.0]), "red")
    right = Axis("right", limits=(10.0, 20.0))
    [path] = paths(draw(on_unit_axes(right=right, right_marks=[line])))
    assert path.startswith("M0.0 200.0L")
    assert path.endswith(" -200.0")


def test_panels_lie_below_one_another():
    root = draw(on_unit_axes(), on_unit_axes(Rule(label="a name"), height=100.0))
    first, second = root.findall(f"{SVG}g/{SVG}rect/..")
    tops = [float(re.findall(r"[\d.]+", g.get("transform"))[1]) for g in (first, second)]
    bottom = float(root.get("viewBox").split()[3])
    assert tops[0] + 200.0 + 30.0 < tops[1] - 14.0
    assert tops[1] + 100.0 + 30.0 < bottom


def test_text_and_lines_take_the_color_of_the_page_and_names_are_escaped():
    line = Line(np.array(UNIT), np.array(UNIT), "#0072B2", "<b> & c")
    text = drawing([on_unit_axes(line)], 'the "alt"', "a caption").svg
    assert 'fill="currentColor"' in text
    assert "&lt;b&gt; &amp; c" in text
    assert 'aria-label="the &quot;alt&quot;"' in text
    assert "<b>" not in text
    assert "id=" not in text  # so that two on a page do not disturb each other


def test_a_panel_without_values_is_drawn():
    nothing = Line(np.array([np.nan]), np.array([np.nan]), "red")
    for log in (False, True):
        draw(Panel(Axis("x", log=log), Axis("y", log=log), [nothing]))

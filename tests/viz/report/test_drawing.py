"""Drawings of a report: two on one page do not disturb each other."""

import re

from matplotlib.figure import Figure

from lyot.viz.report.drawing import INK, drawing, page_style


def draw(alt):
    with page_style():
        figure = Figure()
        ax = figure.subplots()
        ax.plot([1, 2, 3], "o-", label="line")
        ax.legend()
        return drawing(figure, alt, "a caption").svg


def test_names_within_one_drawing_are_not_those_of_another():
    names = [set(re.findall(r'id="([^"]+)"', draw(alt))) for alt in ("first", "second")]
    assert names[0]
    assert not names[0] & names[1]


def test_what_is_referred_to_is_there():
    svg = draw("any")
    used = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
    assert used
    assert used <= set(re.findall(r'id="([^"]+)"', svg))


def test_text_and_lines_take_the_color_of_the_page():
    svg = draw("any")
    assert INK not in svg
    assert "currentColor" in svg
    assert 'aria-label="any"' in svg

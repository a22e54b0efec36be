"""Backgrounds in the report: what was subtracted, and what the residual has left of it."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.files.star import StarPosition
from lyot.viz.report.background import background
from lyot.viz.report.facts import read_facts, subtracted_backgrounds

RECORD = {"names": ["b1", "b2"], "scale": [[0.9, 1.0, 1.2]], "surface": [[-0.25]], "mean": [3.5]}


@pytest.fixture(scope="module")
def facts(demo):
    return read_facts(demo.folder, command=None, products=None)


def with_exposure(facts, data, steps, **info):
    """The facts with one exposure that has other data, records and header."""
    first = facts.exposures[0]
    view = first.subtractions[0].view
    star = StarPosition(60.0, 50.0, origin="measured")
    view = replace(view, star=star, info=replace(view.info, **info))
    after = replace(first.subtractions[0], view=view, image=data)
    backgrounds = subtracted_backgrounds(first.root, steps)
    changed = replace(first, subtractions=[after], backgrounds=backgrounds)
    return replace(facts, exposures=[changed])


def rows_of(table):
    return [[str(getattr(value, "text", value)) for value in row] for row in table.rows]


def test_a_run_without_backgrounds_has_no_section(facts):
    assert list(background(facts)) == []


def test_scales_and_means_are_those_of_the_record(facts):
    steps = {"background": RECORD, "background_of_references": {"star_calints.fits": RECORD}}
    subtracted, text, *_ = background(with_exposure(facts, np.zeros((1, 100, 120)), steps))
    [science, reference] = rows_of(subtracted)
    assert science[1:] == ["2", "0.90", "1.00", "1.20", "-0.25", "3.5"]
    assert reference == ["star", *science[1:]]
    assert "subtracted before" in text.text


def test_a_surface_alone_has_no_scales(facts):
    record = {"names": [], "scale": np.empty((1, 0)), "surface": [[0.5, 0.1, 0.0]], "mean": [0.5]}
    subtracted, *_ = background(
        with_exposure(facts, np.zeros((1, 100, 120)), {"background": record})
    )
    assert subtracted.header == [
        "exposure",
        "constant [MJy/sr]",
        "mean of what was subtracted [MJy/sr]",
    ]
    assert rows_of(subtracted)[0][1:] == ["0.5", "0.5"]


def test_what_is_left_in_quadrants_and_strips_is_found(facts):
    y, x = np.indices((100, 120))
    image = np.where((y > 50) & (x > 60), 0.4, 0.0)
    steps = {"background": RECORD}
    *_, left, _ = background(with_exposure(facts, image[None], steps))
    [row] = rows_of(left)
    assert row[1:] == ["+0.000", "+0.400", "+0.000", "+0.000"]
    # Behind a four-quadrant phase mask the strips along its boundaries are apart.
    miri = {"instrument": "MIRI", "coronagraph": "4QPM_1140", "filter": "F1140C"}
    tilt = np.radians(-4.8)
    across = np.cos(tilt) * (y - 50.0) - np.sin(tilt) * (x - 60.0)
    strip = np.where(np.abs(across) < 11, 0.3, 0.0)
    *_, left, _ = background(with_exposure(facts, strip[None], steps, **miri))
    [row] = rows_of(left)
    assert left.header[-2:] == ["horizontal boundary [MJy/sr]", "vertical boundary [MJy/sr]"]
    assert float(row[5]) > 0.2 > float(row[6])

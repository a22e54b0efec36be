"""The sections of a report: what they say follows from the facts."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.files.star import StarPosition
from lyot.viz.report import sections
from lyot.viz.report.blocks import Grid, Number, Table, number
from lyot.viz.report.facts import read_facts


@pytest.fixture(scope="module")
def facts(demo):
    return read_facts(demo.folder, command=["lyot", "run", "an asn.json"], products=None)


def with_alignment(facts, **changes):
    """The facts with another alignment of the first exposure."""
    first, *others = facts.exposures
    changed = replace(first, alignment=replace(first.alignment, **changes))
    return replace(facts, exposures=[changed, *others])


def new_warnings(facts, changed):
    known = sections.warnings(facts)
    return [text for text in sections.warnings(changed) if text not in known]


def test_alignments_that_failed_are_counted(facts):
    converged = facts.exposures[0].alignment.converged.copy()
    converged[0, :3] = False
    [text] = new_warnings(facts, with_alignment(facts, converged=converged))
    assert f"3 of {converged.size} alignments did not converge" in text


def test_a_poor_alignment_is_a_warning(facts):
    error = np.full_like(facts.exposures[0].alignment.shift_error_yx, 0.25)
    [text] = new_warnings(facts, with_alignment(facts, shift_error_yx=error))
    assert "median shift error is 0.25 pixel" in text


def test_few_references_are_a_warning(facts):
    [text] = new_warnings(facts, with_alignment(facts, targets=["a star"]))
    assert text.startswith("Only 1 reference frame:")


def test_warnings_of_references_name_frame_and_star(facts):
    found = [{"reference": 4, "target": "HD 1", "reason": "12 pixels are saturated"}]
    [text] = new_warnings(facts, with_alignment(facts, warnings=found))
    assert text == "Reference 5 (HD 1): 12 pixels are saturated."


def test_nearly_degenerate_references_are_a_warning(facts):
    first, *others = facts.exposures
    last = first.subtractions[-1]
    values = last.eigenvalues.copy()
    values[:, last.n_modes_used - 1] = 1e-11 * values[:, 0]
    changed = replace(first, subtractions=[replace(last, eigenvalues=values)])
    [text] = new_warnings(facts, replace(facts, exposures=[changed, *others]))
    assert "nearly degenerate" in text
    assert "1e-11 of the first" in text


def test_a_star_that_was_not_measured_is_a_warning(facts):
    first, *others = facts.exposures
    last = first.subtractions[-1]
    view = replace(last.view, star=StarPosition(20.0, 20.0, origin="crpix"))
    changed = replace(first, subtractions=[replace(last, view=view)])
    [text] = new_warnings(facts, replace(facts, exposures=[changed, *others]))
    assert "position of the star was not measured" in text


def test_exposures_show_as_many_integrations_as_there_is_room_for(facts, monkeypatch):
    def n_frames(limit):
        monkeypatch.setattr(sections, "MAX_FRAME_CHARACTERS", limit)
        [grid] = sections.before_after(facts)
        return [len(viewer.frames) for viewer in grid.blocks]

    n_int = len(facts.exposures[0].best.view.data)
    assert n_frames(100_000_000)[0] == 2 * (n_int + 1)  # before and after, and their means
    assert n_frames(0)[0] == 2


def test_every_choice_of_a_viewer_has_its_frame(facts):
    for section in (sections.combined(facts), sections.before_after(facts)):
        for grid in (block for block in section if isinstance(block, Grid)):
            for viewer in (b for b in grid.blocks if b.kind == "viewer"):
                n_choices = np.prod([len(names) for _, names in viewer.axes])
                assert len(viewer.frames) == n_choices
                assert len({frame.name for frame in viewer.frames}) == n_choices


def test_the_star_is_said_to_be_aligned_only_where_it_was(facts):
    def text(aligned):
        told = replace(facts, inputs=replace(facts.inputs, star_is_aligned=aligned))
        return " ".join(b.text for b in sections.star(told) if b.kind == "paragraph")

    assert facts.inputs.star_is_aligned
    assert "same position on the sky" in text(True)
    assert text(False) == ""


def test_the_command_can_be_pasted_into_a_shell(facts):
    assert next(sections.reproduce(facts)).text == "lyot run 'an asn.json'"


def test_a_number_is_kept_in_full_beside_its_text():
    assert number(1.23456789, ".2f") == Number("1.23", "1.23456789")
    assert number(np.nan, ".2f") == ""


def test_tables_are_rectangular(facts):
    for make in sections.SECTIONS.values():
        for block in make(facts):
            if isinstance(block, Table):
                assert {len(row) for row in block.rows} <= {len(block.header)}, block.caption

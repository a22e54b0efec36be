"""References that are aligned as they are asked for, in any order, are handed on once."""

import numpy as np
import pytest

from lyot.files.exposure import read_cube, stack
from lyot.parameters import AlignRecipe
from lyot.references.aligner import Aligner
from lyot.references.computed import ComputedReferences
from lyot.references.prepare import prepare_refs
from lyot.references.vet import ReferenceWarning


@pytest.fixture(scope="module")
def aligner(small):
    """Return what makes an aligner of a small observation."""
    [science] = small.parent.glob("jw09999001*_calints.fits")
    refs = sorted(small.parent.glob("jw09999002*_calints.fits"))
    target, recipe = read_cube(science), AlignRecipe()
    prepared = prepare_refs(stack(read_cube(path) for path in refs), recipe)
    return lambda **options: Aligner(target, prepared, AlignRecipe(**options))


def test_the_order_of_the_questions_does_not_matter(aligner):
    forward, backward = aligner(), aligner()
    first = [forward.align(i) for i in (0, 1)]
    last = [backward.align(i) for i in (1, 0)][::-1]
    for a, b in zip(first, last, strict=True):
        np.testing.assert_array_equal(a.frames.sci, b.frames.sci)
        np.testing.assert_array_equal(a.frames.variance, b.frames.variance)
        for one, other in zip(a.fit, b.fit, strict=True):
            np.testing.assert_array_equal(one, other)


def test_each_set_is_handed_on_once(aligner):
    received = []
    aligned = ComputedReferences(
        aligner(), receive=lambda i, frames: received.append((i, frames.sci.copy()))
    )
    assert aligned.star.origin == "measured"
    for i in (0, 1, 0, 1):
        np.testing.assert_array_equal(aligned.frames(i).sci, received[i][1])
    assert [number for number, _ in received] == [0, 1]


def test_the_record_is_complete_whatever_was_asked_for(aligner):
    aligned = ComputedReferences(aligner(), inputs=["a", "b"], weight_origin="w")
    record = aligned.history()["align_psfs"]
    assert record["shift_yx"].shape == (2, 6, 2)
    assert (record["inputs"], record["weight"]) == (["a", "b"], "w")
    np.testing.assert_array_equal(record["shift_yx"][1], aligner().align(1).fit.shift_yx)


def test_a_set_for_the_first_integration_serves_all(aligner):
    aligned = ComputedReferences(aligner(align_to="first"))
    assert (aligned.shared, aligned.n_sets) == (True, 1)
    assert aligned.frames(1) is aligned.frames(0)
    assert aligned.fits().scale.shape == (1, 6)
    part = aligned.section(1, slice(3, 5), slice(7, 10))
    np.testing.assert_array_equal(part, aligned.frames(0).sci[:, 3:5, 7:10].astype(float))


def test_warnings_that_are_given_are_not_looked_for_again(aligner):
    warning = ReferenceWarning(2, "star", "too bright")
    aligned = ComputedReferences(aligner(), warnings=[warning])
    assert aligned.warnings == [warning]
    [recorded] = aligned.details()["reference_warnings"]
    assert recorded == {"reference": 2, "target": "star", "reason": "too bright"}

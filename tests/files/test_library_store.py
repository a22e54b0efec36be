"""The index of a reference library."""

import pytest

from lyot.errors import LyotError


def test_the_index_can_be_queried(library):
    rows = library.query("integration = 1 AND target LIKE 'demo%'")
    assert rows
    assert {r["integration"] for r in rows} == {1}
    for bad in ("color = 3", "1; DROP TABLE frames", "integration = "):
        with pytest.raises(LyotError, match="is no condition"):
            library.query(bad)
    assert len(library.query()) == len(library)

"""Tables as ECSV, against what astropy writes and reads."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from lyot.errors import LyotError
from lyot.files.tables import ResultTable, read_results, write_table

COLUMNS = {
    "n": np.array([1, -2, 3]),
    "flux": np.array([1e-300, np.nan, 1.0 / 3.0]),
    "known": np.array([True, False, True]),
    "text": np.array(["", 'two "words"', "a\tb,c"]),
    "\u03b1": np.array([np.inf, 0.0, -0.1]),
}
META = {
    "lyot": {
        "psf": "a file: not 'checked', 3 % \u2014 of the flux",
        "sources": [[1.5, np.float64(40.0)], []],
        "n": np.int64(3),
        "nothing": None,
        "limit": float("nan"),
    }
}
TABLE = ResultTable(COLUMNS, {"flux": "MJy pix / sr"}, META, {"flux": "as measured"})


def same(a, b):
    np.testing.assert_array_equal(np.asarray(getattr(a, "value", a)), b)


def test_astropy_reads_what_is_written(tmp_path):
    read = QTable.read(write_table(TABLE, tmp_path / "t.ecsv"))
    assert read.colnames == list(COLUMNS)
    for name, values in COLUMNS.items():
        if name == "text":  # to astropy an empty text is a missing one
            assert list(read[name].filled("")) == list(values)
        else:
            same(read[name], values)
            assert read[name].dtype == values.dtype
    assert read["flux"].unit == u.Unit("MJy pix / sr")
    assert read["flux"].info.description == "as measured"
    assert read.meta["lyot"]["psf"] == META["lyot"]["psf"]
    assert read.meta["lyot"]["sources"] == [[1.5, 40.0], []]


@pytest.mark.parametrize("written_by", ["us", "astropy"])
def test_a_table_comes_back_as_it_was(tmp_path, written_by):
    path = tmp_path / "t.ecsv"
    if written_by == "us":
        write_table(TABLE, path)
    else:
        plain = {"lyot": META["lyot"] | {"sources": [[1.5, 40.0], []], "n": 3}}
        table = TABLE.to_astropy()
        table.meta = plain
        table.write(path)
    again = read_results(path)
    for name, values in COLUMNS.items():
        same(again[name], values)
        assert again[name].dtype.kind == values.dtype.kind
    assert again.units == TABLE.units
    assert again.descriptions == TABLE.descriptions
    assert list(again.meta) == ["lyot"]
    assert again.meta["lyot"]["sources"] == [[1.5, 40.0], []]
    assert np.isnan(again.meta["lyot"]["limit"])
    rows = list(again)
    assert len(again) == len(rows) == 3
    assert rows[1]["text"] == 'two "words"'
    assert rows[1].colnames == again.colnames


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    empty = ResultTable({name: values[:0] for name, values in COLUMNS.items()})
    path = write_table(empty, tmp_path / "t.ecsv")
    for again in (read_results(path), QTable.read(path)):
        assert (again.colnames, len(again)) == (empty.colnames, 0)
    assert read_results(path)["flux"].dtype == np.float64


@pytest.mark.parametrize("n_lines", range(1, 6))
def test_a_table_cut_in_its_header_is_refused_in_words_of_a_user(tmp_path, n_lines):
    path = tmp_path / "t.ecsv"
    write_table(ResultTable({"x": np.array([1.0, 2.0])}, {"x": "m"}), path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:n_lines]))
    with pytest.raises(LyotError, match="cannot be read") as refused:
        read_results(path)
    assert "NoneType" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x\n1.0", "y\n1.0"),
        ("2.0", "two"),
        ("2.0", "2.0 3.0"),
        ("float64", "object"),
        ("ECSV", "CSV"),
        ("datatype", "data"),
        ("---", "{"),
        ("{name: x", "{name: !!python/object:os.system x"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, old, new):
    path = tmp_path / "t.ecsv"
    write_table(ResultTable({"x": np.array([1.0, 2.0])}), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(LyotError, match="cannot be read"):
        read_results(path)

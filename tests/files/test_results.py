"""Results of an analysis as files."""

import pytest
from astropy.table import Table

from lyot.errors import LyotError
from lyot.files.results import read_table, write_latex, write_table


def test_empty_texts_come_back_as_they_were(tmp_path):
    table = Table({"kind": ["point", ""], "snr": [5.5, float("nan")]})
    again = read_table(write_table(table, tmp_path / "t.ecsv"))
    assert list(again["kind"]) == ["point", ""]
    assert again["snr"][0] == 5.5


def test_a_latex_table_has_its_notes_below(tmp_path):
    columns = {"Quantity": ["S/N"], "Companion 1": [r"$5.5 \pm 1.0$"]}
    write_latex(columns, tmp_path / "t.tex", caption="All.", notes=["One."], alignment="lc")
    text = (tmp_path / "t.tex").read_text()
    assert r"\caption{All.}" in text
    assert r"S/N & $5.5 \pm 1.0$ \\" in text
    assert text.index(r"\end{tabular}") < text.index(r"One. \par") < text.index(r"\end{table}")


@pytest.mark.parametrize("n_lines", range(1, 6))
def test_a_table_cut_in_its_header_is_refused_in_words_of_a_user(tmp_path, n_lines):
    path = tmp_path / "t.ecsv"
    write_table(Table({"x": [1.0, 2.0]}), path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:n_lines]))
    with pytest.raises(LyotError, match="cannot be read") as refused:
        read_table(path)
    assert "NoneType" not in str(refused.value)

"""Results of an analysis as files."""

from astropy.table import Table

from lyot.files.results import read_table, write_latex


def test_empty_texts_come_back_as_they_were(tmp_path):
    path = tmp_path / "t.ecsv"
    Table({"kind": ["point", ""], "snr": [5.5, float("nan")]}).write(path)
    again = read_table(path)
    assert list(again["kind"]) == ["point", ""]
    assert again["snr"][0] == 5.5


def test_a_latex_table_has_its_notes_below(tmp_path):
    columns = {"Quantity": ["S/N"], "Companion 1": [r"$5.5 \pm 1.0$"]}
    write_latex(columns, tmp_path / "t.tex", caption="All.", notes=["One."], alignment="lc")
    text = (tmp_path / "t.tex").read_text()
    assert r"\caption{All.}" in text
    assert r"S/N & $5.5 \pm 1.0$ \\" in text
    assert text.index(r"\end{tabular}") < text.index(r"One. \par") < text.index(r"\end{table}")

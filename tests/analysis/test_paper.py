"""Tables for a paper: digits, causes of errors, citations."""

import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from lyot.analysis.companion import Bias, Companion, CompanionFit, Measured
from lyot.analysis.companion.budget import ErrorBudget, ErrorTerm
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.mass import MassLimits
from lyot.analysis.paper import citations, companions_for_paper, limits_for_paper
from lyot.analysis.statistic import Statistic
from lyot.files.results import write_latex

NAN = float("nan")


def fitted(**changed):
    """A companion without star, whose errors are those of the star's position and the flux."""
    companion = Companion(
        separation_arcsec=Measured(1.10037, 0.0042),
        pa_deg=Measured(205.1234, 0.26),
        d_ra_arcsec=Measured(-0.4669, 0.0047),
        d_dec_arcsec=Measured(-0.9964, 0.0043),
        flux=Measured(123.0, 7.0),
        contrast=Measured(NAN, NAN),
        jy=Measured(9.5712e-05, 6.5e-06),
        magnitude=Measured(NAN, NAN),
        snr=53.21,
        fpf=1e-9,
        budget=ErrorBudget(star=ErrorTerm(0.0042, 0.26), calibration=ErrorTerm(flux=0.05)),
        bias=Bias(0.0, 0.0, 0.0, 0),
        chi2=210.0,
        n_data=200,
    )
    settings = {"psf": "model_a & b", "transmission": "model", "star": ""}
    return CompanionFit((replace(companion, **changed),), np.zeros((1, 1, 3)), 0, 5, settings, [])


def test_values_have_two_digits_of_their_error_and_unknown_ones_are_left_out():
    columns, _, notes, _ = companions_for_paper(fitted(), ["Someone 2012, doi:10.1/a_b"])
    rows = dict(zip(columns["Quantity"], columns["Companion 1"], strict=True))
    assert rows["Separation [arcsec]"] == r"$1.1004 \pm 0.0042$"
    assert rows["Position angle [deg]"] == r"$205.12 \pm 0.26$"
    assert rows["Flux density [Jy]"] == r"$(9.57 \pm 0.65) \times 10^{-5}$"
    assert rows["S/N"] == "53.2"
    assert not {"Contrast", "Magnitude (Vega)"} & set(rows)
    causes = {name: cell for name, cell in rows.items() if name.startswith("Error")}
    assert causes == {
        "Error: position of the star": "4.2 mas, 0.26 deg",
        "Error: flux calibration": "5 \\%",
    }
    assert r"PSF: model\_a \& b." in notes
    assert r"Someone 2012, doi:10.1/a\_b" in notes


def test_a_psf_that_does_not_describe_a_companion_is_said_below_the_table():
    notes = companions_for_paper(fitted(chi2=900.0), []).notes
    assert any("does not describe companion 1" in note for note in notes)


def test_the_limits_of_a_paper_are_the_best_ones(draw):
    observation = draw(12)
    curve = contrast_curve(observation, separations_arcsec=[0.02, 1.2], n_angles=2)
    cited = citations(observation, curve.statistic)
    columns, _, notes, _ = limits_for_paper(curve, None, cited)
    assert columns["Contrast"][0] == ""  # too few positions
    mantissa, power = f"{curve.best_limit[1]:.2e}".split("e")
    assert columns["Contrast"][1] == rf"${mantissa} \times 10^{{{int(power)}}}$"
    assert columns["Modes"] == ["4", "4"]
    assert any("Soummer" in note for note in notes)


def test_latex_sets_the_tables_within_the_width_of_a_page(draw, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-base)")
    observation = draw(12)
    curve = contrast_curve(observation, separations_arcsec=[0.02, 1.0, 1.2], n_angles=2)
    curve = replace(curve, settings=curve.settings | {"found": ["1.1 arcsec, 205 degrees"]})
    masses = MassLimits(
        limit_mjup=np.full(curve.calibrated.shape, 12.345),
        separation_arcsec=curve.separation_arcsec,
        mass_mjup=np.array([1.0]),
        probability=np.ones((1, 3)),
        age_myr=20.0,
        distance_pc=10.0,
        origin="models_2024.ecsv",
    )
    cited = citations(observation, curve.statistic, is_sampled=True)
    term = ErrorTerm(0.01234, 0.1234, 0.1234)
    every = ErrorBudget(**{each.name: term for each in fields(ErrorBudget)})
    source = r"\documentclass{article}\begin{document}"
    for paper in (
        limits_for_paper(curve, masses, cited),
        companions_for_paper(fitted(budget=every), cited),
    ):
        how = dict(zip(("caption", "notes", "alignment"), paper[1:], strict=True))
        source += Path(write_latex(paper.columns, tmp_path / "table.tex", **how)).read_text()
    (tmp_path / "paper.tex").write_text(source + r"\end{document}")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Output written on paper.pdf" in done.stdout
    assert "Overfull" not in done.stdout


def test_what_was_used_is_cited(draw):
    observation = draw(12)
    text = "; ".join(citations(observation, Statistic(noise="laplace"), is_sampled=True))
    for name in ("lyot", "Soummer", "Mawet", "Bonse", "Foreman-Mackey"):
        assert name in text
    nmf = replace(observation, recipe=replace(observation.recipe, method="nmf"))
    plain = "; ".join(citations(nmf, Statistic()))
    assert "Ren et al. 2018" in plain
    assert not {"Soummer", "Bonse", "Foreman-Mackey"} & set(plain.replace(",", " ").split())

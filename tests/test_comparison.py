"""Modes of one star reduced together are compared: one place of its companion, a color."""

import json

import numpy as np
import pytest
from astropy.table import QTable

from lyot.simulate import Companion, Scene, simulate_observation
from scenes import lyot

CONTRAST = {"F356W": 4e-4, "F444W": 8e-4}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A companion that is twice as bright, over its star, in one filter as in the other."""
    home = tmp_path_factory.mktemp("modes")
    associations = [
        simulate_observation(
            home / name,
            Scene(
                filter=name,
                shape=(64, 66),
                rolls_deg=(10.0,),
                n_int=2,
                n_int_psf=2,
                n_dither=5,
                disc=None,
                companions=(Companion(separation_arcsec=1.2, pa_deg=205.0, contrast=contrast),),
            ),
            seed=3,
        )
        for name, contrast in CONTRAST.items()
    ]
    options = ("-o", home / "out", "--truncate", "5", "-q")
    done = lyot("run", *associations, *options)
    assert done.exit_code == 0, done.output
    return home / "out", done.output, (associations, options)


def test_the_companion_has_one_place_and_the_color_that_was_put_in(run):
    folder, output, _ = run
    [target] = json.loads((folder / "comparison.json").read_text())
    assert [mode["filter"] for mode in target["modes"]] == ["F356W", "F444W"]
    for mode in target["modes"]:
        assert (folder / mode["image"]).is_file()
    first = target["companions"][0]
    r, pa = first["separation_arcsec"], first["pa_deg"]
    assert abs(r["value"] - 1.2) < 3 * r["err"] < 0.1
    assert abs(pa["value"] - 205.0) < 3 * pa["err"]
    fluxes = {mode["filter"]: mode["jy"]["value"] for mode in first["modes"]}
    # The simulated star is as bright in both, in the unit of the frames.
    assert fluxes["F444W"] / fluxes["F356W"] == pytest.approx(2.0, rel=0.15)
    [color] = first["colors"]
    assert color["name"] == "F356W - F444W"
    assert "F356W - F444W = " in output
    assert "filter by filter" in output
    page = (folder / "survey_report.html").read_text()
    assert "Companions at one place in all modes of their star" in page
    assert "F356W - F444W" in page
    rows = QTable.read(folder / "survey_colors.ecsv")
    assert set(rows["filter"]) == set(CONTRAST)
    assert rows["separation"].unit == "arcsec"
    assert list(rows["target"]) == [target["target"]] * len(rows)
    assert rows["color"][0].value == pytest.approx(color["magnitude"]["value"])
    assert np.isnan(rows["color"][1])


def test_what_is_up_to_date_is_not_compared_again(run):
    folder, _, (associations, options) = run
    path = folder / "comparison.json"
    before = path.stat().st_mtime_ns
    done = lyot("run", *associations, *options)
    assert done.exit_code == 0, done.output
    assert path.stat().st_mtime_ns == before
    assert "filter by filter" in done.output


def test_one_mode_is_not_compared(run, tmp_path):
    _, _, (associations, _) = run
    done = lyot("run", associations[0], "-o", tmp_path, "--no-report", "--no-search", "-q")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "comparison.json").exists()

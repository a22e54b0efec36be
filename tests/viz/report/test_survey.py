"""The page of a survey: what it compares is what the reductions hold."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable

from lyot.errors import LyotError
from lyot.files.results import write_table
from lyot.files.view import read_view
from lyot.viz.report import survey, write_survey_report


@pytest.fixture
def folder(demo, tmp_path):
    """The demo's reduction as a survey, beside one that failed."""
    name = demo.product("_i2d.fits").name.removesuffix("_i2d.fits")
    own = tmp_path / name
    own.mkdir()
    for path in demo.folder.iterdir():
        (own / path.name).symlink_to(path)
    found = {
        "separation": [1.1, 2.2] * u.arcsec,
        "position_angle": [205.0, 25.0] * u.deg,
        "snr": [12.3, 45.6],
        "expected_false_alarms": [1e-9, 1e-9],
        "contrast": [3e-5, 4e-5],
        "kind": ["point", "extended"],
        "notes": ["", "near an edge"],
    }
    write_table(QTable(found), own / f"{name}_candidates.ecsv")
    fitted = {"separation": [1.1004], "separation_err": [0.0042], "pa": [205.0], "pa_err": [0.2]}
    fitted |= {name: [1.0] for name in ("flux_density", "contrast", "magnitude", "snr")}
    fitted |= {f"star_{what}_err": [v] for what, v in (("separation", 0.004), ("pa", 0.19))}
    write_table(QTable(fitted | {"star_flux_err": [0.0]}), own / f"{name}_companions.ecsv")
    nothing = {"products": [], "summary": [], "candidates": None, "unsearched": "", "message": ""}
    done = nothing | {
        "product": name,
        "association": f"{name}_asn.json",
        "products": [str(p) for p in own.iterdir()],
        "summary": demo.summary,
        "candidates": [{}, {}],
    }
    failed = nothing | {"product": "", "association": "b_asn.json", "message": "No <science>."}
    (tmp_path / "survey.json").write_text(json.dumps([done, failed]))
    return tmp_path


def frames(page):
    found = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return [frame for text in found for frame in json.loads(text)["frames"]]


def test_what_was_found_and_measured_is_on_the_page(folder, demo):
    info = read_view(demo.product("_i2d.fits")).info
    page = (folder / "survey_report.html").resolve()
    assert write_survey_report(folder) == str(folder / page.name)
    text = page.read_text().replace("<wbr>", "")
    for words in (
        f"{info.target} {info.filter} {info.coronagraph}",
        "b_asn.json was not reduced: No &lt;science&gt;.",
        ">12.3<",
        "near an edge",
        "1.1004 \u00b1 0.0042",
        "position of the star",
        f"{np.mean([e['rms_after'] for e in demo.summary]):.3g}",
    ):
        assert words in text
    [frame] = frames(text)
    assert len(frame["marks"]) == 2


@pytest.mark.parametrize("n_characters", [1_800_000, 12_000])
def test_a_thumbnail_shows_the_same_sky_on_fewer_pixels(folder, demo, monkeypatch, n_characters):
    monkeypatch.setattr(survey, "MAX_IMAGE_CHARACTERS", n_characters)
    text = Path(write_survey_report(folder)).read_text()
    [frame] = frames(text)
    n_y, n_x = fits.getdata(demo.product("_i2d.fits"), "SCI").shape
    assert len(frame["data"]) <= n_characters
    over = round(n_x / frame["width"])
    assert (over == 1) == (n_characters == 1_800_000)
    assert frame["height"] == n_y // over
    x, y = frame["star"]
    for mark, separation in zip(frame["marks"], (1.1, 2.2), strict=True):
        distance = np.hypot(mark["x"] - x, mark["y"] - y) * frame["arcsec"]
        assert distance == pytest.approx(separation, rel=1e-6)


def test_a_folder_that_is_no_survey_is_refused(tmp_path):
    with pytest.raises(LyotError, match=r"holds no survey\.json"):
        write_survey_report(tmp_path)

"""The commands that make products: what a user types, and what bad input gets."""

import gzip
import json
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from stdatamodels.jwst import datamodels

from lyot.files.association import read_association
from lyot.simulate import Companion, Scene, simulate_observation
from scenes import assert_refused, lyot, products_in


def test_run_names_its_products_and_ends_with_a_table(small, tmp_path):
    done = lyot("run", small, "-o", tmp_path, "--truncate", "3")
    assert done.exit_code == 0, done.output
    for path in products_in(tmp_path):
        assert str(path) in done.stdout
    assert "rms before" in done.stdout
    assert "jw09999001001_03102_00001_nrcalong_calints.fits" in done.stdout
    assert "combine" in done.stderr
    assert any(p.suffix == ".html" for p in tmp_path.iterdir())


@pytest.fixture(scope="module")
def with_companion(tmp_path_factory):
    """The association of a small observation of a star with a companion, at one roll."""
    scene = Scene(
        shape=(84, 88),
        rolls_deg=(10.0,),
        n_int=1,
        n_int_psf=1,
        n_dither=5,
        disc=None,
        companions=(Companion(separation_arcsec=1.6, pa_deg=205.0, contrast=1e-4),),
    )
    return simulate_observation(tmp_path_factory.mktemp("companion"), scene, seed=2)


def test_a_run_ends_with_a_search_unless_told_otherwise(with_companion, tmp_path):
    done = lyot("run", with_companion, "-o", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    [finished] = json.loads(done.stdout)
    found = finished["candidates"][0]
    assert found["separation_arcsec"] == pytest.approx(1.6, abs=0.03)
    assert found["pa_deg"] == pytest.approx(205.0, abs=1.0)
    assert found["contrast"] is None  # the star's brightness is not known
    assert list(tmp_path.glob("*_candidates.ecsv"))
    assert not list(tmp_path.glob("*.png"))  # figures are drawn on demand
    [report] = tmp_path.glob("*_report.html")
    assert "No candidates" not in report.read_text()
    again = lyot("run", with_companion, "-o", tmp_path)
    assert "up to date" in again.stdout
    assert f"{found['separation_arcsec']:.3f}" in again.stdout


def test_one_command_gives_a_companion_with_its_errors_and_limits_in_mass(with_companion, tmp_path):
    models, out = tmp_path / "models.csv", tmp_path / "out"
    models.write_text("age,mass,F444W\n10,1,18\n10,50,5\n100,1,20\n100,50,7\n")
    options = ("-o", out, "--measure", "--age", "30", "--distance", "20", "--mass-table", models)
    assert_refused(lyot("run", with_companion, *options), "need the brightness of the star too")
    assert not out.exists()
    done = lyot("run", with_companion, *options, "--star-mag", "5")
    assert done.exit_code == 0, done.output
    [path] = out.glob("*_companions.ecsv")
    [row] = QTable.read(path)
    assert abs(row["separation"].value - 1.6) < 4 * row["separation_err"].value
    assert f"{row['separation'].value:.4f} +- " in done.stdout
    [path] = out.glob("*_limits.ecsv")
    assert QTable.read(path)["mass"].unit == "jupiterMass"
    [report] = out.glob("*_report.html")
    for words in ("Error budget of companion 1", "limit [Jupiter masses]", "position of the star"):
        assert words in report.read_text()
    assert "Contrast limits: " in done.stdout
    # What was measured is told again where nothing is reduced again.
    again = lyot("run", with_companion, *options, "--star-mag", "5")
    assert "up to date" in again.stdout
    assert f"{row['separation'].value:.4f} +- " in again.stdout


def test_a_run_that_is_not_searched_says_why(small, with_companion, tmp_path):
    done = lyot("run", small, "-o", tmp_path / "a", "--truncate", "3", "--no-psfalign")
    why = "The search needs products that were not saved: psfalign."
    assert f"No candidates: {why}" in done.stdout
    [report] = (tmp_path / "a").glob("*_report.html")
    assert why in report.read_text()
    # Fits of several numbers of modes that do not nest are searched with the largest.
    nmf = ("--method", "nmf", "--truncate", "2,4")
    done = lyot("run", with_companion, "-o", tmp_path / "b", *nmf, "--no-report", "--json")
    [finished] = json.loads(done.stdout)
    assert finished["candidates"][0]["separation_arcsec"] == pytest.approx(1.6, abs=0.05)


def test_run_can_leave_products_out(small, tmp_path):
    done = lyot("run", small, "-o", tmp_path, "--only-final", "--no-report")
    assert done.exit_code == 0, done.output
    kinds = sorted(p.stem.rpartition("_")[2] for p in products_in(tmp_path))
    assert kinds == ["contrast", "i2d", "snr"]


def test_asn_then_run(small, tmp_path):
    files = sorted(small.parent.glob("*_calints.fits"))
    done = lyot("asn", *files, "-o", tmp_path / "made.json")
    assert done.exit_code == 0, done.output
    assert "1 science, 3 psf" in done.output
    done = lyot(
        "run",
        tmp_path / "made.json",
        "-o",
        tmp_path / "out",
        "--only-final",
        "--align-to",
        "first",
        "--set",
        "hlsp.skip=true",
        "--no-report",
        "--no-search",
    )
    assert done.exit_code == 0, done.output
    assert len(products_in(tmp_path / "out")) == 1


@pytest.fixture
def delivered(small, tmp_path):
    """The observation as the archive may deliver it: two folders, a link, packed, one mean."""
    folder = tmp_path / "delivered"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    science, linked, *packed = sorted(small.parent.glob("*_calints.fits"))
    with datamodels.CubeModel(science) as cube, datamodels.ImageModel(cube.data[0]) as image:
        image.update(cube)
        image.err, image.dq = cube.err[0], cube.dq[0]
        image.meta.wcs = cube.meta.wcs
        image.save(folder / "a" / science.name.replace("calints", "cal"))
    os.symlink(linked, folder / "a" / linked.name)
    for path in packed:
        with path.open("rb") as raw, gzip.open(folder / "b" / f"{path.name}.gz", "wb") as out:
            shutil.copyfileobj(raw, out)
    return folder


def test_a_folder_of_exposures_is_sorted_and_reduced(delivered, tmp_path):
    out = tmp_path / "out"
    plan = lyot("run", delivered, "-o", out, "--plan")
    assert plan.exit_code == 0, plan.output
    assert "1 integration, 6 reference frames" in plan.stdout
    assert not out.exists()
    options = ("-o", out, "--truncate", "3", "--only-final", "--no-report", "--no-search")
    done = lyot("run", delivered, *options)
    assert done.exit_code == 0, done.output
    [written] = out.glob("*_asn.json")
    asn = read_association(written)
    assert asn.science[0].name.endswith("_cal.fits")
    assert sorted(p.suffix for p in asn.psf) == [".fits", ".gz", ".gz"]
    assert list(out.glob(f"{asn.product}_i2d.fits"))
    # What a run has written beside its products stands for nothing when it is run again.
    assert "up to date" in lyot("run", delivered, *options).stdout
    for path in delivered.rglob("*fits*"):
        shutil.copy(path, out)
    assert "up to date" in lyot("run", out, *options).stdout


def test_modes_in_one_folder_become_reductions_that_a_table_compares(small, tmp_path):
    folder = tmp_path / "modes"
    folder.mkdir()
    for path in small.parent.glob("*_calints.fits"):
        shutil.copy(path, folder)
        with fits.open(path) as hdus:
            hdus[0].header["FILTER"] = "F335M"
            hdus.writeto(folder / path.name.replace("_03102_", "_03104_"))
    out = tmp_path / "out"
    done = lyot("run", folder, "-o", out, "--only-final", "--set", "hlsp.skip=true")
    assert done.exit_code == 0, done.output
    rows = json.loads((out / "survey.json").read_text())
    assert sorted(row["product"].split("_")[3] for row in rows) == ["f335m", "f444w"]
    for row in rows:
        assert (out / row["product"] / f"{row['product']}_asn.json").is_file()
        [exposure] = row["summary"]
        assert exposure["references"] == 6
    assert "candidates" in done.stdout
    assert "limit at 1 arcsec" in done.stdout
    page = out / "survey_report.html"
    assert f"Report: {page}" in done.stdout
    first = page.read_text()
    for row in rows:
        assert f'href="{row["product"]}/{row["product"]}_report.html"' in first
    assert first.count("not searched: The search needs products") == 2
    assert lyot("report", out).stdout.strip() == str(page)
    assert page.read_text() == first


def test_members_in_another_folder(small, tmp_path):
    (tmp_path / "asn.json").write_text(small.read_text())
    assert_refused(lyot("run", tmp_path / "asn.json", "-o", tmp_path / "o"), "name its folder with")
    done = lyot(
        "run",
        tmp_path / "asn.json",
        "-o",
        tmp_path / "o",
        "--input-dir",
        small.parent,
        "--only-final",
        "--no-report",
        "--no-search",
    )
    assert done.exit_code == 0, done.output


def test_info_is_a_table_or_json(small):
    files = sorted(small.parent.glob("*_calints.fits"))
    done = lyot("info", *files)
    assert "science exposure" in done.output
    assert "reference exposure" in done.output
    rows = json.loads(lyot("info", "--json", *files).stdout)
    assert rows[0]["shape"] == "2 x 48 x 52"


@pytest.fixture
def copy(small, tmp_path):
    """Return a function that copies the observation, with one file changed."""

    def make(number=None, change=None, **association):
        folder = tmp_path / "in"
        folder.mkdir()
        for path in sorted(small.parent.glob("*_calints.fits")):
            with fits.open(path) as hdus:
                if number is not None and path.name.startswith(f"jw09999{number}"):
                    change(hdus)
                hdus.writeto(folder / path.name)
        content = json.loads(small.read_text()) | association
        (folder / "asn.json").write_text(json.dumps(content))
        return folder / "asn.json"

    return make


def set_data(value):
    def change(hdus):
        hdus["SCI"].data = value(hdus["SCI"].data)

    return change


BAD_FILES = {
    "an all-NaN frame": ("001001", set_data(lambda d: d * np.nan), "has no finite pixel"),
    "a reference of zeros": ("002001_03102_00001", set_data(lambda d: d * 0), "is zero everywhere"),
    "another shape": (
        "002001_03102_00001",
        lambda h: [setattr(h[n], "data", h[n].data[:, :40]) for n in ("SCI", "ERR", "DQ")],
        "they must be equal",
    ),
    "another filter": (
        "002001",
        lambda h: h[0].header.__setitem__("FILTER", "F335M"),
        "filter F335M",
    ),
    "another coronagraph": (
        "002001",
        lambda h: h[0].header.__setitem__("CORONMSK", "MASKA430R"),
        "MASKA430R",
    ),
    "an empty cube": (
        "001001",
        lambda h: [setattr(h[n], "data", h[n].data[:0]) for n in ("SCI", "ERR", "DQ")],
        "SCI data",
    ),
    "no SCI": ("001001", lambda h: h.__delitem__("SCI"), "has no SCI image"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_exposures_get_one_sentence_and_no_half_product(copy, tmp_path, case):
    number, change, text = BAD_FILES[case]
    asn = copy(number, change)
    assert_refused(lyot("run", asn, "-o", tmp_path / "out", "--no-report", "--no-search"), text)
    left = products_in(tmp_path / "out")
    for path in left:
        with fits.open(path) as hdus:
            hdus.verify("exception")
        assert not path.name.startswith(".")


def test_a_missing_wcs_is_said_and_what_came_before_is_kept(copy, tmp_path):
    def no_wcs(hdus):
        del hdus["ASDF"]

    asn = copy("001001", no_wcs)
    assert_refused(lyot("run", asn, "-o", tmp_path / "out"), "has no WCS")
    assert list((tmp_path / "out").glob("*_psfsub.fits"))
    done = lyot("run", asn, "-o", tmp_path / "out", "--set", "resample.skip=true")
    assert done.exit_code == 0, done.output


def test_one_integration_is_enough(copy, tmp_path):
    def first(hdus):
        for name in ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE"):
            hdus[name].data = hdus[name].data[:1]

    done = lyot("run", copy("001001", first), "-o", tmp_path / "out", "--no-report", "--no-search")
    assert done.exit_code == 0, done.output


BAD_ASSOCIATIONS = {
    "no science": (
        {"products": [{"name": "p", "members": [{"expname": "a.fits", "exptype": "psf"}]}]},
        "nothing to subtract from",
    ),
    "no products": ({"products": []}, "has no products"),
    "a product outside": ({"products": [{"name": "../p", "members": []}]}, "plain file name"),
    "a member outside": (
        {"products": [{"name": "p", "members": [{"expname": "../a.fits", "exptype": "science"}]}]},
        "leads outside",
    ),
    "a missing member": (
        {"products": [{"name": "p", "members": [{"expname": "a.fits", "exptype": "science"}]}]},
        "a.fits",
    ),
}


@pytest.mark.parametrize("case", BAD_ASSOCIATIONS)
def test_bad_associations_get_one_sentence(tmp_path, case):
    content, text = BAD_ASSOCIATIONS[case]
    (tmp_path / "asn.json").write_text(json.dumps(content))
    assert_refused(lyot("run", tmp_path / "asn.json", "-o", tmp_path / "out"), text)
    assert not (tmp_path / "out").exists()


def test_no_psf_members(small, tmp_path):
    content = json.loads(small.read_text())
    content["products"][0]["members"] = content["products"][0]["members"][:1]
    path = small.parent / "only_science.json"
    path.write_text(json.dumps(content))
    assert_refused(lyot("run", path, "-o", tmp_path / "out"), "no science exposure at another roll")
    options = ("-o", tmp_path / "out", "--strategy", "rdi")
    assert_refused(lyot("run", path, *options), "no member of exptype 'psf'")
    path.unlink()


def test_files_that_are_not_what_they_seem(tmp_path):
    (tmp_path / "asn.json").write_text("{")
    assert_refused(lyot("run", tmp_path / "asn.json"), "is not JSON")
    assert_refused(lyot("run", tmp_path / "gone.json"), "does not exist")
    (tmp_path / "a.fits").write_text("no")
    assert_refused(lyot("info", tmp_path / "a.fits"), "is not a readable FITS file")
    assert_refused(lyot("asn", tmp_path / "a.fits"), "is not a readable FITS file")
    assert_refused(lyot("asn", tmp_path / "gone.fits"), "does not exist")


def test_a_truncated_exposure_is_said(copy, tmp_path):
    asn = copy()
    [path] = asn.parent.glob("jw09999001001*")
    path.write_bytes(path.read_bytes()[:40_000])
    assert_refused(lyot("run", asn, "-o", tmp_path / "out"), "is truncated")


def test_bad_parameters_get_one_sentence(small, tmp_path):
    for settings, text in (
        (["--set", "klip"], "is not STEP.NAME=VALUE"),
        (["--set", "clip.truncate=3"], "'clip' is no step"),
        (["--set", "klip.trunkate=3"], "'trunkate' is no parameter of klip"),
        (["--truncate", "many"], "truncate is 'many'"),
        (["--truncate", "-3"], "truncate is -3"),
        (
            ["--set", "resample.pixfrac=7"],
            "pixfrac is 7.0; it must lie between 0 and 1 (option --set resample.pixfrac=VALUE)",
        ),
        (["--set", "align_refs.bad_bits=NOPE"], "bad_bits is 'NOPE'"),
        (["--psfmask", "gone.fits"], "does not exist"),
    ):
        assert_refused(lyot("run", small, "-o", tmp_path / "out", *settings), text)
        assert "--psfmask" in settings or not products_in(tmp_path / "out")


def test_an_unwritable_output_folder_is_said(small, tmp_path):
    (tmp_path / "file").write_text("")
    done = lyot("run", small, "-o", tmp_path / "file")
    assert done.exit_code != 0
    assert "Traceback" not in done.output
    assert done.stderr.count("lyot: error: ") == 1


def test_a_full_disk_is_said(small, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert_refused(lyot("run", small, "-o", tmp_path / "out"), "free some space")


def test_the_demo_ends_well(tmp_path):
    done = lyot("demo", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    for word in ("Products:", "Truth:", "Report:"):
        assert word in done.output
    report = next((tmp_path / "products").glob("*_report.html")).read_text()
    for exposure in (tmp_path / "products").glob("*_psfsub.fits"):
        assert exposure.name.removesuffix("_psfsub.fits") in report
    assert "https://" not in report
    assert len(report) < 5_000_000


def test_the_plan_names_the_products_and_writes_none(small, tmp_path):
    done = lyot("run", small, "-o", tmp_path / "out", "--truncate", "3,5", "--plan")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out").exists()
    told = lyot("run", small, "-o", tmp_path / "out", "--truncate", "3,5", "--plan", "--json")
    [plan] = json.loads(told.stdout)
    lyot(
        "run",
        small,
        "-o",
        tmp_path / "out",
        "--truncate",
        "3,5",
        "--no-report",
        "--no-search",
        "-q",
    )
    written = products_in(tmp_path / "out")
    assert sorted(p["name"] for p in plan["products"]) == [path.name for path in written]
    for product in plan["products"]:
        assert product["name"] in done.output
        assert (tmp_path / "out" / product["name"]).stat().st_size >= product["n_bytes"]


@pytest.mark.parametrize("step", ["resample", "hlsp"])
def test_a_step_that_can_be_skipped_is_skipped_by_a_setting(small, step):
    whole = json.loads(lyot("run", small, "--plan", "--json").stdout)[0]["products"]
    told = lyot("run", small, "--plan", "--json", "--set", f"{step}.skip=true")
    assert len(json.loads(told.stdout)[0]["products"]) < len(whole)
    done = lyot("run", small, "--plan", "--set", "klip.skip=true")
    assert_refused(done, "'skip' is no parameter of klip; its parameters are")


def test_options_and_settings_reach_the_steps_that_take_them(small, tmp_path):
    out = tmp_path / "out"
    settings = ("--set", "align_refs.median_box_length=5", "--truncate", "2", "--star", "25", "24")
    done = lyot(
        "run", small, "-o", out, *settings, "--no-psfalign", "--no-report", "--no-search", "-q"
    )
    assert done.exit_code == 0, done.output
    record = json.loads(next(out.glob("*_run.json")).read_text())["fingerprint"]["steps"]
    assert record["klip"]["truncate"] == [2]
    for step in ("align_refs", "klip"):
        assert (record[step]["star_x"], record[step]["star_y"]) == (25.0, 24.0)
    assert record["align_refs"]["median_box_length"] == 5
    assert record["calwebb_coron3"]["save_psfalign"] is False
    assert not list(out.glob("*_psfalign.fits"))

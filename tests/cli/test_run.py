"""The command line: what a user types, and what bad input gets."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from click.testing import CliRunner

from lyot.analysis.exposure import exposure_of_run
from lyot.cli import main
from lyot.files.run import open_products
from lyot.parameters import SubtractRecipe, from_dict

LYOT = str(Path(sys.executable).parent / "lyot")


def lyot(*arguments, **options):
    return CliRunner().invoke(main, [str(a) for a in arguments], **options)


def assert_refused(done, text):
    """One sentence on standard error, a non-zero status, no traceback."""
    assert done.exit_code not in (0, None), done.output
    assert text in done.stderr
    assert "Traceback" not in done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("lyot: error: ")]
    assert len(lines) == 1


def products_in(folder):
    """What a run left there, but for the log and the record that it writes of itself."""
    found = sorted(folder.iterdir()) if folder.exists() else []
    return [p for p in found if not p.name.endswith(("_run.log", "_run.json"))]


def test_help_needs_no_heavy_import():
    code = (
        "import sys, lyot.cli; print(sorted(m for m in sys.modules if m in "
        "{'numpy', 'astropy', 'stdatamodels', 'matplotlib', 'poppy', 'rich', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_commands():
    done = lyot("--help")
    assert done.exit_code == 0
    for command in ("asn", "demo", "info", "run"):
        assert command in done.output


def test_run_names_its_products_and_ends_with_a_table(small, tmp_path):
    done = lyot("run", small, "-o", tmp_path, "--truncate", "3")
    assert done.exit_code == 0, done.output
    for path in products_in(tmp_path):
        assert str(path) in done.stdout
    assert "rms before" in done.stdout
    assert "jw09999001001_03102_00001_nrcalong_calints.fits" in done.stdout
    assert "combine" in done.stderr
    assert any(p.suffix == ".html" for p in tmp_path.iterdir())


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
    )
    assert done.exit_code == 0, done.output
    assert len(products_in(tmp_path / "out")) == 1


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_exposures_get_one_sentence_and_no_half_product(copy, tmp_path, case):
    number, change, text = BAD_FILES[case]
    asn = copy(number, change)
    assert_refused(lyot("run", asn, "-o", tmp_path / "out", "--no-report"), text)
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

    done = lyot("run", copy("001001", first), "-o", tmp_path / "out", "--no-report")
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


def test_an_interrupt_is_said(small, tmp_path, monkeypatch):
    from lyot.pipeline import Coron3Pipeline

    def interrupted(self, source):
        raise KeyboardInterrupt

    monkeypatch.setattr(Coron3Pipeline, "process", interrupted)
    done = lyot("run", small, "-o", tmp_path)
    assert done.exit_code == 130
    assert "Interrupted" in done.stderr


@pytest.mark.slow
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


def test_limits_candidates_and_companions(demo, tmp_path):
    run, name = demo.folder, "jw09999_demo_nircam_f444w-mask335r"
    star = ("--star-flux", "0.2")
    done = lyot(
        "contrast", run, *star, "-o", tmp_path, "--truncate", "5,20", "--separations", "0.05,1,2"
    )
    assert done.exit_code == 0, done.output
    assert "too few positions" in done.output
    table = QTable.read(tmp_path / f"{name}_limits.ecsv")
    assert len(table) == 6
    assert table["separation"].unit == "arcsec"
    assert table.meta["lyot"]["transmission"] == "model of the package"
    with fits.open(tmp_path / f"{name}_sensitivity.fits") as hdus:
        assert hdus["LIMIT"].header["CUNIT1"] == "arcsec"
    assert (tmp_path / f"{name}_limits.png").stat().st_size > 10_000
    done = lyot("detect", run, *star, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    found = QTable.read(tmp_path / f"{name}_candidates.ecsv")
    assert abs(found["position_angle"][0].value - 205.0) < 2.0
    done = lyot("companion", run, *star, "--at", "1.1", "205", "-o", tmp_path, "--likelihoods", "0")
    assert done.exit_code == 0, done.output
    fitted = QTable.read(tmp_path / f"{name}_companions.ecsv")
    assert abs(fitted["separation"][0].value - 1.1) < 4 * fitted["separation_err"][0].value
    assert (tmp_path / f"{name}_posterior1.png").exists()


def test_a_run_that_knows_the_star_has_limits_in_its_report(small, tmp_path):
    done = lyot("run", small, "-o", tmp_path, "--star-mag", "5.5")
    assert done.exit_code == 0, done.output
    assert len(list(tmp_path.glob("*_limits.ecsv"))) == 1
    [report] = tmp_path.glob("*_report.html")
    text = report.read_text()
    assert "Contrast limits and throughput" in text
    assert "Off-axis PSF: model of the package" in text
    assert "F444W = 5.5 mag" in text


def test_the_analysis_uses_the_weight_of_the_run(small, tmp_path):
    weight = np.ones((48, 52))
    weight[20:24, 30:34] = 0.0
    fits.writeto(tmp_path / "weight.fits", weight)
    given = f"klip.fit_weight={tmp_path / 'weight.fits'}"
    run = tmp_path / "run"
    assert lyot("run", small, "-o", run, "--set", given, "--no-report").exit_code == 0
    with open_products(run) as (_, [exposure]):
        made = exposure_of_run(exposure, from_dict(SubtractRecipe, exposure.recipe))
    [path] = run.glob("*_psfsub.fits")
    saved = fits.getdata(path, "SCI").astype(float)
    whole = np.isfinite(saved).all(axis=0)
    assert whole.sum() > 2000
    np.testing.assert_allclose(made.residual[0][whole], saved.mean(axis=0)[whole], atol=1e-4)
    (tmp_path / "weight.fits").unlink()
    done = lyot("detect", run)
    assert done.exit_code == 1
    assert "weight.fits does not exist" in done.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("contrast", "{run}"), "Contrast needs the star's brightness"),
        (("contrast", "{run}", "--star-mag", "4", "--star-flux", "1"), "Give one of"),
        (("contrast", "{run}", "--star-mag", "4", "--truncate", "x"), "give whole numbers"),
        (("contrast", "{run}", "--star-mag", "4", "--separations", "x"), "give numbers"),
        (("contrast", "{run}", "--star-mag", "4", "--psf", "none.fits"), "does not exist"),
        (("contrast", "{empty}", "--star-mag", "4"), "holds no psfsub product"),
        (("contrast", "nowhere", "--star-mag", "4"), "is no folder"),
        (("companion", "{run}", "--at", "30", "10"), "lies outside the frame"),
        (("companion", "{run}", "--at", "0.05", "10"), "lies under the mask"),
        (("run", "asn.json", "--only-final", "--star-mag", "4"), "Contrast limits need"),
    ],
)
def test_bad_input_to_the_analysis(demo, tmp_path, arguments, text):
    made = [a.format(run=demo.folder, empty=tmp_path) for a in arguments]
    done = lyot(*made)
    assert done.exit_code == 1
    assert text in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_the_plan_names_the_products_and_writes_none(small, tmp_path):
    done = lyot("run", small, "-o", tmp_path / "out", "--truncate", "3,5", "--plan")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out").exists()
    told = lyot("run", small, "-o", tmp_path / "out", "--truncate", "3,5", "--plan", "--json")
    [plan] = json.loads(told.stdout)
    lyot("run", small, "-o", tmp_path / "out", "--truncate", "3,5", "--no-report", "-q")
    written = products_in(tmp_path / "out")
    assert sorted(p["name"] for p in plan["products"]) == [path.name for path in written]
    for product in plan["products"]:
        assert product["name"] in done.output
        assert (tmp_path / "out" / product["name"]).stat().st_size >= product["n_bytes"]

"""The commands that analyze a finished run."""

from dataclasses import asdict

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from lyot.algorithms.statistics import n_positions
from lyot.analysis.completeness import completeness_map
from lyot.analysis.detection import find_sources
from lyot.analysis.exposure import exposure_of_run
from lyot.analysis.observation import open_run
from lyot.analysis.statistic import Statistic
from lyot.files.results import read_fit
from lyot.files.run import open_products
from lyot.parameters import SubtractRecipe, from_dict
from scenes import assert_refused, lyot


def test_limits_candidates_and_companions(demo, tmp_path):
    run, name = demo.folder, "jw09999_demo_nircam_f444w-mask335r"
    star = ("--star-flux", "0.2")
    done = lyot(
        "contrast", run, *star, "-o", tmp_path, "--truncate", "5,20", "--separations", "0.05,1,2"
    )
    assert done.exit_code == 0, done.output
    assert "too few positions" in done.output
    table = limits_of = QTable.read(tmp_path / f"{name}_limits.ecsv")
    assert len(table) == 6
    assert table["separation"].unit == "arcsec"
    assert table.meta["lyot"]["transmission"] == "model of the package"
    with fits.open(tmp_path / f"{name}_sensitivity.fits") as hdus:
        assert hdus["LIMIT"].header["CUNIT1"] == "arcsec"
    assert not list(tmp_path.glob("*.png"))  # none was asked for
    done = lyot("detect", run, *star, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    found = QTable.read(tmp_path / f"{name}_candidates.ecsv")
    angles = found["position_angle"].value
    for separation, pa in ((1.1, 205.0), (2.2, 25.0)):  # both companions of the scene
        near = np.abs(angles - pa) < 2.0
        assert np.any(np.abs(found["separation"].value[near] - separation) < 0.05)
    at = ("--at", "1.1", "205", "--likelihoods", "0", "--figures")
    done = lyot("companion", run, *star, *at, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    fitted = QTable.read(tmp_path / f"{name}_companions.ecsv")
    assert abs(fitted["separation"][0].value - 1.1) < 4 * fitted["separation_err"][0].value
    for figure in ("companions", "posterior1"):
        assert (tmp_path / f"{name}_{figure}.png").stat().st_size > 10_000
    fit = read_fit(tmp_path / f"{name}_companions.fits")
    east, north, _ = np.median(fit.samples[0], axis=1)
    assert np.hypot(east, north) == pytest.approx(fitted["separation"][0].value, rel=1e-3)
    data, model = fit.boxes[0][1:]
    peak = np.unravel_index(np.nanargmax(model), model.shape)
    assert abs(data[peak] - model[peak]) < 0.5 * model[peak]
    for table, rows, cells in ((limits_of, 3, 8), (fitted, 9, 2)):
        cited = table.meta["lyot"]["citations"]
        assert any("Mawet et al. 2014" in each for each in cited)
        kind = "limits" if table is limits_of else "companions"
        latex = (tmp_path / f"{name}_{kind}.tex").read_text()
        body = [line for line in latex.splitlines() if line.endswith(r"\\")]
        assert len(body) > rows
        assert {line.replace(r"\&", "").count("&") for line in body} == {cells - 1}
        assert latex.count("{") == latex.count("}")
        assert "Mawet et al. 2014" in latex


def test_limits_in_mass(demo, tmp_path):
    models, name = tmp_path / "models.csv", "jw09999_demo_nircam_f444w-mask335r"
    models.write_text("age,mass,F444W\n10,1,18\n10,50,5\n100,1,20\n100,50,7\n")
    options = ("contrast", demo.folder, "--star-flux", "0.2", "-o", tmp_path, "--age", "30")
    assert_refused(lyot(*options), "give distance and mass table too (option --distance)")
    given = ("--distance", "20", "--mass-table", models, "--separations", "1,2", "--figures")
    done = lyot(*options, *given)
    assert done.exit_code == 0, done.output
    assert "mass [Jupiter masses]" in done.output
    table = QTable.read(tmp_path / f"{name}_limits.ecsv")
    assert table["mass"].unit == "jupiterMass"
    assert table.meta["lyot"]["masses"]["age_myr"] == 30.0
    assert (table["mass"].value > 1.0).all()
    with fits.open(tmp_path / f"{name}_masses.fits") as hdus:
        assert hdus["PROBABILITY"].data.shape == (40, 2)
        assert hdus["MASS"].data[-1] == pytest.approx(50.0)
        assert hdus[0].header["DIST_PC"] == 20.0
    for figure in ("limits", "sensitivity", "masses"):
        assert (tmp_path / f"{name}_{figure}.png").stat().st_size > 10_000


def test_spectra_of_star_and_companions(demo, tmp_path):
    spectrum, cold = tmp_path / "star.txt", tmp_path / "planet.txt"
    spectrum.write_text("# flat\n1 0.2\n30 0.2\n")
    cold.write_text("3 1e-6\n6 1e-4\n")
    with open_run(demo.folder, star_spectrum=spectrum) as observation:
        assert observation.star.jy == pytest.approx(0.2, rel=1e-9)
        assert observation.star.origin == "star.txt"
        sharp = observation.psf.stamp(0.0, 0.0).max()
    for given in ({"source_spectrum": cold}, {"source_temperature": 300.0}):
        with open_run(demo.folder, **given) as observation:
            # A redder source has a wider image.
            assert 0.9 < observation.psf.stamp(0.0, 0.0).max() / sharp < 0.98
            assert "spectrum: hot star" not in observation.origins()["psf"]
    done = lyot("contrast", demo.folder, "--star-mag", "5", "--star-spectrum", spectrum)
    assert done.exit_code == 1
    assert "Give one of the star's magnitude, flux density, spectrum and frame" in done.output
    spectrum.write_text("1 2\n2 2\n")
    done = lyot("detect", demo.folder, "--star-spectrum", spectrum)
    assert done.exit_code == 1
    assert "covers 1 to 2 micrometer, and F444W" in done.output


def test_all_analyses_share_one_statistic(demo, tmp_path):
    """Limits, completeness, candidates and companions judge by the statistic of the options."""
    name = "jw09999_demo_nircam_f444w-mask335r"
    statistic = Statistic(fpf=1e-3, noise="laplace", others="n", flux_by="aperture")
    options = ("--star-flux", "0.2", "--fpf", "1e-3", "--noise", "laplace", "--others", "n")
    options = (*options, "--flux-by", "aperture", "-o", tmp_path)
    at, separation = ("--at", "1.1", "205", "--likelihoods", "0"), 1.0
    for command, more in (("contrast", ("--separations", "1")), ("detect", ()), ("companion", at)):
        done = lyot(command, demo.folder, *options, *more)
        assert done.exit_code == 0, done.output
    tables = [
        QTable.read(tmp_path / f"{name}_{product}.ecsv")
        for product in ("limits", "candidates", "companions")
    ]
    for table in tables:
        stated = {key: table.meta["lyot"][key] for key in asdict(statistic)}
        assert stated == asdict(statistic)
    limits, candidates, companions = tables
    assert limits["tau"][0] == statistic.tau(int(limits["n_positions"][0]))
    with fits.open(tmp_path / f"{name}_detection.fits") as hdus:
        assert hdus[0].header["FPF"] == 1e-3
    with open_run(demo.folder, star_jy=0.2) as observation:
        fwhm_arcsec = observation.fwhm_pix * observation.pixel_scale_arcsec
        complete = completeness_map(
            observation,
            separations_arcsec=[separation],
            statistic=statistic,
            known_sources=find_sources(observation, statistic=statistic),
        )
    with fits.open(tmp_path / f"{name}_completeness.fits") as hdus:
        fraction = complete.fraction.astype(np.float32)
        np.testing.assert_array_equal(hdus["FRACTION"].data, fraction)
    # The other candidates are left out of the positions that a candidate is compared with.
    for table, slack in ((companions, 0), (candidates, 40)):
        for row in table:
            n = n_positions(float(row["separation"].value) / fwhm_arcsec)
            fractions = [  # below 1e-6 no number is given
                max(statistic.fpf_of(float(row["snr"]), k), 1e-6)
                for k in range(max(n - slack, 4), n + 1)
            ]
            assert np.isclose(row["false_positive_fraction"], fractions, rtol=1e-12, atol=0).any()


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


MODE = ("--instrument", "NIRCAM", "--filter", "F360M", "--mask", "MASKA335R")


def test_the_psf_of_a_source_is_written_for_a_mode_and_for_an_exposure(science_files, tmp_path):
    by_name, by_exposure = tmp_path / "a.fits", tmp_path / "b.fits"
    at = ("--at", "-1.5", "0.4", "--pixels", "33")
    done = lyot("psf", *MODE, *at, "--oversample", "2", "-o", by_name)
    assert done.exit_code == 0, done.output
    assert "a.fits: transmission of the mask" in done.output
    image, header = fits.getdata(by_name), fits.getheader(by_name)
    assert image.shape == (66, 66)
    assert header["STAMPFRC"] == pytest.approx(image.sum(), rel=1e-9)
    assert 0.5 < header["TRANSMIS"] <= 1.0
    assert header["OVERSAMP"] == 2
    assert header["PIXELSCL"] == pytest.approx(0.0315, rel=1e-3)
    assert (header["FILTER"], header["CORONMSK"]) == ("F360M", "MASK335R")
    assert sum(header[f"WGHT{i}"] for i in range(header["NWAVES"])) == pytest.approx(1.0)
    for key in ("STOP", "WFE_TEL", "WFE_INS", "WFESEED", "LYOTVER"):
        assert key in header
    assert lyot("psf", science_files[0], *at, "-o", by_exposure).exit_code == 0
    assert fits.getheader(by_exposure)["FILTER"] == fits.getval(science_files[0], "FILTER")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--at", "1", "0"), "The instrument is missing; give an exposure, or instrument,"),
        ((*MODE[:4], "--at", "1", "0"), "The mask is missing"),
        ((*MODE[:4], "--mask", "SPOT", "--at", "1", "0"), "which holds MASK210R, MASK335R"),
        ((*MODE[:2], "--filter", "F1", *MODE[4:], "--at", "1", "0"), "which holds F182M,"),
        (("--instrument", "FGS", *MODE[2:], "--at", "1", "0"), "is not among NIRCAM, MIRI."),
        ((*MODE, "--at", "1", "0", "--pixels", "64"), "must be odd"),
        ((*MODE, "--at", "nan", "0"), "at is nan; it must be finite (option --at)."),
        (("{no_exposure}", "--at", "1", "0"), "it is no calibrated exposure."),
        (("{no_exposure}", *MODE, "--at", "1", "0"), "give no instrument, filter or mask."),
        ((*MODE, "--at", "1", "0", "-o", "{no_exposure}/psf.fits"), "psf.fits was not written"),
    ],
)
def test_bad_input_to_the_psf_is_refused_and_nothing_is_written(tmp_path, arguments, text):
    no_exposure = tmp_path / "image.fits"
    fits.writeto(no_exposure, np.ones((9, 9)))
    written = () if "-o" in arguments else ("-o", tmp_path / "psf.fits")
    done = lyot("psf", *(a.format(no_exposure=no_exposure) for a in arguments), *written)
    assert_refused(done, text)
    assert list(tmp_path.iterdir()) == [no_exposure]

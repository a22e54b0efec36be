"""NIRCam: its masks against published numbers, and against reference files where they are."""

import numpy as np
import pytest
from astropy.io import fits

from lyot.files.headers import read_info
from lyot.instruments import NIRCAM
from lyot.instruments.transmission import Transmission


def test_headers_of_both_modules_name_the_same_mask():
    for name in ("MASK335R", "MASKA335R", "MASKB335R", "maska335r"):
        assert NIRCAM.coronagraph(name).name == "MASK335R"


def test_pixel_scale_is_that_of_the_detector_and_else_of_the_filter():
    assert NIRCAM.channel(detector="NRCALONG").pixel_scale_arcsec == 0.063
    assert NIRCAM.channel(detector="NRCA2", filter="F444W").pixel_scale_arcsec == 0.0307
    assert NIRCAM.channel(filter="F444W").pixel_scale_arcsec == 0.063
    assert NIRCAM.channel(filter="F200W").pixel_scale_arcsec == 0.0307


@pytest.mark.parametrize(
    ("name", "band", "half_width"),
    # JWST User Documentation, "NIRCam Coronagraphic Imaging": six lambda/D for the round masks.
    [("MASK210R", "F210M", 0.40), ("MASK335R", "F335M", 0.63), ("MASK430R", "F430M", 0.81)],
)
def test_round_masks_are_six_lambda_over_d_wide(name, band, half_width):
    assert NIRCAM.coronagraph(name).half_width_arcsec == pytest.approx(half_width, abs=0.011)
    width = NIRCAM.lambda_over_d_arcsec(NIRCAM.filter(band))
    assert half_width == pytest.approx(6.0 * width, rel=0.02)


def transmission(mask, band, x, y):
    """Return the transmission at places from the middle of a mask [arcsec]."""
    return Transmission(optics=NIRCAM.optics(mask, band), origin="the optics").behind(x, y)


def test_transmission_of_mask335r_is_the_published_one():
    """Values of the reference file of MASK335R at four separations."""
    for r, expected in ((0.3, 0.053), (0.5, 0.269), (1.0, 0.961), (2.0, 0.991)):
        assert abs(transmission("MASK335R", "F335M", r, 0.0) - expected) < 0.006


@pytest.mark.parametrize(
    ("file", "name", "scale", "limit"),
    [
        ("nircam_psfmask_0049", "MASK210R", 0.0311, 0.01),
        ("nircam_psfmask_0019", "MASK335R", 0.0630, 0.005),
        ("nircam_psfmask_0027", "MASK430R", 0.0630, 0.01),
        ("nircam_psfmask_0036", "MASKSWB", 0.0311, 0.02),
        ("nircam_psfmask_0003", "MASKLWB", 0.0630, 0.01),
    ],
)
def test_transmission_models_against_reference_files(data_dir, file, name, scale, limit):
    with fits.open(data_dir / "psfmask" / f"jwst_{file}.fits") as hdus:
        header, image = hdus[0].header, hdus["SCI"].data.astype(float)
    n = len(image)
    y, x = (np.indices(image.shape) - 0.5 * (n - 1)) * scale
    coronagraph = NIRCAM.coronagraph(header["CORONMSK"])
    assert coronagraph.name == name
    [aperture] = coronagraph.apertures
    assert (aperture.detector, aperture.subarray) == (header["DETECTOR"], header["SUBARRAY"])
    band = "F210M" if aperture.channel == "SHORT" else "F335M"
    model = transmission(name, band, x, y)
    near = (np.abs(y) < 1.5) & (np.abs(x) < (6.0 if name.endswith("WB") else 1.5))
    assert np.sqrt(np.mean((model - image)[near] ** 2)) < limit


@pytest.mark.parametrize(
    ("name", "scale", "limit"), [("MASKLWB", 0.063, 0.015), ("MASKSWB", 0.0311, 0.007)]
)
def test_amplitude_of_the_bars_against_the_observatory_s_maps(data_dir, name, scale, limit):
    """The maps hold the amplitude: their square is what the PSFMASK files hold."""
    image = np.loadtxt(data_dir / "transmission" / f"{name}_2DTRANS.txt.gz")
    y, x = (np.indices(image.shape) - 0.5 * (len(image) - 1)) * scale
    near = (np.abs(y) < 1.5) & (np.abs(x) < 6.0)
    difference = NIRCAM.coronagraph(name).amplitude(x, y) - image
    assert np.sqrt(np.mean(difference[near] ** 2)) < limit


def test_transmission_on_aumic(data_dir):
    folder = data_dir / "aumic_f444w"
    [first, *_] = sorted(folder.glob("*psfmask.fits"))
    image = fits.getdata(first, "SCI")
    info = read_info(sorted(folder.glob("*_calints.fits"))[0])
    scale = info.pixel_scale_arcsec
    y, x = np.indices(image.shape)
    model = transmission(info.coronagraph, "F335M", (x - 150) * scale, (y - 174) * scale)
    near = np.hypot(y - 174, x - 150) * scale < 3.0
    assert np.abs(model - image)[near].max() < 0.03

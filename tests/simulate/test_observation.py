"""Simulated observations: the same for the same seed, in every mode of the instruments."""

import json
import warnings

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels
from threadpoolctl import threadpool_limits

from lyot.errors import LyotError
from lyot.files.astrometry import plane_of
from lyot.files.headers import read_info
from lyot.files.star import StarPosition
from lyot.simulate import Companion, Disc, Scene, simulate_observation

MODES = [
    ("NIRCAM", "F210M", "MASK210R", "NRCA2", "SUB640A210R", "MASKA210R", 0.0307),
    ("NIRCAM", "F360M", "MASK430R", "NRCALONG", "SUB320A430R", "MASKA430R", 0.063),
    ("NIRCAM", "F200W", "MASKSWB", "NRCA4", "SUB640ASWB", "MASKASWB", 0.0307),
    ("NIRCAM", "F430M", "MASKLWB", "NRCALONG", "SUB320ALWB", "MASKALWB", 0.063),
    ("MIRI", "F1550C", "4QPM_1550", "MIRIMAGE", "MASK1550", "4QPM_1550", 0.111),
    ("MIRI", "F2300C", "LYOT_2300", "MIRIMAGE", "MASKLYOT", "LYOT_2300", 0.111),
]
QUIET = {
    "shape": (64, 66),
    "rolls_deg": (20.0,),
    "n_int": 1,
    "n_int_psf": 1,
    "n_dither": 1,
    "disc": None,
    "companions": (),
    "read_noise": 0.0,
    "gain": 0.0,
    "bad_fraction": 0.0,
    "hit_fraction": 0.0,
}


def science(folder):
    """Return the one science exposure of a folder: its path, header and frame."""
    [path] = [p for p in folder.glob("*_calints.fits") if not read_info(p).is_psf]
    return path, fits.getheader(path), fits.getdata(path, "SCI")[0].astype(float)


@pytest.mark.parametrize(("instrument", "band", "name", *"dskp"), MODES)
def test_every_mode_has_its_own_detector_headers_and_scale(
    instrument, band, name, d, s, k, p, tmp_path
):
    scene = Scene(instrument=instrument, filter=band, coronagraph=name, **QUIET)
    simulate_observation(tmp_path, scene, seed=3)
    path, header, frame = science(tmp_path)
    assert (header["INSTRUME"], header["FILTER"], header["CORONMSK"]) == (instrument, band, k)
    assert (header["DETECTOR"], header["SUBARRAY"]) == (d, s)
    assert f"_{d.lower()}_" in path.name
    info = read_info(path)
    assert info.pixel_scale_arcsec == pytest.approx(p)
    assert info.coronagraph_value.name == name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with datamodels.open(path) as model:
            plane = plane_of(model, StarPosition(30.0, 30.0))
    assert np.isfinite(frame).all()
    along_y, along_x = np.hypot(*plane.to_sky[:, :2])
    assert along_y * along_x == pytest.approx(p**2, rel=1e-4)
    channel = info.instrument_value.channel(filter=band)
    assert along_y / along_x == pytest.approx(channel.pixel_aspect, rel=1e-4)


@pytest.mark.parametrize(("instrument", "band", "name", *"dskp"), [MODES[0], MODES[3], MODES[4]])
def test_a_companion_lies_where_the_sky_puts_it(instrument, band, name, d, s, k, p, tmp_path):
    separation, pa = 18.0 * p, 100.0
    mode = {"instrument": instrument, "filter": band, "coronagraph": name, **QUIET}
    frames = []
    for contrast in (0.0, 1e-2):
        companion = Companion(separation_arcsec=separation, pa_deg=pa, contrast=contrast)
        folder = tmp_path / str(contrast)
        simulate_observation(folder, Scene(**mode | {"companions": (companion,)}), seed=3)
        path, _, frame = science(folder)
        frames.append(frame)
    added = frames[1] - frames[0]
    y, x = np.unravel_index(np.argmax(added), added.shape)
    star = json.loads((folder / "truth.json").read_text())["exposures"][path.name]["star_xy"]
    turn = np.radians(pa - read_info(path).pa_y_deg)
    assert y == pytest.approx(star[1] + 18.0 * np.cos(turn), abs=1.5)
    assert x == pytest.approx(star[0] - 18.0 * np.sin(turn), abs=1.5)


@pytest.mark.parametrize("mask", ["MASKSWB", "MASKLWB"])
def test_the_star_of_a_narrow_aperture_is_behind_the_narrow_end_of_the_bar(mask, tmp_path):
    """There a companion beside it, which the bar hides elsewhere, is seen."""
    band, detector, end = {
        "MASKSWB": ("F200W", "NRCA4", -8.05),
        "MASKLWB": ("F444W", "NRCA5", 8.299),
    }[mask]
    aperture = f"{detector}_{mask}_NARROW"
    mode = {"filter": band, "coronagraph": mask, **QUIET, "star_flux": 1.0}
    scene = Scene(**mode)
    separation = 0.9 * float(scene.coronagraph_value.half_width(0.0))
    companion = Companion(separation_arcsec=separation, pa_deg=20.0, contrast=1e6)
    light = []
    for name in ("", aperture):
        folder = tmp_path / f"at{name}"
        changes = {"companions": (companion,), "aperture": name}
        simulate_observation(folder, Scene(**mode | changes), seed=3)
        path, _, frame = science(folder)
        light.append(frame.sum())
    info = read_info(path)
    assert (info.aperture, info.star_along_mask_arcsec) == (aperture, end)
    assert light[1] > 1.5 * light[0] > 0.0


def test_the_same_seed_gives_the_same_pixels_on_any_number_of_blas_threads(tmp_path):
    disc = Disc(
        radius_arcsec=1.0, width_arcsec=0.2, inclination_deg=60.0, pa_deg=30.0, contrast=1e-3
    )
    companion = Companion(separation_arcsec=1.2, pa_deg=80.0, contrast=1e-4)
    scene = Scene(**QUIET | {"disc": disc, "companions": (companion,), "read_noise": 0.5})
    frames = []
    for n, seed in ((1, 4), (2, 4), (2, 5)):
        folder = tmp_path / f"{n}-{seed}"
        with threadpool_limits(n, user_api="blas"):
            simulate_observation(folder, scene, seed=seed)
        frames.append(science(folder)[2])
    np.testing.assert_array_equal(frames[0], frames[1])
    assert np.abs(frames[2] - frames[1]).max() > 0


def test_a_seed_that_could_be_that_of_a_measurement_is_refused(tmp_path):
    with pytest.raises(LyotError, match="seed is -1; it must be 0 or more"):
        simulate_observation(tmp_path, Scene(**QUIET), seed=-1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"instrument": "TICAM"}, "Instrument 'TICAM' is not among NIRCAM, MIRI"),
        ({"filter": "F1140C"}, "Filter 'F1140C' is not in the table of NIRCAM"),
        ({"coronagraph": "4QPM_1140"}, "Coronagraph '4QPM_1140' is not in the table of NIRCAM"),
        ({"filter": "F200W"}, "MASK335R has no aperture in the channel 'SHORT'"),
        ({"shape": (20, 64)}, "at least 32 pixels"),
    ],
)
def test_impossible_scenes_are_refused(changes, text):
    with pytest.raises(LyotError, match=text):
        Scene(**changes)

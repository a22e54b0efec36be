"""Instruments as values: looked up by what headers say, and one that only this file knows."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from astropy.io import fits

from lyot.analysis.contrast import contrast_curve
from lyot.analysis.detection import detect
from lyot.analysis.observation import open_run
from lyot.errors import LyotError
from lyot.files.exposure import as_model, read_cube
from lyot.files.headers import info_from_model, read_info
from lyot.files.sorting import build_associations
from lyot.instruments import INSTRUMENTS, NIRCAM, Instrument, registered
from lyot.instruments.coronagraphs import Aperture, Coronagraph
from lyot.instruments.filters import Curve, Filter
from lyot.instruments.instrument import Channel, Keywords
from lyot.pipeline import Coron3Pipeline
from lyot.simulate import Companion, Scene, simulate_observation


def test_flags_are_given_by_name():
    flag_value = NIRCAM.flag_value
    assert flag_value("DO_NOT_USE+HOT") == 2049
    assert flag_value("DO_NOT_USE,HOT") == 2049
    assert flag_value("") == flag_value("0") == flag_value("None") == 0
    assert flag_value(" 1, hot ") == flag_value("1|2048") == 2049
    with pytest.raises(LyotError, match="bad_bits is 'NOPE'"):
        flag_value("NOPE")
    for wrong in ("-1", "1+", "1.5", "~1", "99999999999"):
        with pytest.raises(LyotError, match="bad_bits is "):
            flag_value(wrong)


def test_the_flags_are_those_of_the_calibration_pipeline():
    from stdatamodels.jwst.datamodels.dqflags import pixel

    for instrument in INSTRUMENTS.values():
        assert dict(instrument.dq_flags) == pixel


@dataclass(frozen=True)
class RoundMirror:
    """A mirror of one piece with a central obscuration."""

    diameter_m: float = 5.0
    width_m: float = 5.2

    def amplitude(self, n, /):
        radius = self.radius_m(n)
        return ((radius < 0.5 * self.diameter_m) & (radius > 0.6)) * 1.0

    def radius_m(self, n, /):
        grid = (np.arange(n) - 0.5 * (n - 1)) * (self.width_m / n)
        return np.hypot(grid[None, :], grid[:, None])


@dataclass(frozen=True)
class Annulus:
    """A stop that covers the edges of a round mirror."""

    inner_m: float = 0.9
    outer_m: float = 2.1

    def amplitude(self, pupil, n, /):
        radius = pupil.radius_m(n)
        return ((radius > self.inner_m) & (radius < self.outer_m)) * 1.0


@dataclass(frozen=True, kw_only=True)
class GaussianSpot(Coronagraph):
    """A mask of a kind of its own: 1 - exp(-(r / width)^2) in amplitude."""

    width_arcsec: float

    def amplitude(self, x_arcsec, y_arcsec, /):
        return 1.0 - np.exp(-((x_arcsec**2 + y_arcsec**2) / self.width_arcsec**2))


TOYCAM = Instrument(
    name="TOYCAM",
    pupil=RoundMirror(),
    channels=(
        Channel(
            name="ONLY",
            detectors=("CHIP1",),
            pixel_scale_arcsec=0.06,
            v3i_yangle_deg=33.0,
            vparity=1,
        ),
    ),
    filters=(Filter("T350", "ONLY", Curve.box(3.5, 0.35), 300.0),),
    coronagraphs=(
        GaussianSpot(
            name="SPOT",
            width_arcsec=0.5,
            stop=Annulus(),
            keyword_values=("SPOT-1",),
            apertures=(Aperture(channel="ONLY", detector="CHIP1", subarray="TINY"),),
        ),
    ),
    dq_flags={
        "DO_NOT_USE": 4,
        "SATURATED": 1,
        "OUTLIER": 2,
        "HOT": 64,
        "DEAD": 128,
        "NON_SCIENCE": 8,
        "FLUX_ESTIMATED": 16,
    },
    keywords=Keywords(
        detector="CHIP",
        filter="BAND",
        coronagraph="OCCULTER",
        subarray="WINDOW",
        is_psf="CALSTAR",
        dither=("STEPX", "STEPY"),
    ),
)
STAR_FLUX = 3.0e6
TRUTH = Companion(separation_arcsec=1.3, pa_deg=75.0, contrast=3e-4)


@pytest.fixture(scope="module")
def toycam():
    """The toy instrument among those that the package knows."""
    with registered(TOYCAM):
        yield TOYCAM


@pytest.fixture(scope="module")
def run(toycam, tmp_path_factory):
    """An observation with it, reduced."""
    folder = tmp_path_factory.mktemp("toycam")
    scene = Scene(
        instrument="TOYCAM",
        filter="T350",
        coronagraph="SPOT",
        shape=(72, 74),
        rolls_deg=(10.0, 40.0),
        n_int=2,
        n_int_psf=2,
        n_dither=5,
        star_flux=STAR_FLUX,
        psf_star_flux=0.8 * STAR_FLUX,
        disc=None,
        companions=(TRUTH,),
        bad_fraction=0.01,
        hit_fraction=0.0,
    )
    simulate_observation(folder, scene, seed=6)
    [association] = build_associations(sorted(folder.glob("*_calints.fits")))
    assert [m["exptype"] for m in association["products"][0]["members"]].count("psf") == 5
    path = folder / "toy.json"
    path.write_text(json.dumps(association))
    pipeline = Coron3Pipeline()
    pipeline.output_dir = str(folder / "products")
    pipeline.run(str(path))
    return folder


def test_headers_are_read_by_the_keywords_of_their_instrument(run, toycam):
    path = sorted(run.glob("*_calints.fits"))[0]
    header = fits.getheader(path)
    assert (header["INSTRUME"], header["OCCULTER"], header["BAND"]) == ("TOYCAM", "SPOT-1", "T350")
    for info in (read_info(path), info_from_model(as_model(path, "CubeModel"))):
        assert (info.instrument, info.detector, info.filter) == ("TOYCAM", "CHIP1", "T350")
        assert info.instrument_value is toycam
        assert info.coronagraph_value is toycam.coronagraph("SPOT")
        assert info.lambda_over_d_pix == pytest.approx(3.5e-6 / 5.0 * 206264.8 / 0.06)


def test_every_product_still_names_the_instrument(run):
    for path in (run / "products").glob("*.fits"):
        if "_contrast" not in path.name:
            info = read_info(path)
            assert (info.instrument, info.filter, info.coronagraph) == ("TOYCAM", "T350", "SPOT-1")


def test_flags_have_the_values_of_the_instrument(run):
    cube = read_cube(sorted(run.glob("*_calints.fits"))[0])
    assert set(np.unique(cube.dq)) == {0, 4 | 64, 4 | 128}
    assert cube.bad("DO_NOT_USE").mean() == pytest.approx(0.01, abs=0.006)
    every_flag = np.uint32(sum(TOYCAM.dq_flags.values()))
    for path in (run / "products").glob("*_psfalign.fits"):
        flags = fits.getdata(path, "DQ")
        assert np.any(flags & 16), "filled pixels are marked FLUX_ESTIMATED"
        assert not np.any(flags & ~every_flag)
    for path in (run / "products").glob("*_psfsub.fits"):
        missing = np.isnan(fits.getdata(path, "SCI"))
        assert np.all(fits.getdata(path, "DQ")[missing] & 4)


def test_a_companion_behind_another_instrument_comes_back(run):
    folder = run / "products"
    through = TOYCAM.optics("SPOT", "T350").stop_throughput
    assert through == pytest.approx((2.1**2 - 0.9**2) / (2.5**2 - 0.6**2), rel=0.02)
    flux_jy = STAR_FLUX * 1e6 * (0.06 / 206264.806) ** 2
    with open_run(folder, star_jy=flux_jy) as observation:
        assert observation.psf.origin.startswith("model of the package, T350 behind SPOT")
        found = detect(observation).candidates
        curve = contrast_curve(observation, separations_arcsec=np.array([0.5, 1.0, 1.8]))
    best = max(found, key=lambda c: c.snr)
    assert best.snr > 6
    turn = np.radians(best.pa_deg - TRUTH.pa_deg)
    offset = abs(best.separation_arcsec * np.exp(1j * turn) - TRUTH.separation_arcsec)
    assert offset < 0.5 * 0.06
    assert best.contrast == pytest.approx(TRUTH.contrast, rel=0.08)
    assert np.all(np.isfinite(curve.calibrated))
    amplitude = 1.0 - np.exp(-((np.array([0.5, 1.0, 1.8]) / 0.5) ** 2))
    np.testing.assert_allclose(curve.transmission, amplitude**2, rtol=0.01)

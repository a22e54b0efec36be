"""What several tests share: small cubes and images, the command line, and fits of shifts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.modeling.models import Shift
from click.testing import CliRunner
from numpy.polynomial.legendre import legval
from scipy import ndimage
from stdatamodels.jwst import datamodels

from lyot.algorithms import fourier, registration
from lyot.algorithms.geometry import TangentPlane
from lyot.analysis.brightness import StarBrightness
from lyot.analysis.exposure import make_exposure
from lyot.analysis.observation import make_observation
from lyot.cli import main
from lyot.files.aligned import AlignedArrays
from lyot.files.astrometry import frame_wcs, turned_to
from lyot.files.exposure import Cube, as_model
from lyot.files.headers import ExposureInfo, info_from_model, set_fact
from lyot.files.provenance import provenance_of
from lyot.files.star import StarPosition
from lyot.instruments import INSTRUMENTS
from lyot.instruments.coronagraphs import BarMask
from lyot.instruments.miri import MIRI
from lyot.instruments.nircam import NIRCAM
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.instruments.wavefront import WavefrontBudget, data_seed, draw_wavefront
from lyot.parameters import SubtractRecipe

SCALE_ARCSEC = 0.063


def gaussian(shape, center_yx, fwhm):
    """Draw a Gaussian of unit peak."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    r2 = (y - center_yx[0]) ** 2 + (x - center_yx[1]) ** 2
    return np.exp(-4 * np.log(2) * r2 / fwhm**2)


def info(shape, **facts):
    """Return the facts of a NIRCam exposure through F444W, or as they are given."""
    default = {
        "instrument": "NIRCAM",
        "detector": "NRCALONG",
        "filter": "F444W",
        "pixel_area_sr": (SCALE_ARCSEC / ARCSEC_PER_RADIAN) ** 2,
    }
    return ExposureInfo("t_calints.fits", tuple(shape), **(default | facts))


def cube(sci, err=0.5, dq=None, **facts):
    """Make a cube of float32 frames with one error for all pixels, or one for each."""
    sci = np.asarray(sci, np.float32)
    err = np.broadcast_to(np.float32(err), sci.shape).copy()
    dq = np.zeros(sci.shape, np.uint32) if dq is None else dq
    return Cube(sci, err, dq, info(sci.shape, **facts))


def aligned(refs, err=0.3, **more):
    """Make aligned references of float32 frames with one error for all pixels, or one for each."""
    refs = np.asarray(refs, np.float32)
    err = np.broadcast_to(np.float32(err), refs.shape).copy()
    return AlignedArrays(refs, err, np.zeros(refs.shape, np.uint32), **more)


def correlated_frames(rng, shape, n_int, n_ref, n_patterns):
    """Draw targets (float32) and references that share patterns, with unit noise."""
    patterns = rng.normal(size=(n_patterns, *shape)) * 10
    refs = np.tensordot(rng.normal(size=(n_ref, n_patterns)), patterns, 1)
    refs = refs + rng.normal(size=refs.shape)
    targets = np.tensordot(rng.normal(size=(n_int, n_patterns)), patterns, 1) + 2.0
    return (targets + rng.normal(size=targets.shape)).astype(np.float32), refs


def lyot(*arguments, **options):
    """Run a command of the command line in this process."""
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


def refined(target, refs, start=None, weight=None, var_t=None, var_r=None, **options):
    """Fit references to a target; weights and variances are one unless they are given."""
    refs = np.atleast_3d(refs) if np.ndim(refs) == 3 else np.asarray(refs)[None]
    spectra = fourier.spectrum(refs)
    weight = np.ones(target.shape) if weight is None else weight
    var_t = np.ones(target.shape) if var_t is None else var_t
    var_r = np.ones(refs.shape) if var_r is None else var_r
    start = np.zeros((len(refs), 2)) if start is None else start
    return registration.refine(target, weight, var_t, spectra, var_r, start, **options)


def snapshot(model):
    return {
        "data": np.array(model.data),
        "err": np.array(model.err),
        "dq": np.array(model.dq),
        "steps": dict(model.meta.cal_step.instance),
        "branch": provenance_of(model),
    }


def assert_unchanged(model, before):
    after = snapshot(model)
    for key in ("data", "err", "dq"):
        np.testing.assert_array_equal(after[key], before[key])
    assert after["steps"] == before["steps"]
    assert after["branch"].keys() == before["branch"].keys()


def flight_optics(mask, filter, **options):
    """Return the optics of a coronagraphic mode, of the instrument that has the mask."""
    [instrument] = [i for i in (NIRCAM, MIRI) if mask in {c.name for c in i.coronagraphs}]
    return instrument.optics(mask, filter, **options)


def observatory_on_axis(data_dir):
    """Return the image of a star behind MASK335R in F335M by the observatory's own model."""
    name = data_dir / "onaxis_f335m" / "nircam_f335m_mask335r_onaxis_legendre.fits"
    with fits.open(name) as opened:
        coefficients, header = opened[0].data.astype(np.float64), opened[0].header
    band = flight_optics("MASK335R", "F335M").band
    first, last = header["WAVE1"], header["WAVE2"]
    at = [legval(2.0 * (w * 1e6 - first) / (last - first) - 1.0, coefficients) for w in band[0]]
    return np.tensordot(band.weights, at, axes=1)


# --- A companion in any mode, in memory.

MODES = [
    (instrument.name, mask.name, band.name)
    for instrument in (NIRCAM, MIRI)
    for mask in instrument.coronagraphs
    for band in instrument.filters
    # A mask of MIRI has one filter, whose number it bears.
    if any(a.channel == band.channel for a in mask.apertures)
    and (instrument is NIRCAM or mask.name[-4:-1] == band.name[1:4])
]
"""Instrument, mask and filter of every coronagraphic mode."""

NARROW_MODES = [
    ("NIRCAM", "MASKSWB", "F200W", "NRCA4_MASKSWB_NARROW"),
    ("NIRCAM", "MASKLWB", "F444W", "NRCA5_MASKLWB_NARROW"),
]
"""Those with the star behind the narrow end of a bar, by the name of the aperture."""

HALF_WIDTHS_ARCSEC = {"MASK210R": 0.40, "MASK335R": 0.64, "MASK430R": 0.81}
"""Where half of the light passes: JWST User Documentation, "NIRCam Coronagraphic Imaging"."""

ROLLS_DEG, STAR_FLUX = (20.0, 31.0), 1e7


def companion_place(mode, number):
    """Return separation [arcsec] and position angle of a companion near the mask, not behind it."""
    name, mask, band, *_ = mode
    instrument = INSTRUMENTS[name]
    coronagraph, pixel = (
        instrument.coronagraph(mask),
        instrument.channel(filter=band).pixel_scale_arcsec,
    )
    width = instrument.lambda_over_d_arcsec(instrument.filter(band))
    along_y = isinstance(coronagraph, BarMask)
    beside = 8.0 * width if along_y else max(1.5 * HALF_WIDTHS_ARCSEC.get(mask, 0.0), 7.0 * width)
    separation = float(np.clip(beside, 16.0 * pixel, 29.0 * pixel))
    angles = (0.0, 180.0, 12.0, 170.0) if along_y else (35.0, 145.0, 215.0, 325.0)
    return separation, (np.mean(ROLLS_DEG) + angles[number % 4]) % 360.0


def companion_flux(mode, snr):
    """Return the flux of a source that read noise alone lets measure with about an S/N."""
    name, mask, band, *_ = mode
    optics = INSTRUMENTS[name].optics(mask, band, n_wavelengths=1)
    image = optics.psf((0.0, 0.0), n_pixels=33, with_mask=False).image
    return snr * 0.4 / np.sqrt(np.sum(image**2))


def observe_companion(mode, seed, source, *, shape=(85, 87), n_ref=6, n_int=2):
    """Draw two rolls and their references with a companion (separation, angle, flux); subtract.

    With read noise of 0.5, errors of pointing of 5 mas and drifts of the wavefront of 3 nm; where
    the star is, is known.
    """
    name, mask, band, *aperture = mode
    instrument = INSTRUMENTS[name]
    coronagraph, channel = instrument.coronagraph(mask), instrument.channel(filter=band)
    optics = instrument.optics(mask, band, n_wavelengths=3, seed=data_seed(seed))
    optics = optics.sampled_for(max(shape) + 4)
    rng = np.random.default_rng(seed)
    pixel, noise = channel.pixel_scale_arcsec, 0.5
    on_mask = np.array(coronagraph.along_detector(coronagraph.star_x_arcsec(band, *aperture), 0.0))
    middle = np.array([shape[1] / 2 - 0.7, shape[0] / 2 - 0.4])

    def image(flux, offset, *, drifts=True):
        drift = 0.0
        if drifts:
            budget = WavefrontBudget(telescope_m=3e-9)
            drift = draw_wavefront(budget, optics.n_pupil, seed=int(rng.integers(2**32)))[0]
        drifted = replace(optics, drift_m=drift)
        return flux * drifted.frame(tuple(on_mask + offset), tuple(middle + offset / pixel), shape)

    def read(frame, n):
        return frame + rng.normal(size=(n, *shape)) * noise

    refs = np.concatenate(
        [read(image(0.8 * STAR_FLUX, rng.normal(0.0, 0.005, 2)), 1) for _ in range(n_ref)]
    )
    facts = {
        "instrument": name,
        "detector": coronagraph.aperture(channel.name).detector,
        "filter": band,
        "coronagraph": (*coronagraph.keyword_values, mask)[0],
        "aperture": "".join(aperture),
        "pixel_area_sr": (pixel / ARCSEC_PER_RADIAN) ** 2,
        "crpix_xy": tuple(middle),
        "target": "STAR",
    }
    recipe, exposures = SubtractRecipe(n_modes=(n_ref - 1,)), []
    separation, pa, flux = source
    for roll in ROLLS_DEG:
        offset, turn = rng.normal(0.0, 0.005, 2), np.radians(pa - roll)
        away = separation * np.array([-np.sin(turn), np.cos(turn)])
        frame = image(STAR_FLUX, offset) + image(flux, offset + away, drifts=False)
        star = StarPosition(*(middle + offset / pixel), 0.0, 0.0)
        target = cube(read(frame, n_int), noise, **facts)
        exposures.append(
            make_exposure(
                target,
                aligned(refs, noise),
                star,
                recipe,
                plane=TangentPlane.linear(star.yx, roll, pixel),
                name=f"roll {roll:g}",
            )
        )
    star = StarBrightness(STAR_FLUX * 1e6 * facts["pixel_area_sr"], None, "stated")
    return make_observation("every mode", exposures, recipe, star=star)


def blank_sky_over_err(path, scale_arcsec):
    """The scatter of a residual's blank sky over its ERR, by percentiles about a running median;
    and what the run recorded."""
    image, err = (np.squeeze(fits.getdata(path, name)).astype(float) for name in ("SCI", "ERR"))
    header = fits.getheader(path, "SCI")
    y, x = np.indices(image.shape)
    far = np.hypot(x - header["STARCENX"] + 1.0, y - header["STARCENY"] + 1.0) * scale_arcsec > 6.0
    far &= np.isfinite(image)
    image -= ndimage.median_filter(np.where(far, image, 0.0), 15)
    low, high = np.percentile(image[far], (15.87, 84.13))
    with datamodels.open(path) as model:
        ratio = provenance_of(model)["steps"]["klip"]["sky_noise"]["ratio"]
    return 0.5 * (high - low) / np.median(err[far]), ratio


def acquisition_of(science, folder, *, star_xy, at_xy=(21.3, 34.8), shape=(64, 60), **keywords):
    """Write the image of a star beside the mask, before the telescope moved it behind it.

    The telescope points so that the star, at `star_xy` on the frames of `science`, falls on `at_xy`
    of a smaller frame, whose pixels continue those of the exposure.
    """
    rng = np.random.default_rng(5)
    corner = np.array([40.0, 25.0])  # of the small frame on the pixels of the exposure
    with as_model(science, "CubeModel") as model:
        info = info_from_model(model)
        wcs = frame_wcs(model.meta.wcs, model.meta.wcsinfo.instance, info)
        there, here = (wcs(*(np.array(xy))) for xy in (corner + at_xy, star_xy))
        wcs = turned_to(wcs, tuple(map(float, there)), tuple(map(float, here)))
        shift = Shift(corner[0]) & Shift(corner[1])
        wcs.insert_transform(wcs.available_frames[0], shift, after=True)
        image = datamodels.ImageModel(shape)
        image.update(model)
    at = at_xy[::-1]
    image.data = rng.normal(0.0, 1.0, shape) + 400.0 * gaussian(shape, at, info.lambda_over_d_pix)
    image.data[5, 7] = 5e3  # a hot pixel, flagged
    image.dq = np.zeros(shape, np.uint32)
    image.dq[5, 7] = 1
    image.err = np.ones(shape)
    image.meta.wcs = wcs
    ra, dec = (float(v) for v in wcs(30.0, 32.0))
    image.meta.wcsinfo.crpix1, image.meta.wcsinfo.crpix2 = 31.0, 33.0
    image.meta.wcsinfo.ra_ref, image.meta.wcsinfo.dec_ref = ra, dec
    prefix = {"MIRI": "MIR"}.get(info.instrument, "NRC")
    aperture = f"{info.aperture}_TA"
    for key, value in ({"EXP_TYPE": f"{prefix}_TACQ", "APERNAME": aperture} | keywords).items():
        set_fact(image, key, value)
    path = Path(folder) / info.name.replace("03102", "02101").replace("_calints", "_acq_cal")
    image.meta.filename = path.name
    image.save(path)
    return path

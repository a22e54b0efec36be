"""What several tests share: small cubes and images, the command line, and fits of shifts."""

import numpy as np
from click.testing import CliRunner

from lyot.algorithms import fourier, registration
from lyot.cli import main
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import Cube
from lyot.files.headers import ExposureInfo
from lyot.files.provenance import provenance_of
from lyot.instruments.miri import MIRI
from lyot.instruments.nircam import NIRCAM
from lyot.instruments.telescope import ARCSEC_PER_RADIAN

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

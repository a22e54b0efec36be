"""Measure what each method keeps of a ring that is put into the frames of AU Mic.

Give the folder of the real data. Prints a line for each method: all of the ring, ends, minor axis.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.signal import fftconvolve

from lyot.analysis.observation import open_run
from lyot.files.sorting import build_associations
from lyot.pipeline import Coron3Pipeline

PA_DEG, INCLINATION_DEG, RADIUS_ARCSEC, SIGMA_ARCSEC, PEAK = 38.7, 70.0, 2.0, 0.106, 10.0
RUNS = (
    ("klip", {}, False),
    ("nmf", {"method": "nmf", "truncate": "6"}, False),
    ("klip, ring excluded", {}, True),
    ("imputation, ring excluded", {"method": "imputation"}, True),
    ("nmf, ring excluded", {"method": "nmf", "truncate": "6"}, True),
)


def reduce(files, folder, **parameters):
    """Subtract, and return the residual of each roll."""
    [association] = build_associations([str(file) for file in files])
    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.input_dir = str(folder), str(files[0].parent)
    for name, value in parameters.items():
        setattr(pipeline.klip, name, value)
    pipeline.run(association)
    return [np.squeeze(fits.getdata(p, "SCI")) for p in sorted(folder.glob("*_psfsub.fits"))]


def rings(folder):
    """The ring on the pixels of each roll, and the angle from its major axis [degree]."""
    with open_run(folder) as observation:
        psf, made = observation.psf.stamp(0.0, 0.0), []
        for exposure in observation.exposures:
            y, x = np.indices(exposure.shape)
            (east, north), pa = exposure.plane.offset(y, x), np.radians(PA_DEG)
            major = north * np.cos(pa) + east * np.sin(pa)
            minor = east * np.cos(pa) - north * np.sin(pa)
            minor /= np.cos(np.radians(INCLINATION_DEG))
            away = (np.hypot(major, minor) - RADIUS_ARCSEC) / SIGMA_ARCSEC
            through = observation.transmission.at(y, x, mask_yx=exposure.mask_yx)
            ring = fftconvolve(through * np.exp(-0.5 * away**2), psf, mode="same")
            angle = np.degrees(np.arctan2(np.abs(minor), np.abs(major)))
            made.append((PEAK * ring / ring.max(), angle))
    return made


files = sorted((Path(sys.argv[1]) / "aumic_f444w").glob("*_calints.fits"))
with tempfile.TemporaryDirectory() as home:
    home = Path(home)
    reduce(files, home / "first")
    made = rings(home / "first")
    (home / "with").mkdir()
    for file, ring in zip(files, [ring for ring, _ in made] + [0.0] * len(files), strict=False):
        with fits.open(file) as hdus:
            hdus["SCI"].data = (hdus["SCI"].data + ring).astype(np.float32)
            hdus.writeto(home / "with" / file.name)
    changed = sorted((home / "with").glob("*_calints.fits"))
    covered = np.any([ring > 0.02 * PEAK for ring, _ in made], axis=0)
    fits.writeto(home / "weight.fits", (~covered).astype(np.float32))
    for name, parameters, is_excluded in RUNS:
        if is_excluded:
            parameters = parameters | {"fit_weight": str(home / "weight.fits")}
        kept = []
        pairs = (
            reduce(of, home / f"{name} {k}", **parameters) for k, of in enumerate((files, changed))
        )
        for without, with_ring, (ring, angle) in zip(*pairs, made, strict=True):
            left, on = with_ring - without, ring > 0.2 * PEAK
            on &= np.isfinite(left)
            parts = (on, on & (angle < 25.0), on & (angle > 65.0))
            kept.append([left[part].sum() / ring[part].sum() for part in parts])
        print(name, np.round(np.mean(kept, axis=0), 2))

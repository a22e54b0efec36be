"""What a wavefront that nobody knows does to a companion that is measured with the mean PSF."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lyot.analysis.companion.likelihood import BOX_FWHM
from lyot.analysis.psf import OffAxisPSF
from lyot.compute.cache import remembered
from lyot.compute.threads import map_ordered
from lyot.instruments.wavefront import PSF_SEEDS
from lyot.types import Array

N_PUPIL = 64


class Mismatch(NamedTuple):
    """What a fit with the mean PSF is off by, over draws of the wavefront."""

    shift_yx: Array  # root mean square along y and x [pixel]
    flux: float  # root mean square error of the flux, relative


@lru_cache(maxsize=8)
def wavefront_mismatch(psf: OffAxisPSF, /) -> Mismatch:
    """Fit the model of a PSF to images of drawn wavefronts, on the pixels of a companion's fit.

    None at all for a PSF that is not the model: what is wrong with it is not known.
    """
    if psf.near_mask is None:
        return Mismatch(np.zeros(2), 0.0)
    half = int(np.ceil(BOX_FWHM * psf.fwhm_pix))
    # The core needs few samples.
    optics = replace(psf.near_mask.optics.with_fewer_wavelengths(3), n_pupil=N_PUPIL)
    optics = optics.sampled_for(2 * half + 1)
    core = slice(psf.half_pix - half, psf.half_pix + half + 1)
    images = [p.stamp(0.0, 0.0)[core, core].ravel() for p in (psf, *psf.slopes())]
    design = np.column_stack([*images, np.ones(images[0].size)])

    def _one(seed: int) -> Array:
        drawn = replace(optics, seed=seed).psf((0.0, 0.0), n_pixels=2 * half + 1, with_mask=False)
        flux, *moved, _ = np.linalg.lstsq(design, drawn.image.ravel(), rcond=None)[0]
        return np.array([moved[0] / flux, moved[1] / flux, flux - 1.0])

    group = f"mismatch-{optics.checksum}" if optics.checksum else ""
    errors = remembered(
        group, f"{half}", lambda: {"errors": np.array(map_ordered(_one, PSF_SEEDS))}
    )["errors"]
    shift_yx = np.sqrt(np.mean(np.square(errors[:, :2]), axis=0))
    return Mismatch(shift_yx, float(np.sqrt(np.mean(errors[:, 2] ** 2))))

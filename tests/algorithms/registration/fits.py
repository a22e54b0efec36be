"""Fits of frames with plain weights and variances, for the tests of registration."""

import numpy as np

from lyot.algorithms import fourier, registration


def refined(target, refs, start=None, weight=None, var_t=None, var_r=None, **options):
    """Fit references to a target; weights and variances are one unless they are given."""
    refs = np.atleast_3d(refs) if np.ndim(refs) == 3 else np.asarray(refs)[None]
    spectra = fourier.spectrum(refs)
    weight = np.ones(target.shape) if weight is None else weight
    var_t = np.ones(target.shape) if var_t is None else var_t
    var_r = np.ones(refs.shape) if var_r is None else var_r
    start = np.zeros((len(refs), 2)) if start is None else start
    return registration.refine(target, weight, var_t, spectra, var_r, start, **options)

r"""Shift and scale between frames, with their covariance; the center of a symmetric pattern.

The model of a target frame :math:`s` is a reference :math:`r`, shifted by :math:`d` and scaled:
:math:`\min_{d, b} \sum_p w_p\,(s_p - b\,(T_d r)_p)^2`. The scale is eliminated (variable
projection; Golub and Pereyra 1973, doi:10.1137/0710036), the shift acts in Fourier space with
analytic derivatives, where a finite difference of a float32 transform is zero; all sums over
pixels are float64.
"""

from lyot.algorithms.registration.center import symmetry_center, symmetry_centers
from lyot.algorithms.registration.expand import ORDER, fit_pairs, integer_shift, pair_targets
from lyot.algorithms.registration.refine import refine
from lyot.algorithms.registration.zone import TOLERANCE_PIX, ShiftFit, zone_of

"""What the cameras of JWST share: the telescope's pupil, and the data quality flags."""

from __future__ import annotations

from lyot.instruments.pupil import FLIGHT_PUPIL

PUPIL = FLIGHT_PUPIL

_BY_BIT = """
    DO_NOT_USE SATURATED JUMP_DET DROPOUT OUTLIER PERSISTENCE AD_FLOOR CHARGELOSS RESERVED
    NON_SCIENCE DEAD HOT WARM LOW_QE RC TELEGRAPH NONLINEAR BAD_REF_PIXEL NO_FLAT_FIELD
    NO_GAIN_VALUE NO_LIN_CORR NO_SAT_CHECK UNRELIABLE_BIAS UNRELIABLE_DARK UNRELIABLE_SLOPE
    UNRELIABLE_FLAT OPEN ADJ_OPEN FLUX_ESTIMATED MSA_FAILED_OPEN OTHER_BAD_PIXEL
    REFERENCE_PIXEL
"""

DQ_FLAGS = {name: 1 << bit for bit, name in enumerate(_BY_BIT.split())} | {"GOOD": 0}
"""Data quality flags (JWST calibration pipeline documentation, "Data Quality Flags")."""

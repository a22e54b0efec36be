"""What the cameras of JWST share: the telescope's pupil, and the data quality flags."""

from __future__ import annotations

from lyot.instruments.telescope import SegmentedPupil, UndersizedSegments

PUPIL = SegmentedPupil(
    diameter_m=6.5,
    width_m=6.60,
    flat_to_flat_m=1.32,
    gap_m=0.007,
    secondary_radius_m=0.37,
    support_width_m=0.11,
)
"""The telescope: 18 segments of 1.32 m (Lightsey et al. 2012, doi:10.1117/1.OE.51.1.011003)."""

STOP = UndersizedSegments(undersize=0.86)
"""A stand-in for every Lyot stop, of throughput 0.74."""

DQ_FLAGS = {
    name: 1 << bit
    for bit, name in enumerate(
        (
            "DO_NOT_USE",
            "SATURATED",
            "JUMP_DET",
            "DROPOUT",
            "OUTLIER",
            "PERSISTENCE",
            "AD_FLOOR",
            "CHARGELOSS",
            "RESERVED",
            "NON_SCIENCE",
            "DEAD",
            "HOT",
            "WARM",
            "LOW_QE",
            "RC",
            "TELEGRAPH",
            "NONLINEAR",
            "BAD_REF_PIXEL",
            "NO_FLAT_FIELD",
            "NO_GAIN_VALUE",
            "NO_LIN_CORR",
            "NO_SAT_CHECK",
            "UNRELIABLE_BIAS",
            "UNRELIABLE_DARK",
            "UNRELIABLE_SLOPE",
            "UNRELIABLE_FLAT",
            "OPEN",
            "ADJ_OPEN",
            "FLUX_ESTIMATED",
            "MSA_FAILED_OPEN",
            "OTHER_BAD_PIXEL",
            "REFERENCE_PIXEL",
        )
    )
} | {"GOOD": 0}
"""Data quality flags (JWST calibration pipeline documentation, "Data Quality Flags")."""

"""MIRI: four-quadrant phase masks and a Lyot spot, 10 to 23 micrometre.

Sources: JWST User Documentation, "MIRI Coronagraphs"; Boccaletti et al. 2022,
doi:10.1051/0004-6361/202244578 (pivot wavelengths, bandwidths, inner working angles); detector,
subarrays and angle of the detector from the headers of programme 1277 and of the PSFMASK reference
file. The transmission beside the axes of a phase mask was fitted to the published map of F1140C,
which it follows to 0.04 rms.
"""

from __future__ import annotations

from lyot.instruments.coronagraphs import Aperture, FourQuadrantMask, LyotSpot
from lyot.instruments.filters import Filter
from lyot.instruments.instrument import Channel, Instrument
from lyot.instruments.jwst import DQ_FLAGS, PUPIL, STOP

IMAGER, DETECTOR = "IMAGER", "MIRIMAGE"

CHANNELS = (
    Channel(
        name=IMAGER,
        detectors=(DETECTOR,),
        pixel_scale_arcsec=0.1110,
        v3i_yangle_deg=4.83544897,
    ),
)

FILTERS = (
    Filter("F1065C", 10.563, 0.75, IMAGER),
    Filter("F1140C", 11.310, 0.80, IMAGER),
    Filter("F1550C", 15.516, 0.90, IMAGER),
    Filter("F2300C", 22.640, 5.50, IMAGER),
)


def _phase_mask(number: str, inner_working_angle_arcsec: float) -> FourQuadrantMask:
    return FourQuadrantMask(
        name=f"4QPM_{number}",
        half_width_arcsec=inner_working_angle_arcsec,
        tilt_deg=-4.80,
        floor=0.200,
        scale_lambda_over_d=0.923,
        power=1.153,
        stop=STOP,
        exposure_type="MIR_4QPM",
        apertures=(Aperture(channel=IMAGER, detector=DETECTOR, subarray=f"MASK{number}"),),
        stpsf_stop="MASKFQPM",
    )


CORONAGRAPHS = (
    _phase_mask("1065", 0.33),
    _phase_mask("1140", 0.36),
    _phase_mask("1550", 0.49),
    LyotSpot(
        name="LYOT_2300",
        half_width_arcsec=2.16,
        stop=STOP,
        exposure_type="MIR_LYOT",
        apertures=(Aperture(channel=IMAGER, detector=DETECTOR, subarray="MASKLYOT"),),
        stpsf_stop="MASKLYOT",
    ),
)

MIRI = Instrument(
    name="MIRI",
    pupil=PUPIL,
    channels=CHANNELS,
    filters=FILTERS,
    coronagraphs=CORONAGRAPHS,
    dq_flags=DQ_FLAGS,
    stpsf_class="MIRI",
)
"""The mid-infrared instrument of JWST."""

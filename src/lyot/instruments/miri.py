"""MIRI: four-quadrant phase masks and a Lyot spot, 10 to 23 micrometre.

Sources: JWST User Documentation, "MIRI Coronagraphs"; Boccaletti et al. 2022,
doi:10.1051/0004-6361/202244578 (pivot wavelengths, bandwidths, inner working angles); detector,
subarrays and angle of the detector from the headers of programme 1277 and of the PSFMASK reference
file; `stpsf` (coupling of pixels, angle of masks and stops). Vega zero points: F1140C and F1550C as
printed in Carter et al. 2023, doi:10.3847/2041-8213/acd93e; F1065C and F2300C follow from these by
the slope of Vega's spectrum, a power law between F480M and F1140C and the Rayleigh-Jeans limit
beyond F1550C, without the excess of Vega's disc. The slope between the published points lies
between -1.97 and -2.10, which leaves 1 % in F1065C and 4 % in F2300C.
"""

from __future__ import annotations

from lyot.instruments.coronagraphs import Aperture, FourQuadrantMask, LyotSpot
from lyot.instruments.filters import Filter
from lyot.instruments.instrument import Channel, Instrument
from lyot.instruments.jwst import DQ_FLAGS, PUPIL
from lyot.instruments.stops import LYOT_SPOT_STOP, PHASE_MASK_STOP
from lyot.instruments.wavefront import WavefrontBudget

IMAGER, DETECTOR = "IMAGER", "MIRIMAGE"
TILT_DEG = -4.80

CHANNELS = (
    Channel(
        name=IMAGER,
        detectors=(DETECTOR,),
        pixel_scale_arcsec=0.1110,
        pixel_aspect=0.1106 / 0.1102,
        # The calibration pipeline takes it out for NIRCam only (keyword S_IPC).
        coupling=(0.033, 0.024),
        wavefront=WavefrontBudget(telescope_m=67e-9),
        v3i_yangle_deg=4.83544897,
    ),
)

FILTERS = (
    Filter("F1065C", 10.563, 0.75, IMAGER, 32.8),
    Filter("F1140C", 11.310, 0.80, IMAGER, 28.7),
    Filter("F1550C", 15.516, 0.90, IMAGER, 14.8),
    Filter("F2300C", 22.640, 5.50, IMAGER, 6.95),
)


def _phase_mask(number: str, inner_working_angle_arcsec: float) -> FourQuadrantMask:
    return FourQuadrantMask(
        name=f"4QPM_{number}",
        half_width_arcsec=inner_working_angle_arcsec,
        tilt_deg=TILT_DEG,
        design_wavelength_m=float(number) * 1e-8,
        stop=PHASE_MASK_STOP,
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
        radius_arcsec=2.125,
        support_width_arcsec=0.722,
        tilt_deg=TILT_DEG,
        stop=LYOT_SPOT_STOP,
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

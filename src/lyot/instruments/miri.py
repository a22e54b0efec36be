"""MIRI: four-quadrant phase masks and a Lyot spot, 10 to 23 micrometer.

Sources: JWST User Documentation, "MIRI Coronagraphs"; filters and zero points: `filters.txt`;
detector, subarrays and angle of the detector from the headers of programme 1277 and of the PSFMASK
reference file; `stpsf` (coupling of pixels, from JWST-STScI-002925; angle of masks and stops).
"""

from __future__ import annotations

from lyot.instruments.coronagraphs import Aperture, FourQuadrantMask, LyotSpot
from lyot.instruments.filters import filters_of
from lyot.instruments.instrument import Accuracy, Channel, Instrument
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

FILTERS = filters_of("MIRI")


def _phase_mask(number: str, **checks: str) -> FourQuadrantMask:
    return FourQuadrantMask(
        name=f"4QPM_{number}",
        tilt_deg=TILT_DEG,
        design_wavelength_m=float(number) * 1e-8,
        stop=PHASE_MASK_STOP,
        exposure_type="MIR_4QPM",
        apertures=(Aperture(channel=IMAGER, detector=DETECTOR, subarray=f"MASK{number}"),),
        stpsf_stop="MASKFQPM",
        psf_checks=checks,
    )


CORONAGRAPHS = (
    _phase_mask("1065"),
    _phase_mask(
        "1140",
        F1140C="growth curve of HD 106906 b agrees to 5 % within 8 pixels, 10 % within 12",
    ),
    _phase_mask("1550"),
    LyotSpot(
        name="LYOT_2300",
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
    # Flux: scatter between stars of up to 4 %, and up to 3.4 % between subarrays (Gordon et al.
    # 2025, arXiv:2409.10443). Mask: 14 mas after acquisition, radially (JWST User Documentation,
    # "JWST Pointing Accuracy"). The geometry is taken to be known as NIRCam's is.
    accuracy=Accuracy(flux=0.05, mask_arcsec=0.010, acquisition_arcsec=0.010),
)
"""The mid-infrared instrument of JWST."""

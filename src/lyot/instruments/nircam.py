"""NIRCam: round and bar masks, 1.7 to 5 micrometer.

Sources: JWST User Documentation, "NIRCam Coronagraphic Occulting Masks and Lyot Stops" (masks, half
widths); filters and zero points as `filters.txt` says; Krist et al. 2007,
Proc. SPIE 6693 (scale of the round masks); `stpsf` (diffusion of charge, a fit to flight
images); the observatory's model (67 nm of wavefront error of the telescope, 155 nm of NIRCam at
MASK335R); detectors and subarrays from the headers of each mask's PSFMASK reference file; angle of
the long-wave detector from the headers of programme 1184; positions on the bars from the aperture
file PRDOPSSOC-075 (`pysiaf` 0.29), V2 of the bar's own aperture less that of each of its others.
"""

from __future__ import annotations

from lyot.instruments.coronagraphs import Aperture, BarMask, RoundMask
from lyot.instruments.filters import coronagraph_response, filters_of
from lyot.instruments.instrument import Accuracy, Channel, Instrument
from lyot.instruments.jwst import DQ_FLAGS, PUPIL
from lyot.instruments.stops import BAR_MASK_STOP, ROUND_MASK_STOP
from lyot.instruments.wavefront import WavefrontBudget

SHORT, LONG = "SHORT", "LONG"
WAVEFRONT = WavefrontBudget(telescope_m=67e-9, instrument_m=155e-9)

CHANNELS = (
    Channel(
        name=SHORT,
        detectors=tuple(f"NRC{module}{i}" for module in "AB" for i in (1, 2, 3, 4)),
        pixel_scale_arcsec=0.0307,
        diffusion_arcsec=0.0062,
        wavefront=WAVEFRONT,
        coronagraph_response=coronagraph_response("NIRCAM", SHORT),
    ),
    Channel(
        name=LONG,
        detectors=("NRCALONG", "NRCBLONG", "NRCA5", "NRCB5"),
        pixel_scale_arcsec=0.0630,
        pixel_aspect=0.06293 / 0.06204,
        diffusion_arcsec=0.018,
        wavefront=WAVEFRONT,
        v3i_yangle_deg=0.05,
        coronagraph_response=coronagraph_response("NIRCAM", LONG),
    ),
)

FILTERS = filters_of("NIRCAM")


def _round(name: str, sigma: float, aperture: Aperture, **checks: str) -> RoundMask:
    return RoundMask(
        name=name,
        sigma_per_arcsec=sigma,
        stop=ROUND_MASK_STOP,
        keyword_values=tuple(name.replace("MASK", f"MASK{module}") for module in "AB"),
        exposure_type="NRC_CORON",
        pupil_wheel="MASKRND",
        apertures=(aperture,),
        stpsf_stop="MASKRND",
        psf_checks=checks,
    )


def _bar(
    name: str,
    lambda_over_d: float,
    positions: dict[str, float],
    aperture: Aperture,
) -> BarMask:
    return BarMask(
        name=name,
        lambda_over_d_arcsec=lambda_over_d,
        star_positions_arcsec=positions,
        stop=BAR_MASK_STOP,
        keyword_values=tuple(name.replace("MASK", f"MASK{module}") for module in "AB"),
        exposure_type="NRC_CORON",
        pupil_wheel="MASKBAR",
        apertures=(aperture,),
        stpsf_stop=name,
    )


def _read_out(channel: str, detector: str, subarray: str) -> Aperture:
    keywords = (("CHANNEL", channel), ("MODULE", "A"))
    return Aperture(channel=channel, detector=detector, subarray=subarray, more_keywords=keywords)


ON_SHORT_BAR = {
    "F182M": -1.742,
    "F187N": -1.543,
    "F200W": 0.196,
    "F210M": -0.034,
    "F212N": 0.144,
    "NARROW": -8.050,
}
ON_LONG_BAR = {
    "F250M": 6.564,
    "F277W": 4.916,
    "F300M": 5.041,
    "F335M": 3.873,
    "F356W": 2.326,
    "F360M": 3.056,
    "F410M": 1.621,
    "F430M": 0.998,
    "F444W": -0.723,
    "F460M": -0.094,
    "F480M": -0.854,
    "NARROW": 8.299,
}
"""Where on a bar a star is put, by aperture [arcsec from its middle along x]."""

CORONAGRAPHS = (
    _round("MASK210R", 5.253, _read_out(SHORT, "NRCA2", "SUB640A210R")),
    _round(
        "MASK335R",
        3.2927866,
        _read_out(LONG, "NRCALONG", "SUB320A335R"),
        F300M="growth curves of HD 141569 B and C agree to 4 % from 1.5 to 12 pixels",
    ),
    _round("MASK430R", 2.58832, _read_out(LONG, "NRCALONG", "SUB320A430R")),
    _bar("MASKSWB", 0.06664, ON_SHORT_BAR, _read_out(SHORT, "NRCA4", "SUB640ASWB")),
    _bar("MASKLWB", -0.14597, ON_LONG_BAR, _read_out(LONG, "NRCALONG", "SUB320ALWB")),
)

NIRCAM = Instrument(
    name="NIRCAM",
    pupil=PUPIL,
    channels=CHANNELS,
    filters=FILTERS,
    coronagraphs=CORONAGRAPHS,
    dq_flags=DQ_FLAGS,
    stpsf_class="NIRCam",
    # Flux: what is required of coronagraphy (JWST User Documentation, "JWST Data Calibration
    # Considerations"). Mask: after acquisition 5.5 mas ("JWST Pointing Accuracy"); the maps of the
    # two rolls of AU Mic have it 6 mas from the star, along one axis.
    accuracy=Accuracy(flux=0.05, mask_arcsec=0.006),
)
"""The near-infrared camera of JWST."""

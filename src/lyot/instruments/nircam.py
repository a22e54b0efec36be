"""NIRCam: round and bar masks, 1.7 to 5 micrometre.

Sources: JWST User Documentation, "NIRCam Coronagraphic Occulting Masks and Lyot Stops" (masks, half
widths) and "NIRCam Filters" (pivot wavelengths and bandwidths); Krist et al. 2007,
doi:10.1117/12.734873 (scale of the round masks); Vega zero points from the SVO Filter Profile
Service (Rodrigo and Solano 2020); detectors and subarrays from the headers of each mask's PSFMASK
reference file; angle of the long-wave detector from the headers of programme 1184.
"""

from __future__ import annotations

from lyot.instruments.coronagraphs import Aperture, BarMask, RoundMask
from lyot.instruments.filters import Filter
from lyot.instruments.instrument import Channel, Instrument
from lyot.instruments.jwst import DQ_FLAGS, PUPIL, STOP

SHORT, LONG = "SHORT", "LONG"

CHANNELS = (
    Channel(
        name=SHORT,
        detectors=tuple(f"NRC{module}{i}" for module in "AB" for i in (1, 2, 3, 4)),
        pixel_scale_arcsec=0.0307,
    ),
    Channel(
        name=LONG,
        detectors=("NRCALONG", "NRCBLONG", "NRCA5", "NRCB5"),
        pixel_scale_arcsec=0.0630,
        v3i_yangle_deg=0.05,
    ),
)

FILTERS = (
    Filter("F182M", 1.845, 0.238, SHORT, 844.943),
    Filter("F187N", 1.874, 0.024, SHORT, 794.848),
    Filter("F200W", 1.990, 0.461, SHORT, 757.654),
    Filter("F210M", 2.093, 0.205, SHORT, 688.033),
    Filter("F212N", 2.120, 0.027, SHORT, 674.832),
    Filter("F250M", 2.503, 0.181, LONG, 504.651),
    Filter("F277W", 2.786, 0.672, LONG, 430.140),
    Filter("F300M", 2.996, 0.318, LONG, 369.648),
    Filter("F322W2", 3.247, 1.339, LONG, 343.302),
    Filter("F335M", 3.365, 0.347, LONG, 298.910),
    Filter("F356W", 3.563, 0.787, LONG, 271.393),
    Filter("F360M", 3.621, 0.372, LONG, 260.306),
    Filter("F410M", 4.092, 0.436, LONG, 208.750),
    Filter("F430M", 4.280, 0.228, LONG, 190.697),
    Filter("F444W", 4.421, 1.024, LONG, 184.102),
    Filter("F460M", 4.624, 0.228, LONG, 164.110),
    Filter("F480M", 4.834, 0.303, LONG, 153.224),
)


def _round(name: str, half_width: float, sigma: float, aperture: Aperture) -> RoundMask:
    return RoundMask(
        name=name,
        half_width_arcsec=half_width,
        sigma_per_arcsec=sigma,
        stop=STOP,
        keyword_values=tuple(name.replace("MASK", f"MASK{module}") for module in "AB"),
        exposure_type="NRC_CORON",
        pupil_wheel="MASKRND",
        apertures=(aperture,),
        stpsf_stop="MASKRND",
    )


def _bar(name: str, half_width: float, lambda_over_d: float, aperture: Aperture) -> BarMask:
    return BarMask(
        name=name,
        half_width_arcsec=half_width,
        lambda_over_d_arcsec=lambda_over_d,
        stop=STOP,
        keyword_values=tuple(name.replace("MASK", f"MASK{module}") for module in "AB"),
        exposure_type="NRC_CORON",
        pupil_wheel="MASKBAR",
        apertures=(aperture,),
        stpsf_stop=name,
    )


def _read_out(channel: str, detector: str, subarray: str) -> Aperture:
    keywords = (("CHANNEL", channel), ("MODULE", "A"))
    return Aperture(channel=channel, detector=detector, subarray=subarray, more_keywords=keywords)


CORONAGRAPHS = (
    _round("MASK210R", 0.40, 5.253, _read_out(SHORT, "NRCA2", "SUB640A210R")),
    _round("MASK335R", 0.64, 3.2927866, _read_out(LONG, "NRCALONG", "SUB320A335R")),
    _round("MASK430R", 0.82, 2.5652, _read_out(LONG, "NRCALONG", "SUB320A430R")),
    _bar("MASKSWB", 0.30, 0.06664, _read_out(SHORT, "NRCA4", "SUB640ASWB")),
    _bar("MASKLWB", 0.60, -0.14597, _read_out(LONG, "NRCALONG", "SUB320ALWB")),
)

NIRCAM = Instrument(
    name="NIRCAM",
    pupil=PUPIL,
    channels=CHANNELS,
    filters=FILTERS,
    coronagraphs=CORONAGRAPHS,
    dq_flags=DQ_FLAGS,
    stpsf_class="NIRCam",
)
"""The near-infrared camera of JWST."""

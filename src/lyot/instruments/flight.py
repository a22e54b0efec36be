"""The coronagraphic modes as they fly: which mask, stop, detector and wavefront go together."""

from __future__ import annotations

from lyot.instruments import stops
from lyot.instruments.focal_masks import (
    FOCAL_MASKS,
    BarMask,
    FocalMask,
    LyotSpot,
    PhaseQuadrants,
    RoundMask,
)
from lyot.instruments.miri import MIRI
from lyot.instruments.nircam import NIRCAM, SHORT
from lyot.instruments.offaxis import Detector, Optics, filter_band
from lyot.instruments.telescope import LyotStop
from lyot.instruments.wavefront import WavefrontBudget

STOPS: dict[type[FocalMask], LyotStop] = {
    RoundMask: stops.ROUND_MASK_STOP,
    BarMask: stops.BAR_MASK_STOP,
    PhaseQuadrants: stops.PHASE_MASK_STOP,
    LyotSpot: stops.LYOT_SPOT_STOP,
}
"""The Lyot stop behind each kind of mask."""

# Diffusion and MIRI's coupling: stpsf.constants (fits to flight images; JWST-STScI-002925). The
# calibration pipeline takes NIRCam's coupling out (S_IPC is COMPLETE there, SKIPPED for MIRI).
NIRCAM_LONG = Detector((0.06204, 0.06293), diffusion_arcsec=0.018)
NIRCAM_SHORT = Detector((0.0307, 0.0307), diffusion_arcsec=0.0062)
MIRI_IMAGER = Detector((0.1102, 0.1106), coupling=(0.033, 0.024))

# The observatory's model states 67 nm and, for NIRCam at MASK335R, 155 nm.
NIRCAM_WAVEFRONT = WavefrontBudget(telescope_m=67e-9, instrument_m=155e-9)
MIRI_WAVEFRONT = WavefrontBudget(telescope_m=67e-9)

MIRI_TILT_DEG = -4.80
"""Angle from the detector's axes to those of MIRI's masks and stops, from x towards y."""


def flight_optics(
    mask: str,
    filter: str,
    /,
    *,
    photon_slope: float = -3.0,
    n_wavelengths: int | None = None,
    seed: int | None = None,
) -> Optics:
    """Put a coronagraphic mode together.

    Parameters
    ----------
    mask : str
        Name of the coronagraph, for example MASK335R.
    filter : str
        Name of the filter.
    photon_slope : float, optional
        Exponent of wavelength in the photons of the source per wavelength.
    n_wavelengths : int, optional
        Number of wavelengths; by default what the width of the filter needs.
    seed : int, optional
        Which draw of the wavefront errors; their mean by default.

    Returns
    -------
    Optics
        Nothing is computed yet.

    Examples
    --------
    >>> from lyot.instruments.flight import flight_optics
    >>> print(f"{flight_optics('4QPM_1140', 'F1140C').stop_throughput:.2f}")
    0.62
    """
    instrument = NIRCAM if mask.startswith("MASK") else MIRI
    light = instrument.filter(filter)
    band = filter_band(
        light.pivot_um, light.width_um, photon_slope=photon_slope, n_wavelengths=n_wavelengths
    )
    element = FOCAL_MASKS[mask]
    miri = instrument is MIRI
    nircam = NIRCAM_SHORT if light.channel == SHORT else NIRCAM_LONG
    return Optics(
        mask=element,
        stop=STOPS[type(element)],
        band=band,
        detector=MIRI_IMAGER if miri else nircam,
        rotation_deg=MIRI_TILT_DEG if miri else 0.0,
        wavefront=MIRI_WAVEFRONT if miri else NIRCAM_WAVEFRONT,
        seed=seed,
    )

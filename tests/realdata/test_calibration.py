"""What the calibration factor of real exposures contains."""

import numpy as np
import pytest
from astropy.io import fits

from lyot.instruments import MIRI, NIRCAM

AREA_M2, PLANCK = 25.4, 6.62607e-34


def counts(curve, peak, pixel_sr, electrons_per_dn):
    """DN per second of a surface brightness of 1 MJy/sr, by the throughput of the system."""
    um = np.linspace(curve.um[0], curve.um[-1], 2001)
    response = curve.at(um) * peak / max(curve.response)
    photons = 1e6 * pixel_sr * 1e-26 * AREA_M2 / PLANCK * np.trapezoid(response / um, um)
    return photons / electrons_per_dn


@pytest.mark.parametrize(
    ("file", "instrument", "mode", "peak", "gain"),
    [
        # Greatest system throughput without a coronagraph by the curves of `filters.txt`; electrons
        # per DN by the JWST User Documentation.
        ("aumic_f444w/jw01184001001*_calints.fits", NIRCAM, ("MASK335R", "F444W"), 0.584, 1.82),
        ("hd106906_f1140c/jw01277019001*_calints.fits", MIRI, ("4QPM_1140", "F1140C"), 0.293, 3.1),
    ],
)
def test_the_calibration_contains_stop_and_substrate(data_dir, file, instrument, mode, peak, gain):
    """Flux densities are those of sources without coronagraph: neither may count again."""
    header = fits.getheader(next(data_dir.glob(file)), "SCI")
    light = instrument.filter(mode[1])
    plain = header["PHOTMJSR"] * counts(light.curve, peak, header["PIXAR_SR"], gain)
    stop = instrument.optics(*mode).stop_throughput
    substrate = 0.90 if instrument is NIRCAM else 1.0
    assert 1.0 / plain == pytest.approx(stop * substrate, rel=0.12)

"""How much the flux of a source changes with the curve of the filter and its spectrum.

A matched filter of the PSF for a hot star measures images of other bands, within 4.5 pixels of a
source beside the mask.
"""

from dataclasses import replace

import numpy as np

from lyot.instruments import MIRI, NIRCAM
from lyot.instruments.filters import RAYLEIGH_JEANS, Band, Curve, Spectrum
from lyot.instruments.offaxis import Optics

MODES = (
    *((NIRCAM, "MASK210R", name) for name in ("F182M", "F200W", "F210M")),
    *((NIRCAM, "MASK335R", name) for name in ("F277W", "F300M", "F322W2", "F356W", "F444W")),
    (NIRCAM, "MASK430R", "F480M"),
    (MIRI, "4QPM_1140", "F1140C"),
    (MIRI, "LYOT_2300", "F2300C"),
)


def image(optics: Optics, band: Band) -> np.ndarray:
    """Return the image beside the mask."""
    return replace(optics, band=band).psf((0.0, 0.0), n_pixels=49, with_mask=False).image


def main() -> None:
    """Print one row for each mode."""
    y, x = np.indices((49, 49)) - 24
    near = np.hypot(x, y) <= 4.5
    print(f"{'filter':8}{'box':>8}{'no substrate':>14}{'2000 K':>8}{'1200 K':>8}{'600 K':>8}")
    for instrument, mask, name in MODES:
        optics, light = instrument.optics(mask, name), instrument.filter(name)
        psf = image(optics, optics.band)[near]
        bands = [
            Curve.box(light.pivot_um, light.width_um).band(RAYLEIGH_JEANS),
            light.curve.band(RAYLEIGH_JEANS),
            *(
                instrument.optics(mask, name, spectrum=Spectrum.blackbody(kelvin)).band
                for kelvin in (2000.0, 1200.0, 600.0)
            ),
        ]
        fluxes = [(image(optics, band)[near] @ psf) / (psf @ psf) for band in bands]
        print(
            f"{name:8}"
            + "".join(f"{f:{w}.3f}" for f, w in zip(fluxes, (8, 14, 8, 8, 8), strict=True))
        )


if __name__ == "__main__":
    main()

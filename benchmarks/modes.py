"""What the model of the instrument is worth, mode by mode: the table of docs/measurements.md.

Give it the folder of the real data. Comparisons are those of tests/realdata.
"""

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "realdata")]

import test_transmission as published  # noqa: E402
import test_true_psf as images  # noqa: E402
from astropy.io import ascii  # noqa: E402

from lyot.instruments import INSTRUMENTS  # noqa: E402
from lyot.instruments.offaxis import Optics  # noqa: E402
from scenes import MODES  # noqa: E402

MAPS = {"MASK210R": "0049", "MASK335R": "0019", "MASK430R": "0027"}
NOTHING = "nothing real to check against"


def core_fraction(optics: Optics) -> float:
    """Return the share of an off-axis image within lambda/D of the source."""
    wavelength = float(optics.band.weights @ optics.band.wavelengths_m)
    made = optics.psf((0.0, 0.0), n_pixels=15, oversample=5, with_mask=False)
    x_scale, y_scale = optics.detector.pixel_scale_arcsec
    y, x = (np.indices(made.image.shape) - (len(made.image) - 1) / 2) / 5
    reach = wavelength / optics.pupil.diameter_m * 206264.806
    return float(made.image[np.hypot(x * x_scale, y * y_scale) < reach].sum())


def transmission_of(data: Path, mask: str, band: str) -> str:
    """Return the rms of the transmission against what is published of the mask."""
    if mask in MAPS:
        image, y, x, _ = published.psfmask(data, MAPS[mask])
        near = (np.abs(x) < 4.2) & (np.abs(y) < 1.5)
    elif mask in ("MASKLWB", "MASKSWB"):
        image, y, x = published.map_of_bar(data, mask)
        near = (np.abs(x) < 9.0) & (np.abs(y) < 2.0)
    elif band == "F1140C":
        table = ascii.read(data / "hd106906_f1140c" / "mask_transmission_data_F1140C.ecsv")
        places = np.column_stack([table["xidl"], table["yidl"]])[::30]
        theirs = np.array(table["transmission"])[::30]
        optics = published.flight_optics(mask, band)
        ours = np.array([optics.transmission(tuple(p)) for p in places])
        coarse = published.coarsely(band, places, 2)
        pair = [published.in_units_of_its_largest(m, theirs, 0.04) - theirs for m in (ours, coarse)]
        return f"{published.rms(pair[0]):.3f}; sampled as the table {published.rms(pair[1]):.3f}"
    elif mask.startswith("4QPM"):
        away = published.off_the_boundaries(data, band)
        return f"{published.rms(away):.3f} away from the boundaries"
    else:
        return "nothing published"
    model = published.behind(mask, band, x[near], y[near])
    return f"{published.rms(model - image[near]):.4f}"


def image_checks(data: Path) -> dict[tuple[str, str], str]:
    """Return what the images of sources were checked against, by mask and filter."""
    stars = images.fitted_stars(data)
    growth = [np.abs(images.growth_of_star(stars, i) - 1.0).max() for i in (0, 1)]
    matched = images.matched_fluxes(stars)
    theirs, ours = images.images_on_axis(data)
    profile = images.profile_on_axis(theirs, ours)
    fitted = images.fitted_planet(data)
    planet, separation = images.growth_of_planet(fitted)
    ring, error = images.rings_of_planet(fitted)
    chi2 = np.mean(((ring - 1.0) / error) ** 2)
    return {
        ("MASK335R", "F300M"): (
            f"HD 141569 B and C: growth curves from 1.5 to 12 pixels within {growth[0]:.1%} and "
            f"{growth[1]:.1%}; matched filter {matched[0]:.3f} and {matched[1]:.3f} of the flux"
        ),
        ("MASK335R", "F335M"): (
            f"the observatory's model on the axis: total {ours.sum() / theirs.sum():.2f}, profile "
            f"{profile.min():.2f} to {profile.max():.2f} of it from 3 to 30 pixels"
        ),
        ("MASK335R", "F444W"): "halo of AU Mic's reference stars: profile within a factor of 1.5",
        ("4QPM_1140", "F1140C"): (
            f"HD 106906 b: growth curve within {np.abs(planet[:8] - 1).max():.1%} to 8 pixels, "
            f"{np.abs(planet - 1).max():.1%} to 12; rings of one pixel within their "
            f"errors (chi-square {chi2:.1f} per ring; {error[:3].max():.1%} to 3 pixels, "
            f"{error[3:8].min():.0%} to {error[3:8].max():.0%} to 8); separation "
            f"{separation:.2f} arcsec"
        ),
    }


def main() -> None:
    """Print the table, in Markdown."""
    data = Path(sys.argv[1])
    checks = image_checks(data)
    print("| mask | filter | throughput of the stop | core | transmission, rms | PSF |")
    print("|---|---|---|---|---|---|")
    for instrument, mask, band in MODES:
        optics = INSTRUMENTS[instrument].optics(mask, band)
        cells = (
            mask,
            band,
            f"{optics.stop_throughput:.3f}",
            f"{core_fraction(optics):.3f}",
            transmission_of(data, mask, band),
            checks.get((mask, band), NOTHING),
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

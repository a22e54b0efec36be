"""How far the measured star lies from the true one, by mask and by method.

Each image has a wavefront error of its own, of the size that the instrument states, and an offset
of 20 mas from the mask.
"""

from dataclasses import replace

import numpy as np

from common import machine
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.instruments import instrument_named
from lyot.parameters import AUTO, BY_MODEL, BY_SYMMETRY
from lyot.references.star import Frames, measure_star

N, SHAPE = 48, (161, 161)
CASES = (
    ("MASK335R", "F444W", "NIRCAM", "NRCALONG", 0.063),
    ("MASK335R", "F335M", "NIRCAM", "NRCALONG", 0.063),
    ("MASK210R", "F210M", "NIRCAM", "NRCA2", 0.031),
    ("MASKLWB", "F335M", "NIRCAM", "NRCALONG", 0.063),
    ("4QPM_1140", "F1140C", "MIRI", "MIRIMAGE", 0.111),
    ("LYOT_2300", "F2300C", "MIRI", "MIRIMAGE", 0.111),
)


def errors_of(method: str, case: tuple, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return the errors along y and x of each image, and the stated ones [pixel]."""
    mask, band, instrument, detector, scale = case
    rng = np.random.default_rng(seed)
    optics = instrument_named(instrument).optics(mask, band, pixel_scale_arcsec=scale)
    optics = optics.with_fewer_wavelengths(3).sampled_for(SHAPE[0])
    x, y = optics.mask.along_detector(optics.mask.star_x_arcsec(band), 0.0)
    pixel = np.array(optics.detector.pixel_scale_arcsec[::-1])
    guess = StarPosition(80.0, 80.0)
    found, stated = [], []
    for i in range(N):
        offset, center = rng.normal(0, 0.02, 2), 80.0 + rng.uniform(-0.3, 0.3, 2)
        at = center + offset / pixel
        image = replace(optics, seed=1000 + i).frame(
            (x + offset[1], y + offset[0]), (float(at[1]), float(at[0])), SHAPE
        )[None]
        info = ExposureInfo(
            "image",
            image.shape,
            filter=band,
            coronagraph=mask,
            detector=detector,
            instrument=instrument,
        )
        frames = Frames(image, np.zeros(image.shape), np.zeros(image.shape, bool))
        star = measure_star(info, frames, guess, method=method)
        if star.origin != "measured":
            found.append(np.full(2, np.nan))
            continue
        found.append(np.asarray(star.yx) - at)
        stated.append((star.y_err, star.x_err))
    return np.array(found), np.array(stated)


def main() -> None:
    """Print the table."""
    print(machine())
    for case in CASES:
        for method in (BY_SYMMETRY, BY_MODEL, AUTO):
            found, stated = errors_of(method, case)
            failed = np.isnan(found[:, 0])
            rms = np.sqrt(np.nanmean(found**2, axis=0))
            said = np.median(stated, axis=0)
            print(
                f"{case[0]:10s} {case[1]:7s} {method:9s} rms x {rms[1]:.3f}, y {rms[0]:.3f}; "
                f"stated {said[1]:.3f}, {said[0]:.3f}; {failed.sum()} of {N} not measured",
                flush=True,
            )


if __name__ == "__main__":
    main()

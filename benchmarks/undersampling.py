"""Bias of the shifts of undersampled images: the plain fit, and ours below the clean frequencies.

Noiseless images of a star behind the mask, drawn at true positions; star and mask move together.
"""

import numpy as np

from lyot.algorithms import fourier, registration
from lyot.files.headers import ExposureInfo
from lyot.files.star import StarPosition
from lyot.instruments import NIRCAM
from lyot.references.shifts import low_pass_cutoff
from lyot.references.weights import builtin_weight

SHAPE, CENTER = (112, 112), 55.5
SHIFTS = np.array([(0.1, 0.25), (0.25, -0.4), (-0.35, 0.15), (0.5, 0.5), (0.05, 0.02)])
CASES = (
    ("F182M", 0.0307, "MASK210R"),
    ("F250M", 0.063, "MASK335R"),
    ("F277W", 0.063, "MASK335R"),
    ("F335M", 0.063, "MASK335R"),
)


def worst(target: np.ndarray, refs: list[np.ndarray], weight: np.ndarray, cutoff: float | None):
    """Return the largest bias of the shifts that are found [pixel]."""
    found = []
    for ref, true in zip(refs, SHIFTS, strict=True):
        pair = fourier.spectrum(np.stack([target, ref]))
        if cutoff is not None:
            pair = fourier.low_pass(pair, shape=SHAPE, cutoff=cutoff)
        image = fourier.shift(pair[0], np.zeros(2), shape=SHAPE)
        one = np.ones(SHAPE)
        fit = registration.refine(image, weight, one, pair[1:], one[None], 0.8 * true[None])
        found.append(fit.shift_yx[0] - true)
    return np.abs(found).max()


def main() -> None:
    """Print the table."""
    print("filter  scale [mas]  FWHM [pixel]  plain fit [pixel]  low-passed [pixel]")
    for name, scale, mask in CASES:
        optics = NIRCAM.optics(mask, name, pixel_scale_arcsec=scale, n_wavelengths=1, seed=1)
        images = [
            optics.frame((0.0, 0.0), (CENTER - d[1], CENTER - d[0]), SHAPE)
            for d in (np.zeros(2), *SHIFTS)
        ]
        info = ExposureInfo(
            "x",
            (1, *SHAPE),
            instrument="NIRCAM",
            filter=name,
            pixel_area_sr=(scale / 206264.8) ** 2,
        )
        weight = builtin_weight(info, StarPosition(CENTER, CENTER))
        bias = [worst(images[0], images[1:], weight, c) for c in (None, low_pass_cutoff(info))]
        print(
            f"{name:7s} {1000 * scale:11.1f} {1.03 * info.lambda_over_d_pix:13.2f} "
            f"{bias[0]:18.4f} {bias[1]:19.5f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

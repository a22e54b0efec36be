"""How long a PSF takes: the first of a mode, the next ones, and those of the analysis.

The floor is what NumPy needs for textbook propagation of as many wavelengths on the same samples:
three matrix Fourier transforms, and two transforms of a pupil padded eight times with one more to
the image. ``stpsf`` and ``webbpsf_ext`` need data that no package index holds, and are not run.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from common import best_of, machine
from lyot.instruments import INSTRUMENTS
from lyot.instruments.near_mask import NearMask
from lyot.instruments.pupil import sample_grid
from lyot.instruments.telescope import ARCSEC_PER_RADIAN

N_PIXELS, STAMP_PIX, OVERSAMPLE = 65, 49, 3
MAX_FIRST_S, MAX_NEXT_S = 1.0, 0.02
FIRST = """
import json, sys, time
from lyot.instruments import INSTRUMENTS
from lyot.instruments.transmission import Transmission
instrument, mask, band = sys.argv[1:]
start = time.perf_counter()
optics = INSTRUMENTS[instrument].optics(mask, band)
made = optics.psf((0.6, 0.4))
psf = time.perf_counter() - start
scale = optics.detector.pixel_scale_arcsec[0]
table = Transmission(optics=optics, pixel_scale_arcsec=scale, origin="")
table.at(9.0, 6.0, mask_yx=(0.0, 0.0))
print(json.dumps([psf, time.perf_counter() - start]))
"""


def modes():
    """Yield the instrument and the names of mask and filter of every mode."""
    for instrument in INSTRUMENTS.values():
        for mask in instrument.coronagraphs:
            channels = {each.channel for each in mask.apertures}
            number = mask.name.rpartition("_")[2]
            for band in instrument.filters:
                # Behind a phase mask or spot its own filter, whose number it has.
                fits = number in band.name if "_" in mask.name else band.channel in channels
                if fits:
                    yield instrument, mask.name, band.name


def places(optics):
    """Return places within 1.5 arcsec of the mask's middle, none of them twice."""
    rng = np.random.default_rng(1)
    return [tuple(optics.along_detector(tuple(p))) for p in rng.uniform(-1.5, 1.5, (12, 2))]


def mean_time(function, items):
    """Return the mean time of calls with different arguments [s]."""
    start = time.perf_counter()
    for item in items:
        function(item)
    return (time.perf_counter() - start) / len(items)


def floors(optics):
    """Return the times of textbook propagation by matrix transforms and by padded FFTs [s]."""
    band, n = optics.with_enough_wavelengths(N_PIXELS).band, optics.n_pupil
    x, _, step = sample_grid(n, optics.pupil.width_m)
    pupil, stop = optics.pupil.amplitude(n), optics.stop.amplitude(optics.pupil, n)
    n_image = 2 * (N_PIXELS + 6)
    at_image = (np.arange(n_image) - 0.5 * n_image) * 0.5 * optics.detector.pixel_scale_arcsec[0]

    def kernel(wavelength, at):
        return np.exp(-2j * np.pi / wavelength / ARCSEC_PER_RADIAN * np.outer(at, x[0]))

    waves = []
    for wavelength in band.wavelengths_m:
        at_mask = (np.arange(n) - 0.5 * n) * 0.5 * wavelength / step / n * ARCSEC_PER_RADIAN
        mask = optics.mask.amplitude(at_mask[None, :], at_mask[:, None])
        waves.append((kernel(wavelength, at_mask), kernel(wavelength, at_image), mask))

    def by_matrices():
        image = 0.0
        for there, to_image, mask in waves:
            back = there.conj().T
            behind = stop * (back @ ((there @ pupil @ there.T) * mask) @ back.T)
            image = image + np.abs(to_image @ behind @ to_image.T) ** 2
        return image

    def by_fft():
        image = 0.0
        for _, to_image, _ in waves:
            at_mask = np.fft.fft2(pupil, (8 * n, 8 * n))
            behind = stop * np.fft.ifft2(at_mask)[:n, :n]
            image = image + np.abs(to_image @ behind @ to_image.T) ** 2
        return image

    return best_of(by_matrices), best_of(by_fft, 1)


def first(instrument, mask, band):
    """Return the times of a first PSF, and of it and the transmission, in a new process [s]."""
    call = [sys.executable, "-c", FIRST, instrument.name, mask, band]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def verdict(seconds, most):
    """Say whether a time is short enough."""
    return f"must {most:g} s: {'yes' if seconds < most else 'NO'}"


def main() -> None:
    """Print the times of each mask, in the filters in which they are longest."""
    print(machine())
    for _, of_mask in itertools.groupby(modes(), key=lambda mode: mode[1]):
        slowest = None
        for instrument, mask, band in of_mask:
            optics = instrument.optics(mask, band)
            optics.psf((0.6, 0.4), n_pixels=N_PIXELS)
            seconds = mean_time(optics.psf, places(optics))
            slowest = max(
                slowest or (0.0,), (seconds, band, optics, instrument), key=lambda s: s[0]
            )
        seconds, band, optics, instrument = slowest
        what = f"{optics.mask.name} {band}"
        print(f"{what:18s} further PSFs {1e3 * seconds:6.1f} ms   {verdict(seconds, MAX_NEXT_S)}")
        by_matrices, by_fft = floors(optics)
        print(
            f"{'':18s} NumPy, matrix transforms {1e3 * by_matrices:6.0f} ms   "
            f"{by_matrices / seconds:5.1f}x; padded FFTs {1e3 * by_fft:6.0f} ms   "
            f"{by_fft / seconds:5.1f}x"
        )
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LYOT_CACHE_DIR"] = folder
            alone, both = first(instrument, optics.mask.name, band)
            again = first(instrument, optics.mask.name, band)[1]
            print(
                f"{'':18s} first PSF {alone:6.2f} s   {verdict(alone, MAX_FIRST_S)}; "
                f"with all transmissions {both:.2f} s, from the cache {again:.2f} s"
            )
            near = [optics.along_mask(place) for place in places(optics)]
            times = []
            for _ in range(2):
                grid = NearMask(optics, STAMP_PIX // 2, OVERSAMPLE)
                times += [mean_time(grid.image, near), mean_time(grid.image, near)]
            computed, held, read, _ = (1e3 * t for t in times)
            print(
                f"{'':18s} in the analysis {computed:.1f} ms, again {held:.2f} ms, "
                f"from the cache {read:.1f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()

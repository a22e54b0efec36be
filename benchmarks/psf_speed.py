"""How long a PSF takes: the first of a mode, the next ones, and those of the analysis.

The floor is what NumPy needs for textbook propagation of as many wavelengths on the same samples:
three matrix Fourier transforms, and two transforms of a pupil padded eight times with one more to
the image. Both are compared in processor time, which other work on the machine changes least.
``stpsf`` and ``webbpsf_ext`` need data that no package index holds, and are not run.
"""

import itertools
import os
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from common import machine, run_peer
from lyot.compute.threads import single_threaded_blas
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
start, processor = time.perf_counter(), time.process_time()
optics = INSTRUMENTS[instrument].optics(mask, band)
made = optics.psf((0.6, 0.4))
psf = time.perf_counter() - start
Transmission(optics=optics, origin="").at(9.0, 6.0, mask_yx=(0.0, 0.0))
print(json.dumps([psf, time.perf_counter() - start, time.process_time() - processor]))
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
    return [optics.mask.along_detector(*p) for p in rng.uniform(-1.5, 1.5, (12, 2))]


class Seconds(NamedTuple):
    """Time by the clock and of the processor."""

    wall: float
    cpu: float


def mean_time(function, items):
    """Return the mean times of calls with different arguments."""
    wall, cpu = time.perf_counter(), time.process_time()
    for item in items:
        function(item)
    n = len(items)
    return Seconds((time.perf_counter() - wall) / n, (time.process_time() - cpu) / n)


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

    with single_threaded_blas():
        return [mean_time(lambda _, f=f: f(), range(2)).cpu for f in (by_matrices, by_fft)]


def first(instrument, mask, band):
    """Return the times of a first PSF, and of it and the transmission by both clocks [s]."""
    return run_peer(sys.executable, FIRST, instrument.name, mask, band)


def verdict(seconds, most):
    """Say whether a time is short enough."""
    return f"must {most:g} s: {'yes' if seconds < most else 'NO'}"


def of_analysis(optics):
    """Return the times of images near the mask: computed, in memory, and read from the cache."""
    near = [optics.mask.along_axes(*place) for place in places(optics)]
    grid, next_process = (NearMask(optics, STAMP_PIX // 2, OVERSAMPLE) for _ in range(2))
    grid.image(optics.mask.along_axes(0.7, 0.1))  # the first of the mode
    return [mean_time(each.image, near) for each in (grid, grid, next_process)]


def report(instrument, optics, band, seconds):
    """Print the times of one mode."""
    print(
        f"{optics.mask.name + ' ' + band:18s} further PSFs {1e3 * seconds.wall:.1f} ms, processor "
        f"{1e3 * seconds.cpu:.1f} ms   {verdict(seconds.wall, MAX_NEXT_S)}"
    )
    for name, floor in zip(("matrix transforms", "padded FFTs"), floors(optics), strict=True):
        print(f"{'':18s} NumPy, {name}: {1e3 * floor:.0f} ms, {floor / seconds.cpu:.1f}x")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LYOT_CACHE_DIR"] = folder
        alone, both, cpu = first(instrument, optics.mask.name, band)
        again = first(instrument, optics.mask.name, band)[1]
        computed, held, read = of_analysis(optics)
    print(
        f"{'':18s} first PSF {alone:.2f} s   {verdict(alone, MAX_FIRST_S)}; with the table of the "
        f"transmission {both:.2f} s, processor {cpu:.2f} s, from the cache {again:.2f} s"
    )
    print(
        f"{'':18s} in the analysis {1e3 * computed.wall:.1f} ms, processor "
        f"{1e3 * computed.cpu:.1f} ms   {verdict(computed.wall, MAX_NEXT_S)}; again "
        f"{1e3 * held.wall:.2f} ms, from the cache {1e3 * read.wall:.1f} ms",
        flush=True,
    )


def main() -> None:
    """Print the times of each mask, in the filter in which they are longest."""
    print(machine())
    for _, of_mask in itertools.groupby(modes(), key=lambda mode: mode[1]):
        timed = []
        for instrument, mask, band in of_mask:
            optics = instrument.optics(mask, band)
            optics.psf((0.6, 0.4), n_pixels=N_PIXELS)
            timed.append((instrument, optics, band, mean_time(optics.psf, places(optics))))
        report(*max(timed, key=lambda each: each[-1].cpu))


if __name__ == "__main__":
    main()

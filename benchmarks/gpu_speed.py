"""align_refs and klip on a GPU, against all threads of the same computer's processor.

`python benchmarks/gpu_speed.py cuda 60x200 120x540` takes the device, and how many science
integrations and references there are.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from common import cube_of, machine, pointings, speckled
from lyot.algorithms import fourier
from lyot.algorithms.geometry import TangentPlane
from lyot.compute import threads
from lyot.compute.devices import NUMPY, Device, device
from lyot.files.aligned import AlignedFrames
from lyot.files.exposure import Cube
from lyot.parameters import FIRST_INTEGRATION, AlignRecipe, SubtractRecipe
from lyot.references.aligner import Aligner
from lyot.references.prepare import PreparedRefs, prepare_refs
from lyot.subtraction.result import Subtraction
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones

SHAPE, N_MODES, FEW_SECONDS = (320, 320), 50, 5.0
EACH, FIRST = AlignRecipe(), AlignRecipe(align_to=FIRST_INTEGRATION)


class Frames:
    """References that are in memory when they are asked for, some kept; and how long it took."""

    def __init__(self, aligner: Aligner) -> None:
        self.aligner, self.shared, self.star = aligner, aligner.shared, aligner.star
        self.ref_info, self.seconds, self.kept = aligner.ref_info, 0.0, {}

    def frames(self, i: int) -> AlignedFrames:
        """Return those of one integration."""
        start = time.perf_counter()
        frames = self.aligner.frames(i)
        _ = frames.sci, frames.variance
        self.seconds += time.perf_counter() - start
        if i in (0, self.aligner.n_sets - 1):
            self.kept[i] = frames.sci.copy()
        return frames


class Case(NamedTuple):
    """An observation in memory."""

    target: Cube
    refs: PreparedRefs
    star_xy: tuple[float, float]

    def aligner(self, recipe: AlignRecipe, there: Device) -> Aligner:
        """Return its references, to be aligned on a device."""
        return Aligner(self.target, self.refs, recipe, star_xy=self.star_xy, device=there)

    def align(self, recipe: AlignRecipe, there: Device) -> Frames:
        """Align all references, and take the frames to NumPy."""
        aligned = Frames(self.aligner(recipe, there))
        for i in range(aligned.aligner.n_sets):
            aligned.frames(i)
        return aligned

    def klip(self, refs: Any, there: Device) -> Any:
        """Subtract references."""
        recipe = SubtractRecipe(n_modes=(N_MODES,))
        plane = TangentPlane.linear(self.star_xy[::-1], 0.0, 0.063)
        zones = make_zones(recipe, SHAPE, plane)
        [result] = subtract(self.target, refs, zones, recipe, device=there)
        return result


def case(n_science: int, n_refs: int) -> Case:
    """Draw a star that drifts by 0.03 pixel, and dithered references, with bad pixels of their own.

    0.3 % of the pixels are bad in all frames, and 20 more in each.
    """
    shifts = np.concatenate([pointings((n_science,), 0.03), pointings((1,) * n_refs, 0.0)])
    views, star_xy = speckled(np.zeros((8, 2)), SHAPE)
    spectra = fourier.spectrum(views)

    def draw(k: int) -> np.ndarray:
        rng = np.random.default_rng(k)
        mix = np.tensordot(rng.dirichlet(np.ones(8)), spectra, 1)
        clean = fourier.shift(mix, shifts[k], shape=SHAPE)
        noise = np.sqrt(np.maximum(clean, 0) * 0.05 + 0.36)
        return (clean + rng.normal(size=SHAPE) * noise).astype(np.float32)

    images = np.stack(threads.map_ordered(draw, range(len(shifts))))
    rng = np.random.default_rng(1)
    bad = np.tile(rng.random(SHAPE) < 0.003, (len(images), 1, 1))
    for plane in bad:
        plane.ravel()[rng.integers(0, plane.size, 20)] = True

    def cube(rows: slice) -> Cube:
        exposure = cube_of(images[rows], crpix_xy=star_xy)
        err = np.sqrt(np.maximum(images[rows], 0) * 0.05 + 0.36)
        return replace(exposure, err=err, dq=bad[rows].astype(np.uint32))

    refs = prepare_refs(cube(slice(n_science, None)), EACH)
    return Case(cube(slice(n_science)), refs, star_xy)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the time [s], the median of three where it is short, and the result."""
    times = []
    while not times or (len(times) < 3 and times[0] < FEW_SECONDS):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def between_frames(a: Frames, b: Frames) -> str:
    """Say how far aligned references are from one another."""
    shift = np.abs(b.aligner.fits().shift_yx - a.aligner.fits().shift_yx).max()
    off = max(np.nanmax(np.abs(b.kept[i] - a.kept[i])) for i in a.kept)
    largest = max(np.nanmax(np.abs(frames)) for frames in a.kept.values())
    return f"shift {shift:.1e} pixel, frames {off / largest:.1e} of the largest"


def between_residuals(a: Subtraction, b: Subtraction) -> str:
    """Say how far residuals are from one another."""
    good = np.isfinite(a.sci)
    off = (np.abs(b.sci - a.sci)[good] / a.err[good]).max()
    return f"residual {off:.1e} of ERR, ERR {np.abs(b.err / a.err - 1.0)[good].max():.1e} of itself"


def report(there: Device, counts: str) -> None:
    """Print the times on the processor and on the device."""
    observed = case(*map(int, counts.split("x")))

    def line(what: str, here_s: float, there_s: float, difference: str) -> None:
        print(
            f"{counts:8s} {what:44s} {here_s:8.2f} s {there_s:8.2f} s {here_s / there_s:5.1f}x   "
            f"{difference}",
            flush=True,
        )

    first = {id(d): observed.align(FIRST, d) for d in (there, NUMPY)}  # and what loads at first
    work = {
        "align to the first integration": lambda d: observed.align(FIRST, d),
        "klip, references of the first integration": lambda d: observed.klip(
            first[id(d)].aligner, d
        ),
    }
    for what, function in work.items():
        function(there)
        (here_s, here), (there_s, other) = (
            timed(lambda d=d, f=function: f(d)) for d in (NUMPY, there)
        )
        between = between_frames if isinstance(here, Frames) else between_residuals
        line(what, here_s, there_s, between(here, other))
    there_align_s, other = timed(lambda: observed.align(EACH, there))
    there_s, result = timed(lambda: observed.klip(observed.aligner(EACH, there), there))
    # On the processor once, as it takes long: the alignment is timed within.
    start = time.perf_counter()
    here = Frames(observed.aligner(EACH, NUMPY))
    here.seconds += time.perf_counter() - start
    expected = observed.klip(here, NUMPY)
    here_s = time.perf_counter() - start
    line(
        "align all pairs, frames in memory",
        here.seconds,
        there_align_s,
        between_frames(here, other),
    )
    line("align all pairs, and klip", here_s, there_s, between_residuals(expected, result))


def main() -> None:
    """Print what was measured, and on what."""
    name, *cases = sys.argv[1:] or ["cuda", "60x200", "120x540"]
    print(f"{machine()}, NumPy {np.__version__}, {threads.n_threads()} threads", flush=True)
    if name == "cuda":
        import torch

        print(torch.cuda.get_device_name(), f"PyTorch {torch.__version__}", flush=True)
    print(f"{'':53s} processor        {name}", flush=True)
    for counts in cases:
        report(device(name), counts)
    if name == "cuda":
        print(f"most memory of the card in use: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


if __name__ == "__main__":
    main()

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
from lyot.files.exposure import Cube
from lyot.parameters import FIRST_INTEGRATION, AlignRecipe, SubtractRecipe
from lyot.references.aligner import Aligner
from lyot.references.prepare import PreparedRefs, prepare_refs
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones

SHAPE, N_MODES, FEW_SECONDS = (320, 320), 50, 5.0
EACH, FIRST = AlignRecipe(), AlignRecipe(align_to=FIRST_INTEGRATION)


class Case(NamedTuple):
    """An observation in memory."""

    target: Cube
    refs: PreparedRefs
    star_xy: tuple[float, float]

    def aligner(self, recipe: AlignRecipe, there: Device) -> Aligner:
        """Return its references, to be aligned on a device."""
        return Aligner(self.target, self.refs, recipe, star_xy=self.star_xy, device=there)

    def align(self, recipe: AlignRecipe, there: Device) -> Any:
        """Align all references, and take the frames to NumPy."""
        aligner, kept = self.aligner(recipe, there), []
        for i in range(aligner.n_sets):
            frames = aligner.frames(i)
            pair = (frames.sci, frames.variance)
            if i in (0, aligner.n_sets - 1):
                kept.append(pair)
        return aligner.fits().shift_yx, kept

    def klip(self, refs: Any, there: Device) -> Any:
        """Subtract references."""
        recipe = SubtractRecipe(n_modes=(N_MODES,))
        plane = TangentPlane.linear(self.star_xy[::-1], 0.0, 0.063)
        [result] = subtract(
            self.target, refs, make_zones(recipe, SHAPE, plane), recipe, device=there
        )
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


def difference(a: Any, b: Any) -> str:
    """Say how far results are from one another."""
    if hasattr(a, "err"):
        good = np.isfinite(a.sci)
        off = np.abs(b.sci - a.sci)[good] / a.err[good]
        err = np.abs(b.err / a.err - 1.0)[good]
        return f"residual {off.max():.1e} of ERR, ERR {err.max():.1e} of itself"
    (shift_a, kept_a), (shift_b, kept_b) = a, b
    off = [np.nanmax(np.abs(y[0] - x[0])) for x, y in zip(kept_a, kept_b, strict=True)]
    off = max(off) / max(np.nanmax(np.abs(x[0])) for x in kept_a)
    return f"shift {np.abs(shift_b - shift_a).max():.1e} pixel, frames {off:.1e} of the largest"


def report(name: str, there: Device, counts: str) -> None:
    """Print the times on the processor and on the device."""
    observed = case(*map(int, counts.split("x")))
    work = {
        "align all pairs, frames in memory": lambda d: observed.align(EACH, d),
        "align to the first integration, likewise": lambda d: observed.align(FIRST, d),
        "align all pairs, and klip": lambda d: observed.klip(observed.aligner(EACH, d), d),
        "align to the first integration, and klip": (
            lambda d: observed.klip(observed.aligner(FIRST, d), d)
        ),
    }
    shared = {id(d): observed.aligner(FIRST, d) for d in (NUMPY, there)}
    for aligner in shared.values():
        aligner.frames(0)
    work["klip alone, references aligned to the first"] = lambda d: observed.klip(shared[id(d)], d)
    for what, function in work.items():
        function(there)  # what is compiled or loaded at first
        (here_s, here), (there_s, other) = (
            timed(lambda d=d, f=function: f(d)) for d in (NUMPY, there)
        )
        print(
            f"{counts:8s} {what:46s} cpu {here_s:8.3f} s   {name} {there_s:8.3f} s   "
            f"{here_s / there_s:5.1f}x   {difference(here, other)}",
            flush=True,
        )


def main() -> None:
    """Print what was measured, and on what."""
    name, *cases = sys.argv[1:] or ["cuda", "60x200", "120x540"]
    print(machine(), f"NumPy {np.__version__}", flush=True)
    if name == "cuda":
        import torch

        print(torch.cuda.get_device_name(), f"PyTorch {torch.__version__}", flush=True)
    for counts in cases:
        report(name, device(name), counts)


if __name__ == "__main__":
    main()

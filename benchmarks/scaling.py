"""How the cost grows with references, integrations and pixels, and where a run spends it.

The power is the slope of log time between the two largest sizes; what is expected of large sizes
stands beside it. The shares are those of the profiler, on one thread.
"""

import cProfile
import os
import pstats
import tempfile
from dataclasses import dataclass

import numpy as np

from common import (
    align_all,
    aligned_of,
    best_of,
    cube_of,
    frames,
    machine,
    observation,
    pointings,
    speckled,
)
from lyot.algorithms.geometry import TangentPlane
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones


@dataclass(frozen=True)
class Size:
    """Numbers of integrations and references, and pixels along a side."""

    n_int: int = 20
    n_ref: int = 100
    side: int = 320


def klip_seconds(size: Size) -> float:
    """Time the subtraction with one set of references."""
    shape = (size.side, size.side)
    targets, refs = frames(size.n_int, size.n_ref, shape)
    recipe, star = SubtractRecipe(), StarPosition(size.side / 2, size.side / 2)
    target, aligned = cube_of(targets), aligned_of(refs)
    zones = make_zones(recipe, shape, TangentPlane.linear(star.yx, 0.0, 0.063))
    return best_of(lambda: subtract(target, aligned, zones, recipe), 2)


def align_seconds(size: Size) -> float:
    """Time the alignment of all pairs."""
    counts = np.concatenate([pointings((size.n_int,), 0.03), pointings((1,) * size.n_ref, 0.0)])
    images, star_xy = speckled(counts, (size.side, size.side))
    target, refs = cube_of(images[: size.n_int]), cube_of(images[size.n_int :])
    return best_of(lambda: align_all(target, refs, star_xy), 1)


CASES = (
    ("references", "n_ref", (50, 100, 200, 400), klip_seconds, "klip, 3-D", 2),
    ("integrations", "n_int", (20, 80, 320), klip_seconds, "klip, 3-D", 1),
    ("pixels", "side", (160, 320, 640), klip_seconds, "klip, 3-D", 1),
    ("references", "n_ref", (25, 50, 100), align_seconds, "align, all pairs", 1),
    ("integrations", "n_int", (5, 10, 20), align_seconds, "align, all pairs", 1),
    ("pixels", "side", (160, 320, 640), align_seconds, "align, all pairs", 1),
)


def main() -> None:
    """Print the growth and the shares."""
    print(machine())
    for what, name, values, seconds, label, expected in CASES:
        base = {"n_int": 10, "n_ref": 50} if seconds is align_seconds else {}
        times = [seconds(Size(**{**base, name: value})) for value in values]
        sizes = [value**2 if name == "side" else value for value in values]
        power = np.log(times[-1] / times[-2]) / np.log(sizes[-1] / sizes[-2])
        row = ", ".join(f"{value}: {t:.2f} s" for value, t in zip(values, times, strict=True))
        print(f"{label:18s} {what:13s} {row}   power {power:.2f}, expected {expected}", flush=True)
    for align_to in ("first", "all"):
        shares(align_to)


def shares(align_to: str) -> None:
    """Print where a run of 20 + 40 frames spends its time."""
    os.environ["LYOT_THREADS"] = "1"
    from click.testing import CliRunner

    from lyot.cli import main as lyot

    association = observation("run20", (10, 10), (10,) * 4)
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory(dir=association.parent) as folder:
        arguments = ["run", str(association), "-o", folder, "--align-to", align_to, "--no-report"]
        profile.enable()
        CliRunner().invoke(lyot, arguments, catch_exceptions=False)
        profile.disable()
    spent = {"files and models": 0.0, "FFT": 0.0, "GEMM": 0.0, "lyot's array arithmetic": 0.0}
    spent["drizzle"] = spent["other Python"] = 0.0
    for (path, _, function), (_, _, own, _, _) in pstats.Stats(profile).stats.items():
        spent[_kind(path, function)] += own
    total = sum(spent.values())
    row = ", ".join(f"{name} {100 * t / total:.0f} %" for name, t in spent.items())
    print(f"shares, align_to = {align_to} ({total:.1f} s profiled, imports included): {row}")


def _kind(path: str, function: str) -> str:
    """Sort a function of the profile."""
    if "pocketfft" in path:
        return "FFT"
    if "matmul" in function or "eigh" in function or "dot" in function:
        return "GEMM"
    if "tdriz" in function:
        return "drizzle"
    io = ("asdf", "astropy/io", "stdatamodels", "yaml", "jsonschema", "gwcs", "files/products")
    if any(part in path for part in io) or any(w in function for w in ("tofile", "read", "write")):
        return "files and models"
    return "lyot's array arithmetic" if "/lyot/" in path else "other Python"


if __name__ == "__main__":
    main()

"""How the cost grows with references, integrations, pixels and cores, and what a run spends it on.

The power is the slope of log time between the two largest sizes; what is expected of large sizes
stands beside it. Runs are whole processes, imports and report included; their shares are those of
`sampled.py`.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common import (
    align_all,
    aligned_of,
    best_of,
    cube_of,
    frames,
    in_turn,
    machine,
    observation,
    pointings,
    reduce,
    run_peer,
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

RUNS = {
    "references": {
        20: ((10, 10), (5,) * 4, 320),
        80: ((10, 10), (20,) * 4, 320),
        320: ((10, 10), (80,) * 4, 320),
    },
    "integrations": {
        10: ((5, 5), (10,) * 4, 320),
        40: ((20, 20), (10,) * 4, 320),
        160: ((80, 80), (10,) * 4, 320),
    },
    "pixels": {side: ((10, 10), (10,) * 4, side) for side in (160, 320, 640)},
}
"""Integrations of two science exposures and of four references, and the side of the frames."""
KINDS = ("imports", "files", "arithmetic", "FFT", "GEMM", "drizzle", "report", "other")


def main() -> None:
    """Print the growth and the shares."""
    print(machine())
    for what, name, values, seconds, label, expected in CASES:
        base = {"n_int": 10, "n_ref": 50} if seconds is align_seconds else {}
        times = [seconds(Size(**{**base, name: value})) for value in values]
        sizes = [value**2 if name == "side" else value for value in values]
        row = ", ".join(f"{value}: {t:.2f} s" for value, t in zip(values, times, strict=True))
        print(
            f"{label:18s} {what:13s} {row}   power {power(times, sizes):.2f}, expected {expected}",
            flush=True,
        )
    for name, counts in RUNS.items():
        grow_whole(name, counts)
    association = observation("run20", (10, 10), (10,) * 4)
    for align_to in ("first", "all"):
        cores(association, align_to)
    for align_to in ("first", "all"):
        shares(association, align_to)


def power(times: list[float], sizes: list[float]) -> float:
    """Return the slope of log time between the two largest sizes."""
    return float(np.log(times[-1] / times[-2]) / np.log(sizes[-1] / sizes[-2]))


def grow_whole(what: str, cases: dict[int, tuple[tuple[int, ...], tuple[int, ...], int]]) -> None:
    """Print how whole processes of `lyot run` grow, aligned to the first integration."""
    times = []
    for value, (n_science, n_refs, side) in cases.items():
        association = observation(f"grow-{what}-{value}", n_science, n_refs, side)
        runs = in_turn(3, partial(reduce, association, "first"))
        times.append(runs[0].seconds)
    sizes = [value**2 if what == "pixels" else value for value in cases]
    row = ", ".join(f"{value}: {t:.2f} s" for value, t in zip(cases, times, strict=True))
    print(f"{'lyot run':18s} {what:13s} {row}   power {power(times, sizes):.2f}", flush=True)


def cores(association: Path, align_to: str) -> None:
    """Print whole processes on one thread and on two, and what Amdahl's law makes of 16."""
    one, two = in_turn(3, *(partial(reduce, association, align_to, n_threads=n) for n in (1, 2)))
    serial = min(max(2.0 * two.seconds / one.seconds - 1.0, 0.0), 1.0)
    sixteen = one.seconds * (serial + (1.0 - serial) / 16.0)
    print(
        f"lyot run, align_to = {align_to}: {one.seconds:.2f} s on one thread, {two.seconds:.2f} s "
        f"on two (processor {one.cpu_seconds:.2f} and {two.cpu_seconds:.2f} s); by Amdahl's law "
        f"{100 * serial:.0f} % in sequence, {sixteen:.2f} s on 16",
        flush=True,
    )


def shares(association: Path, align_to: str) -> None:
    """Print what the processor's time of a run goes into, on one thread."""
    script = (Path(__file__).parent / "sampled.py").read_text()
    folder = association.parent / "ours"
    options = ("-o", str(folder), "--align-to", align_to, "-q", "--rerun")
    rounds = [run_peer(sys.executable, script, "run", str(association), *options) for _ in range(3)]
    spent = {kind: float(np.median([each.get(kind, 0.0) for each in rounds])) for kind in KINDS}
    total = sum(spent.values())
    row = ", ".join(f"{kind} {100 * t / total:.0f} %" for kind, t in spent.items())
    print(f"shares of a run, align_to = {align_to} ({total:.1f} s of processor time): {row}")


if __name__ == "__main__":
    main()

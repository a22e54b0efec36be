"""Not speed against a peer: what a reference library costs against its size.

Builds a library of 2,000 synthetic references of 224 x 288 pixels by `lyot library add`, exposure
by exposure, and reduces an observation with it at several sizes on the way.
"""

import json
import shutil
import time
from pathlib import Path

import numpy as np

from common import SCRATCH, machine, pointings, reduce, speckled, write_exposure
from lyot.files.exposure import read_cube
from lyot.files.library_store import Library
from lyot.parameters import LibraryRecipe
from lyot.references import library as libraries
from lyot.simulate.exposure_model import Pointing

SHAPE, N_INT = (224, 288), 20
SIZES = (240, 500, 1000, 2000)
ALL_UP_TO = 500
"""Libraries of which a run takes all frames at once, too."""


def exposure(folder: Path, number: int, target: str, *, is_psf: bool, n_int: int = N_INT) -> Path:
    """Write one exposure of speckles of its own star."""
    images, center = speckled(pointings((n_int,), 0.03, seed=number), SHAPE, seed=7)
    rng = np.random.default_rng(number)
    data = images * rng.uniform(0.5, 2.0)
    pointing = Pointing(
        target=target,
        radec_deg=(150.0, -25.0),
        crpix_xy=center,
        roll_ref_deg=60.0 + 10.0 * (number % 2),
        is_psf=is_psf,
        number=number,
    )
    path = folder / f"jw07777{number:03d}001_03102_00001_nrcalong_calints.fits"
    write_exposure(path, data, pointing)
    return path


def main() -> None:
    """Print one line per size."""
    print(machine())
    folder = SCRATCH / "library"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    science = [exposure(folder, 900 + k, "T", is_psf=False, n_int=10) for k in range(2)]
    members = [{"expname": p.name, "exptype": "science"} for p in science]
    association = folder / "bench_asn.json"
    association.write_text(
        json.dumps({"asn_id": "a3001", "products": [{"name": "bench", "members": members}]})
    )
    path, spent, number = folder / "lib", 0.0, 0
    for size in SIZES:
        while number * N_INT < size:
            number += 1
            file = exposure(folder, number, f"STAR{number}", is_psf=True)
            if number == 1:
                libraries.build(path, [file])
            start = time.perf_counter()
            libraries.add(Library(path), [file])
            spent += time.perf_counter() - start
            file.unlink()
        library = Library(path)
        disk = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / 1e6
        target = read_cube(science[0])
        times = []
        for by in ("correlation", "residual"):
            start = time.perf_counter()
            libraries.select(library, target, LibraryRecipe(by=by))
            times.append(time.perf_counter() - start)
        start = time.perf_counter()
        off = libraries.check(library)
        again = time.perf_counter() - start
        print(
            f"{len(library):5d} frames: {disk:6.0f} MB, {1e3 * spent / len(library):.0f} ms to add "
            f"one, {times[0]:.2f} s to choose 200 by correlation, {times[1]:.2f} s by residual, "
            f"{again:.1f} s to check all products (off by {off:.0e})",
            flush=True,
        )
        for n, align_to in ((200, "all"), (200, "first"), (0, "first")):
            if n == 0 and size > ALL_UP_TO:
                continue
            made = reduce(association, align_to, "--library", path, "--library-n", str(n))
            print(
                f"      run with {n or len(library):4d} of them, align_to = {align_to:5s} "
                f"{made.seconds:6.1f} s, {made.peak_mb:5.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()

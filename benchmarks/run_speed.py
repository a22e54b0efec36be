"""What a user waits for: whole processes from start to end, imports and report included.

Ours and the official pipeline's run in turn on the same files, ``BENCH_ROUNDS`` times (3);
``BENCH_SMALL=1`` leaves the observation of 60 + 200 frames out, whose product takes 15 GB.
"""

import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from common import (
    Process,
    in_turn,
    line,
    lyot,
    machine,
    observation,
    peer_python,
    process_of,
    reduce,
)

ROUNDS, SMALL = int(os.environ.get("BENCH_ROUNDS", "3")), os.environ.get("BENCH_SMALL") == "1"
JWST = """
import logging, os, sys
logging.disable(logging.CRITICAL)
import numpy as np
from stpipe import crds_client
crds_client.get_multiple_reference_paths = lambda *a, **k: {}
crds_client.get_context_used = lambda *a, **k: ""
crds_client.get_svn_version = lambda *a, **k: ""
from jwst.pipeline import Coron3Pipeline
from stdatamodels.jwst import datamodels
folder = sys.argv[2]; os.makedirs(folder, exist_ok=True)
y, x = np.ogrid[:320, :320]; r = np.hypot(y - 174, x - 150)
mask = os.path.join(folder, "psfmask.fits")
datamodels.PsfMaskModel(((r > 8) & (r < 48)).astype(np.float32)).save(mask)
Coron3Pipeline.call(sys.argv[1], output_dir=folder, save_results=True,
                    steps={"align_refs": {"override_psfmask": mask}})
"""
READING = """
import sys
import numpy as np
import lyot.cli, lyot.outputs
from lyot.analysis.observation import open_run
from lyot.files.run import open_products
with open_products(sys.argv[1]) as (_, exposures):
    for each in exposures:
        for i in range(1 if each.aligned.shared else len(each.target.sci)):
            np.array(each.aligned.planes(i), np.float64)
"""


def plain_writer(path: Path, n_bytes: int) -> float:
    """Return the time in which the disk takes so many bytes from a plain writer [s]."""
    block = np.random.default_rng(0).random(2**23).data
    start = time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(n_bytes // block.nbytes):
            file.write(block)
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def verdict(what: str, value: float, must: float, unit: str) -> None:
    """Print a figure that must not be larger than another."""
    answer = "yes" if value <= must else "NO"
    print(f"{what:55s} {value:8.2f} {unit}   must {must:g}: {answer}", flush=True)


def official(association: Path) -> Process:
    """Reduce it by the official pipeline."""
    folder = association.parent / "jwst"
    shutil.rmtree(folder, ignore_errors=True)
    python = peer_python("jwst==3.0.0")
    return process_of([python, "-W", "ignore", "-c", JWST, association, folder])


def small() -> None:
    """Print the comparisons on 20 + 40 frames, and what follows a reduction."""
    association = observation("run20", (10, 10), (10,) * 4)
    first, theirs, everything = in_turn(
        ROUNDS,
        partial(reduce, association, "first"),
        partial(official, association),
        partial(reduce, association, "all"),
    )
    what = "lyot run, 20 + 40 frames, all products and report"
    line(f"{what}, 4-D", everything.seconds, theirs.seconds, "jwst", 7)
    line(f"{what}, first integration", first.seconds, theirs.seconds, "jwst", 9)
    print(f"    processor time over time: {everything.cpu_seconds / everything.seconds:.2f} (4-D)")
    folder = association.parent / "ours"
    star = ("--star-mag", "5.0")
    read, contrast = in_turn(
        ROUNDS,
        lambda: process_of([sys.executable, "-c", READING, folder]),
        lambda: lyot("contrast", folder, *star),
    )
    most = 1.5 * read.seconds
    verdict("lyot contrast on this run, default separations", contrast.seconds, most, "s")
    demo = association.parent.parent / "demo"
    if not demo.exists():
        lyot("demo", "-o", demo)
    [made] = demo.glob("exposures/*_asn.json")
    [reduced] = in_turn(ROUNDS, partial(reduce, made, "all"))
    verdict("lyot demo, the reduction", reduced.seconds, 3.0, "s")


def large() -> None:
    """Print the comparisons on 60 + 200 frames, once each."""
    association = observation("run60", (30, 30), (50,) * 4)
    theirs, first = official(association), reduce(association, "first")
    what = "lyot run, 60 + 200 frames"
    line(f"{what}, first integration", first.seconds, theirs.seconds, "jwst", 15)
    everything = reduce(association, "all")
    folder = association.parent / "ours"
    n_bytes = sum(each.stat().st_size for each in folder.iterdir())
    shutil.rmtree(folder)
    plain = plain_writer(association.parent / "plain", n_bytes)
    verdict(f"{what}, 4-D, {n_bytes / 1e9:.1f} GB", everything.seconds, 1.3 * plain, "s")
    verdict(f"{what}, 4-D, peak memory", everything.peak_mb, 1200.0, "MB")


def main() -> None:
    """Print the comparisons."""
    print(machine())
    small()
    if not SMALL:
        large()


if __name__ == "__main__":
    main()

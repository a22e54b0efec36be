"""klip against jwst 3.0.0, a NumPy floor and VIP."""

import sys
import tempfile
from pathlib import Path

import numpy as np

from common import (
    aligned_of,
    best_of,
    cube_of,
    frames,
    line,
    machine,
    observation,
    peer_python,
    pointings,
    run_peer,
    speckled,
)
from lyot.algorithms.zones import full_frame
from lyot.files.aligned import AlignedArrays
from lyot.parameters import SubtractRecipe
from lyot.subtraction.subtract import subtract

JWST = """
import json, sys, time
import numpy as np
from jwst.coron.klip import klip
from stdatamodels.jwst import datamodels
data = np.load(sys.argv[1])
target = datamodels.CubeModel(data["targets"]); target.err = np.ones_like(data["targets"])
refs = datamodels.CubeModel(data["refs"])
start = time.perf_counter()
klip(target, refs, 50, return_psf=False)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
STEP = """
import json, logging, sys, time
logging.disable(logging.CRITICAL)
import numpy as np
from stdatamodels.jwst import datamodels
{importing}
data = np.load(sys.argv[1])
target = datamodels.CubeModel(sys.argv[2])
target.data, target.err = data["targets"], np.ones_like(data["targets"])
target.dq = np.zeros(target.data.shape, np.uint32)
refs = datamodels.CubeModel(data["refs"]); refs.err = np.ones_like(data["refs"])
refs.dq = np.zeros(refs.data.shape, np.uint32)
def run():
    given = target.copy()
    start = time.perf_counter()
    KlipStep.call(given, refs, truncate=50)
    return time.perf_counter() - start
print(json.dumps({{"seconds": min(run() for _ in range({times}))}}))
"""
OFFICIAL = """
from stpipe import crds_client
crds_client.get_multiple_reference_paths = lambda *a, **k: {}
crds_client.get_context_used = lambda *a, **k: ""
from jwst.coron import KlipStep
"""
VIP = """
import json, sys, time
import numpy as np
from vip_hci.psfsub import pca
data = np.load(sys.argv[1])
t, r = data["targets"].astype("float64"), data["refs"].astype("float64")
n = len(t)
def run():
    pca(t, np.zeros(n), cube_ref=r, ncomp=50, svd_mode="eigen", scaling="temp-mean",
        verbose=False, full_output=True)
start = time.perf_counter(); run()
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


class Each:
    """A 4-D psfalign: the same references for each integration, but asked for one by one."""

    shared, star, ref_info = False, None, None

    def __init__(self, refs: AlignedArrays) -> None:
        self.frames = refs.frames


def floor(targets: np.ndarray, refs: np.ndarray, truncations: tuple[int, ...]) -> None:
    """Do KLIP in the fewest lines of NumPy: Gram matrix, decomposition, T - C R; no errors."""
    t, r = (a.reshape(len(a), -1).astype(np.float64) for a in (targets, refs))
    t -= t.mean(axis=1, keepdims=True)
    r -= r.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(r @ r.T)
    cross = t @ r.T
    for n in truncations:
        kept = vectors[:, -n:]
        coefs = cross @ (kept / values[-n:]) @ kept.T
        (t - coefs @ r).astype(np.float32)


def step(python: str, path: Path) -> None:
    """Print the comparison of the whole step on models in memory, the star measured by ours."""
    exposure = min(observation("run20", (10, 10), (10,) * 4).parent.glob("*_calints.fits"))
    images, _ = speckled(pointings((20, 100), 0.02), (320, 320))
    np.savez(path, targets=images[:20], refs=images[20:])
    ours = "from lyot.steps import KlipStep; from lyot.compute import process; process.own()"
    seconds = [
        run_peer(each, STEP.format(importing=code, times=n), str(path), str(exposure))["seconds"]
        for each, code, n in ((sys.executable, ours, 5), (python, OFFICIAL, 2))
    ]
    line("KlipStep.call 20 x 100, models in memory, no star given", *seconds, "jwst", 30)


def main() -> None:
    """Print the comparisons."""
    print(machine())
    jwst = peer_python("jwst==3.0.0")
    targets, refs = frames(20, 100, (320, 320))
    target, shared = cube_of(targets), aligned_of(refs)
    zones, recipe = full_frame((320, 320)), SubtractRecipe(n_modes=(50,))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npz"
        np.savez(path, targets=targets, refs=refs)
        theirs = run_peer(jwst, JWST, str(path))["seconds"]
        ours = best_of(lambda: subtract(target, shared, zones, recipe), 5)
        line("klip 20 x 100, 320 x 320, K = 50, 3-D, with errors", ours, theirs, "jwst", 40)
        ours = best_of(lambda: subtract(target, Each(shared), zones, recipe), 2)
        line("the same with a 4-D psfalign", ours, theirs, "jwst 3-D", 5)
        step(jwst, path)
        targets, refs = frames(120, 540, (224, 288))
        target, shared = cube_of(targets), aligned_of(refs)
        zones = full_frame((224, 288))
        five = SubtractRecipe(n_modes=(5, 10, 20, 35, 50))
        ours = best_of(lambda: subtract(target, shared, zones, five), 2)
        lowest = best_of(lambda: floor(targets, refs, five.n_modes), 2)
        line(
            "klip 120 x 540, 224 x 288, errors, five truncations", ours, lowest, "NumPy floor", 0.5
        )
        vip = peer_python("vip_hci==2.1.1")
        np.savez(path, targets=targets, refs=refs)
        theirs = run_peer(vip, VIP, str(path))["seconds"]
        line("the same, VIP with one truncation and no errors", ours, theirs, "VIP eigen", 1)


if __name__ == "__main__":
    main()

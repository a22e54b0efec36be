"""The alignment of all pairs against jwst's, given the float64 input that it needs.

The targets drift by 0.1 pixel rms, the references are dithered by 0.3.
"""

import tempfile
from pathlib import Path

import numpy as np

from common import (
    align_all,
    best_of,
    cube_of,
    line,
    machine,
    peer_python,
    pointings,
    run_peer,
    speckled,
)

N_TARGET, N_REF, SHAPE = 20, 100, (320, 320)
JWST = """
import json, sys, time
import numpy as np
from jwst.coron.imageregistration import align_array
data = np.load(sys.argv[1])
target = data["targets"][0].astype("float64")
refs = data["refs"][:6].astype("float64")
start = time.perf_counter()
align_array(target, refs, data["weight"])
print(json.dumps({"seconds": (time.perf_counter() - start) / 6}))
"""


def main() -> None:
    """Print the comparison of the time for one pair; theirs is the mean of six."""
    print(machine())
    shifts = np.concatenate([pointings((N_TARGET,), 0.1), pointings((1,) * N_REF, 0.0)])
    images, (x0, y0) = speckled(shifts, SHAPE)
    target = cube_of(images[:N_TARGET], crpix_xy=(x0, y0))
    refs = cube_of(images[N_TARGET:], crpix_xy=(x0, y0))
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    r = np.hypot(y - y0, x - x0)
    weight = ((r > 8) & (r < 48)).astype(float)
    seconds = best_of(lambda: align_all(target, refs, (x0, y0)), 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npz"
        np.savez(path, targets=target.sci, refs=refs.sci, weight=weight)
        pair = run_peer(peer_python("jwst==3.0.0"), JWST, str(path))["seconds"]
    print(
        f"all pairs of {N_TARGET} x {N_REF}, {SHAPE[0]} x {SHAPE[1]}, with errors: {seconds:.2f} s"
    )
    line("align one pair, as a share of these", seconds / (N_TARGET * N_REF), pair, "jwst", 100)


if __name__ == "__main__":
    main()

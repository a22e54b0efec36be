"""Per-zone choice of references against pyKLIP's, which chooses from a PSF library in RDI mode.

Both subtract 60 integrations with 300 references in five annuli of four sectors, from 60 references
chosen anew for each integration (here for each sector too), with 20 modes of those. Theirs chooses
by a matrix of correlations over the whole frame, which it makes first; ours propagates errors.
"""

import tempfile
from pathlib import Path

import numpy as np

from common import aligned_of, best_of, cube_of, frames, line, machine, peer_python, run_peer
from lyot.algorithms.geometry import TangentPlane, radius_map
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones

SHAPE, STAR = (224, 288), StarPosition(144.0, 112.0)
PYKLIP = """
import json, os, sys, time
os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import pyklip.parallelized as parallel, pyklip.rdi as rdi
from pyklip.instruments.Instrument import GenericData
data = np.load(sys.argv[1])
t, r = data["targets"].astype("float64"), data["refs"].astype("float64")
n, m = len(t), len(r)
center = [[144.0, 112.0]] * n
names = [f"t{i}" for i in range(n)]
dataset = GenericData(t, center, IWA=0, parangs=np.zeros(n), wvs=np.ones(n), filenames=names)
everything = np.concatenate([t, r])
start = time.perf_counter()
library = rdi.PSFLibrary(everything, [144.0, 112.0], names + [f"r{k}" for k in range(m)],
                         compute_correlation=True)
library.prepare_library(dataset)
chosen = time.perf_counter() - start
parallel.klip_dataset(dataset, mode="RDI", psf_library=library, outputdir=sys.argv[2],
    fileprefix="x", annuli=5, subsections=4, numbasis=[20], maxnumbasis=60, numthreads=2,
    movement=0, verbose=False, time_collapse="mean")
print(json.dumps({"seconds": time.perf_counter() - start, "correlations": chosen}))
"""


def main() -> None:
    """Print the comparison."""
    print(machine())
    peer = peer_python("pyklip==2.10.1")
    targets, refs = frames(60, 300, SHAPE)
    corners = radius_map(SHAPE, STAR.yx) > 111.0  # pyKLIP leaves them out
    recipe = SubtractRecipe(
        n_modes=(20,),
        select="correlation",
        n_refs=60,
        zones="annuli",
        n_annuli=5,
        n_sectors=4,
        level_inner_arcsec=0.0,
    )
    target, aligned = cube_of(targets), aligned_of(refs)
    zones = make_zones(recipe, SHAPE, TangentPlane.linear(STAR.yx, 0.0, 0.063))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npz"
        cut = [np.where(corners, np.nan, a).astype(np.float32) for a in (targets, refs)]
        np.savez(path, targets=cut[0], refs=cut[1])
        theirs = run_peer(peer, PYKLIP, str(path), folder)
    ours = best_of(lambda: subtract(target, aligned, zones, recipe), 3)
    what = "60 x 300, 224 x 288, 20 zones, 60 chosen in each"
    line(what, ours, theirs["seconds"], "pyKLIP RDI", 20)
    line(
        "the same without its correlations",
        ours,
        theirs["seconds"] - theirs["correlations"],
        "pyKLIP RDI",
    )


if __name__ == "__main__":
    main()

"""Per-zone choice of references against pyKLIP's, which chooses from a PSF library in RDI mode.

Both subtract 20 integrations with 100 references in five annuli of four sectors, and choose the 30
most correlated references anew for each integration and sector, with 20 modes of those.
"""

import tempfile
from pathlib import Path

import numpy as np

from common import best_of, frames, line, machine, peer_python, run_peer
from klip_speed import inputs
from lyot.algorithms.geometry import radius_map
from lyot.models.star import StarPosition
from lyot.recipe import SubtractRecipe
from lyot.reduction.areas import make_zones
from lyot.reduction.subtract import subtract

SHAPE = (320, 320)
PYKLIP = """
import json, os, sys, time
os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import pyklip.parallelized as parallel, pyklip.rdi as rdi
from pyklip.instruments.Instrument import GenericData
data = np.load(sys.argv[1])
t, r = data["targets"].astype("float64"), data["refs"].astype("float64")
n, m = len(t), len(r)
centre = [[160.0, 160.0]] * n
names = [f"t{i}" for i in range(n)]
dataset = GenericData(t, centre, IWA=0, parangs=np.zeros(n), wvs=np.ones(n), filenames=names)
everything = np.concatenate([t, r])
library = rdi.PSFLibrary(everything, [160.0, 160.0], names + [f"r{k}" for k in range(m)],
                         compute_correlation=True)
library.prepare_library(dataset)
start = time.perf_counter()
parallel.klip_dataset(dataset, mode="RDI", psf_library=library, outputdir=sys.argv[2],
    fileprefix="x", annuli=5, subsections=4, numbasis=[20], maxnumbasis=30, numthreads=2,
    movement=0, verbose=False, time_collapse="mean")
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def main() -> None:
    """Print the comparison."""
    print(machine())
    peer = peer_python("pyklip==2.10.1")
    targets, refs = frames(20, 100, SHAPE)
    star = StarPosition(160.0, 160.0)
    corners = radius_map(SHAPE, star.yx) > 160.0  # pyKLIP leaves them out
    recipe = SubtractRecipe(
        n_modes=(20,),
        select="correlation",
        n_refs=30,
        zones="annuli",
        n_annuli=5,
        n_sectors=4,
        level_inner_arcsec=0.0,
    )
    target, aligned = inputs(targets, refs)
    zones = make_zones(recipe, SHAPE, star, 0.063)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npz"
        cut = [np.where(corners, np.nan, a).astype(np.float32) for a in (targets, refs)]
        np.savez(path, targets=cut[0], refs=cut[1])
        theirs = run_peer(peer, PYKLIP, str(path), folder)["seconds"]
    ours = best_of(lambda: subtract(target, aligned, zones, recipe), 3)
    line("20 x 100, 320 x 320, 20 zones, 30 chosen in each", ours, theirs, "pyKLIP RDI", 20)


if __name__ == "__main__":
    main()

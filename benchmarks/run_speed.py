"""`lyot run` against the official pipeline: observations of 20 + 40 and of 60 + 200 frames."""

from common import line, machine, observation, our_run, peer_python, run_peer

JWST = """
import json, logging, os, resource, sys, time
logging.disable(logging.CRITICAL)
import numpy as np
from stpipe import crds_client
crds_client.get_multiple_reference_paths = lambda *a, **k: {}
crds_client.get_context_used = lambda *a, **k: ""
crds_client.get_svn_version = lambda *a, **k: ""
start = time.perf_counter()
from jwst.pipeline import Coron3Pipeline
from stdatamodels.jwst import datamodels
imports = time.perf_counter() - start
folder = sys.argv[2]; os.makedirs(folder, exist_ok=True)
y, x = np.ogrid[:320, :320]; r = np.hypot(y - 174, x - 150)
mask = os.path.join(folder, "psfmask.fits")
datamodels.PsfMaskModel(((r > 8) & (r < 48)).astype(np.float32)).save(mask)
start = time.perf_counter()
Coron3Pipeline.call(sys.argv[1], output_dir=folder, save_results=True,
                    steps={"align_refs": {"override_psfmask": mask}})
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "imports": imports, "peak_mb": peak}))
"""


CASES = (
    ("run20", (10, 10), (10,) * 4, "20 + 40", "1 GB", (5, 3)),
    ("run60", (30, 30), (50,) * 4, "60 + 200", "15 GB", (8, None)),
)


def main() -> None:
    """Print the comparisons."""
    print(machine())
    for name, n_science, n_refs, what, size, (must_first, must_all) in CASES:
        association = observation(name, n_science, n_refs)
        theirs = run_peer(
            peer_python("jwst==3.0.0"), JWST, str(association), str(association.parent / "jwst")
        )
        for align_to, must, kind in (
            ("first", must_first, "3-D"),
            ("all", must_all, f"4-D, {size}"),
        ):
            ours = our_run(association, "--align-to", align_to)
            line(
                f"lyot run, {what} frames, {kind}", ours["seconds"], theirs["seconds"], "jwst", must
            )
            print(
                f"    imports {ours['imports']:.2f} s against {theirs['imports']:.2f} s, peak "
                f"{ours['peak_mb']:.0f} MB against {theirs['peak_mb']:.0f} MB"
            )


if __name__ == "__main__":
    main()

"""Injection, contrast curve, companion posterior and S/N map, against re-reducing, VIP and pyKLIP.

20 science integrations (two rolls of ten) and 100 references of 320 x 320.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import aligned_of, best_of, cube_of, line, machine, peer_python, run_peer, speckled
from lyot.analysis.brightness import star_brightness
from lyot.analysis.companion import fit_companions
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.detection import snr_map
from lyot.analysis.exposure import make_exposure
from lyot.analysis.observation import Observation, make_observation
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.psf import model_psf
from lyot.analysis.response import PointSource
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import Cube
from lyot.files.star import StarPosition
from lyot.instruments import NIRCAM
from lyot.parameters import SubtractRecipe

SHAPE, ROLLS, N_INT, N_REF = (320, 320), (30.0, 40.0), 10, 100
MODES = (5, 10, 20, 35, 50)
SEPARATIONS = np.geomspace(0.3, 8.0, 20)
VIP = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import numpy as np
from vip_hci.metrics import contrast_curve, snrmap
from vip_hci.psfsub import pca
data = np.load(sys.argv[1])
cube, refs, angles, psf = (data[k] for k in ("targets", "refs", "angles", "psf"))
fwhm, scale, flux = (float(data[k]) for k in ("fwhm", "scale", "flux"))
start = time.perf_counter()
contrast_curve(cube, angles, psf, fwhm, scale, flux, pca, nbranch=1, cube_ref=refs, ncomp=20,
               plot=False, verbose=False)
curve = time.perf_counter() - start
frame = pca(cube, angles, cube_ref=refs, ncomp=20, verbose=False)
start = time.perf_counter()
snrmap(frame, fwhm, plot=False, verbose=False, nproc=2)
print(json.dumps({"curve": curve, "snrmap": time.perf_counter() - start}))
"""
PYKLIP = """
import json, sys, tempfile, time, warnings
warnings.filterwarnings("ignore")
import numpy as np
import pyklip.parallelized as parallelized, pyklip.rdi as rdi
from pyklip.instruments.Instrument import GenericData
data = np.load(sys.argv[1])
cube, refs, angles = (data[k].astype(float) for k in ("targets", "refs", "angles"))
center = [float(v) for v in data["center"]]
n = len(cube)
everything = np.concatenate([cube, refs])
names = np.array([f"f{i}.fits" for i in range(len(everything))])
start = time.perf_counter()
dataset = GenericData(cube.copy(), np.array([center] * n), parangs=angles, wvs=np.ones(n),
                      filenames=names[:n])
library = rdi.PSFLibrary(everything, center, names, compute_correlation=True)
library.prepare_library(dataset)
parallelized.klip_dataset(dataset, mode="RDI", outputdir=tempfile.mkdtemp(), fileprefix="b",
                          annuli=1, subsections=1, numbasis=[5, 10, 20, 35, 50],
                          psf_library=library, numthreads=2, verbose=False, calibrate_flux=False)
print(json.dumps({"reduction": time.perf_counter() - start}))
"""


def observation() -> tuple[Observation, dict[str, np.ndarray], Cube, AlignedArrays]:
    """Make the reduction, and the same frames for the peers."""
    n = N_INT * len(ROLLS)
    images, (x0, y0) = speckled(np.zeros((n + N_REF, 2)), SHAPE)
    refs = images[n:]
    aligned = aligned_of(refs)
    recipe, star = SubtractRecipe(n_modes=MODES), StarPosition(x0, y0, 0.1, 0.1)
    exposures, first = [], None
    for number, roll in enumerate(ROLLS):
        sci = images[number * N_INT : (number + 1) * N_INT]
        cube = cube_of(sci, coronagraph="MASKA335R", roll_ref_deg=roll)
        first = first or cube
        exposures.append(make_exposure(cube, aligned, star, recipe, name=f"roll{number}"))
    star_jy = star_brightness(NIRCAM.filter("F444W"), magnitude=6.0)
    made = make_observation("bench", exposures, recipe, star=star_jy)
    psf = model_psf(NIRCAM, NIRCAM.coronagraph("MASK335R"), NIRCAM.filter("F444W"), 0.063)
    arrays = {
        "targets": images[:n],
        "refs": refs,
        "angles": np.repeat(ROLLS, N_INT),
        "psf": psf.stamp(0.0, 0.0),
        "fwhm": np.array(psf.fwhm_pix),
        "scale": np.array(0.063),
        "flux": np.array(made.star_flux),
        "center": np.array([x0, y0]),
    }
    return made, arrays, first, aligned


def main() -> None:
    """Print the comparisons."""
    print(machine())
    made, arrays, cube, aligned = observation()
    exposure = made.exposures[0]
    again = best_of(lambda: make_exposure(cube, aligned, exposure.star, made.recipe), 1)
    one = best_of(lambda: exposure.response.added(PointSource(made.psf, 25.0, 80.0), flux=10.0), 5)
    line("response to one source, one roll, five truncations", one, again, "subtracting again", 100)
    curve = best_of(lambda: contrast_curve(replace(made), separations_arcsec=SEPARATIONS), 1)
    as_theirs = made.of_modes(20)
    snr = best_of(lambda: snr_map(FluxMaps(as_theirs)), 2)
    bright = made.with_source(1.5, 60.0, 3e-5)
    start = time.perf_counter()
    fit = fit_companions(bright, [(1.5, 60.0)], n_likelihoods=10_000)
    seconds = time.perf_counter() - start
    verdict = "yes" if seconds < 60 else "NO"
    print(
        f"companion, {fit.n_likelihoods} likelihoods and 12 injections: {seconds:.1f} s   "
        f"must 60 s: {verdict}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npz"
        np.savez(path, **arrays)
        theirs = run_peer(peer_python("vip_hci==2.1.1", "opencv-python-headless"), VIP, str(path))
        line("S/N map of 320 x 320", snr, theirs["snrmap"], "VIP", 50)
        line(
            "contrast curve, 20 separations x 6 angles, 5 truncations",
            curve,
            theirs["curve"],
            "VIP, 1 branch, 1 truncation",
            50,
        )
        pyklip = run_peer(peer_python("pyklip==2.10.1"), PYKLIP, str(path))
        line(
            "the same",
            curve,
            pyklip["reduction"],
            "pyKLIP, 1 reduction, 5 truncations",
        )


if __name__ == "__main__":
    main()

"""How deep: the contrast at which half of the sources are found, against VIP and pyKLIP.

AU Mic in F444W (give the folder of the real data): two rolls, six references; the same frames,
sources, places and excluded disc for all. A source is put into the frames; each code subtracts them
and finds it by its own detection at five sigma of small samples. Theirs use the number of modes
that is best at each separation, and read S/N on the best pixel about the place: VIP its S/N in
apertures of one FWHM, pyKLIP that of the low-passed image over the scatter of an annulus, as in
their contrast curves. The image of the sources is that of another wavefront than that of the PSF.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from common import aligned_of, cube_of, machine, peer_python, run_peer
from lyot.analysis.brightness import star_brightness
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.detection import detect
from lyot.analysis.exposure import make_exposure
from lyot.analysis.noise import KnownDisc, KnownSource
from lyot.analysis.observation import Observation, make_observation
from lyot.analysis.psf import OffAxisPSF
from lyot.analysis.statistic import FIVE_SIGMA
from lyot.files.exposure import read_cube
from lyot.files.star import StarPosition
from lyot.instruments import NIRCAM
from lyot.parameters import SubtractRecipe

STAR_YX, HALF = (174, 150), 122
SEPARATIONS = (0.4, 0.6, 0.8, 1.1, 1.6, 2.5, 4.0, 7.0)
N_ANGLES, N_STEPS = 6, 4
GROUP = 3
"""Sources of a frame are those of every third separation, where this package searches."""
KNOWN = (KnownDisc(128.7, 15.0), KnownSource(3.36, 162.0, 0.6))
LOW, HIGH = 0.4, 2.5
"""Of the limit of this package: where the contrast that finds a source is looked for."""

PEERS = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import numpy as np
from scipy import stats
data = np.load(sys.argv[1])
frames, refs, sources = (data[k].astype(float) for k in ("frames", "refs", "sources"))
guess, rolls, covered = data["guess"], data["rolls"], data["covered"]
fwhm, fpf = float(data["fwhm"]), float(data["fpf"])
low, high, n_steps = (float(data[k]) for k in ("low", "high", "n_steps"))
middle = frames.shape[-1] // 2

def needed(reduce, excess):
    # (n_trunc, n_source): RDI is linear in the target, so one source tells all contrasts.
    clean = reduce(frames)
    out = np.full((len(clean), len(sources)), np.nan)
    for k, source in enumerate(sources):
        # bright, so that its place is seen
        bright = 100.0 * guess[k] * source
        added = (reduce(frames + bright) - clean) / 100.0
        if k == 0:
            again = reduce(frames + 0.01 * bright) - clean - added
            assert np.nanmax(np.abs(again)) < 1e-3 * np.nanmax(np.abs(added))
        for t in range(len(clean)):
            y, x = np.unravel_index(np.nanargmax(added[t]), added[t].shape)
            beside = [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            at = max(beside, key=lambda p: excess(clean[t] + 2.0 * added[t], *p))
            a, b = np.log(low), np.log(high)
            if excess(clean[t] + high * added[t], *at) < 0:
                continue
            for _ in range(int(n_steps)):
                c = 0.5 * (a + b)
                a, b = (a, c) if excess(clean[t] + np.exp(c) * added[t], *at) > 0 else (c, b)
            out[t, k] = np.exp(0.5 * (a + b)) * guess[k]
    return out.tolist()
"""
VIP = (
    PEERS
    + """
from vip_hci.metrics.snr_source import indep_ap_centers, snr
from vip_hci.psfsub import pca

def reduce(cube):
    return np.array([pca(cube, rolls, cube_ref=refs, ncomp=n, verbose=False)
                     for n in range(1, len(refs) + 1)])

def excess(image, y, x):
    at = (float(x), float(y))
    _, _, flux, others, _ = snr(image, at, fwhm, full_output=True)
    rows, columns = (np.rint(v[1:]).astype(int) for v in indep_ap_centers(image, at, fwhm))
    others = others[~covered[rows, columns]]
    value = (flux - others.mean()) / others.std(ddof=1) / np.sqrt(1 + 1 / len(others))
    return value - stats.t.isf(fpf, len(others) - 1)

print(json.dumps(needed(reduce, excess)))
"""
)
PYKLIP = (
    PEERS
    + """
import contextlib, io, tempfile
import pyklip.parallelized as parallelized, pyklip.rdi as rdi
from pyklip.klip import nan_gaussian_filter
from pyklip.instruments.Instrument import GenericData
names = np.array([f"f{i}.fits" for i in range(len(frames) + len(refs))])
center = [float(middle)] * 2
row, column = np.indices(frames.shape[1:])
radius = np.hypot(row - middle, column - middle)
folder = tempfile.mkdtemp()

def subtracted(cube):
    dataset = GenericData(cube.copy(), np.array([center] * len(cube)), parangs=rolls,
                          wvs=np.ones(len(cube)), filenames=names[:len(cube)])
    everything = np.concatenate([cube, refs])
    library = rdi.PSFLibrary(everything, center, names, compute_correlation=True)
    library.prepare_library(dataset)
    with contextlib.redirect_stdout(io.StringIO()):
        parallelized.klip_dataset(dataset, mode="RDI", outputdir=folder, fileprefix="b", annuli=1,
                                  subsections=1, numbasis=list(range(1, len(refs) + 1)),
                                  psf_library=library, numthreads=1, verbose=False,
                                  calibrate_flux=False)
    return np.nanmean(dataset.output, axis=1).reshape(-1, *cube.shape[1:])

def reduce(cube):
    return np.array([nan_gaussian_filter(image, fwhm / 2.355) for image in subtracted(cube)])

def excess(image, y, x):
    at = np.hypot(row - y, column - x) > 1.5 * fwhm
    at &= (np.abs(radius - radius[y, x]) < 0.5 * fwhm) & ~covered
    values = image[at & np.isfinite(image)]
    n = int(values.size / (np.pi * (0.5 * fwhm) ** 2))
    value = (image[y, x] - values.mean()) / values.std(ddof=1) / np.sqrt(1 + 1 / n)
    return value - stats.t.isf(fpf, n - 1)

print(json.dumps(needed(reduce, excess)))
"""
)


def frames_of(folder: Path):
    """Read the frames about the star, aligned as they are, with what is missing predicted."""
    files = sorted((folder / "aumic_f444w").glob("*_calints.fits"))
    cubes = [read_cube(file) for file in files]
    (y, x), out = STAR_YX, []
    for cube in cubes:
        image = np.asarray(cube.sci[0], float)
        filled = ndimage.median_filter(np.nan_to_num(image), 5)
        image = np.where(np.isfinite(image), image, filled)
        out.append(image[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1])
    rolls = [cube.info.roll_ref_deg for cube in cubes[:2]]
    return np.array(out), np.array(rolls), cubes[0].info


def observation(frames: np.ndarray, rolls: np.ndarray, info) -> Observation:
    """Subtract the frames, on square pixels about the star, as the others take them."""
    aligned = aligned_of(frames[2:].astype(np.float32))
    recipe, star = SubtractRecipe(), StarPosition(float(HALF), float(HALF), 0.1, 0.1)
    exposures = []
    for number, (frame, roll) in enumerate(zip(frames[:2], rolls, strict=True)):
        cube = cube_of(
            frame[None].astype(np.float32),
            coronagraph="MASKA335R",
            roll_ref_deg=roll,
            pixel_area_sr=info.pixel_area_sr,
        )
        exposures.append(make_exposure(cube, aligned, star, recipe, name=f"roll{number}"))
    jy = star_brightness(NIRCAM.filter("F444W"), magnitude=4.0)
    return make_observation("depth", exposures, recipe, star=jy)


def places() -> list[tuple[float, float]]:
    """Draw separations and position angles between pixels, off the disc and the galaxy."""
    rng, out = np.random.default_rng(2), []
    for j, separation in enumerate(SEPARATIONS):
        for k in range(N_ANGLES):
            others = [out[i * N_ANGLES + k][1] for i in range(j % GROUP, j, GROUP)]
            while True:
                at = separation * rng.uniform(0.97, 1.03), rng.uniform(0.0, 360.0)
                off = KnownDisc(KNOWN[0].pa_deg, 20.0).covers(*at, 0.0) | KNOWN[1].covers(*at, 0.0)
                apart = [abs((at[1] - pa + 180.0) % 360.0 - 180.0) > 50.0 for pa in others]
                if not off and all(apart):
                    break
            out.append(at)
    return out


def ours(made: Observation, put: OffAxisPSF, at, guess: np.ndarray) -> np.ndarray:
    """Look for the contrast from which `detect` finds each source; NaN beyond the highest."""
    near = made.fwhm_pix * made.pixel_scale_arcsec
    low, high = np.log(LOW * guess), np.log(HIGH * guess)
    never = np.zeros(len(at), bool)
    number = np.arange(len(at))
    frame = number % N_ANGLES * GROUP + number // N_ANGLES % GROUP
    for step in range(N_STEPS + 1):
        tried = high if step == 0 else 0.5 * (low + high)
        seen = np.zeros(len(at), bool)
        for one in np.unique(frame):
            with_them = replace(made, psf=put)
            for k in np.flatnonzero(frame == one):
                with_them = with_them.with_source(*at[k], float(np.exp(tried[k])))
            found = detect(replace(with_them, psf=made.psf), known_sources=KNOWN).candidates
            for k in np.flatnonzero(frame == one):
                place = KnownSource(*at[k], near)
                seen[k] = any(place.covers(s.separation_arcsec, s.pa_deg, 0.0) for s in found)
        if step == 0:
            never = ~seen
        else:
            low, high = np.where(seen, low, tried), np.where(seen, tried, high)
    return np.where(never, np.nan, np.exp(0.5 * (low + high)))


def by_separation(needed: np.ndarray) -> np.ndarray:
    """Half of the sources of each separation are found here; a source never found counts."""
    each = np.nan_to_num(needed, nan=np.inf).reshape(*needed.shape[:-1], -1, N_ANGLES)
    return np.median(each, axis=-1)


def main() -> None:
    """Print the limits by separation, and theirs over ours."""
    print(machine())
    frames, rolls, info = frames_of(Path(sys.argv[1]))
    made, at = observation(frames, rolls, info), places()
    optics = replace(made.transmission.optics, seed=101)
    image = optics.psf((0.0, 0.0), n_pixels=49, oversample=3, with_mask=False).image
    put = OffAxisPSF(image, 3, "another wavefront")
    curve = contrast_curve(made, separations_arcsec=SEPARATIONS, known_sources=KNOWN)
    guess = np.repeat(curve.calibrated[0], N_ANGLES)
    sources = np.zeros((len(at), *frames[:2].shape), np.float32)
    with_put = replace(made, psf=put)
    for k, (separation, pa) in enumerate(at):
        for e, exposure in enumerate(made.exposures):
            r = separation / made.pixel_scale_arcsec
            box, stamp = with_put.source(exposure, r, pa).on(exposure)
            sources[k, e][box] = made.star_flux * stamp
    y, x = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1] * made.pixel_scale_arcsec
    separation, pa = np.hypot(y, x), np.degrees(np.arctan2(-x, y)) % 360.0
    covered = KNOWN[0].covers(separation, pa, 0.0) | KNOWN[1].covers(separation, pa, 0.0)
    mine = by_separation(ours(made, put, at, guess))
    print(f"{'separation [arcsec]':24s}", *(f"{v:8.1f}" for v in SEPARATIONS))
    print(f"{'lyot, its curve':24s}", *(f"{v:.2e}" for v in curve.calibrated[0]))
    print(f"{'lyot, half are found':24s}", *(f"{v:.2e}" for v in mine), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npz"
        given = {"frames": frames[:2], "refs": frames[2:], "sources": sources, "guess": guess}
        given |= {"rolls": rolls, "covered": covered, "fwhm": made.fwhm_pix}
        scalars = {"fpf": FIVE_SIGMA.fpf, "low": LOW, "high": 10.0 * HIGH, "n_steps": N_STEPS + 3}
        np.savez(path, **given, **scalars)
        for name, packages, code in (
            ("VIP", ("vip_hci==2.1.1", "opencv-python-headless"), VIP),
            ("pyKLIP", ("pyklip==2.10.1",), PYKLIP),
        ):
            values = run_peer(peer_python(*packages), code, str(path))
            best = by_separation(np.array(values, float)).min(axis=0)
            print(f"{name + ', its best':24s}", *(f"{v:.2e}" for v in best))
            print(f"{'    over lyot':24s}", *(f"{v:8.2f}" for v in best / mine), flush=True)


if __name__ == "__main__":
    main()

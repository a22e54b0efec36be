"""Not speed: noise and throughput against separation for search areas, fits and levels.

A point source is put into the science frames, the same references are subtracted with and without
it, and the throughput is what is left of its flux in an aperture of one FWHM. The noise is the
scatter of such apertures around the star in the frame without it, divided by that throughput.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from lyot.algorithms.geometry import TangentPlane
from lyot.algorithms.repair import MAD_TO_SIGMA
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import Cube, read_cube, stack
from lyot.files.star import StarPosition
from lyot.parameters import AlignRecipe, SubtractRecipe
from lyot.references.aligner import Aligner
from lyot.references.prepare import prepare_refs
from lyot.simulate import Scene, simulate_observation
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones

FWHM = 2.3
SEPARATIONS_ARCSEC = (0.5, 1.0, 2.0, 4.0)
N_ANGLES = 6
ZONE_LEVEL = SubtractRecipe(level_inner_arcsec=0.0)
ANNULI = replace(ZONE_LEVEL, zones="annuli")
RECIPES = {
    "full frame": ZONE_LEVEL,
    "full frame, fit r < 3 arcsec": replace(ZONE_LEVEL, fit_outer_arcsec=3.0),
    "full frame, no mean": SubtractRecipe(subtract_mean=False),
    "full frame, level r > 5 arcsec": SubtractRecipe(),
    "fit r < 3, level r > 5 arcsec": SubtractRecipe(fit_outer_arcsec=3.0),
    "5 annuli": ANNULI,
    "5 annuli, level r > 5 arcsec": SubtractRecipe(zones="annuli"),
    "5 annuli, 6 sectors": replace(ANNULI, n_sectors=6),
    "8 annuli, 12 sectors": replace(ANNULI, n_annuli=8, n_sectors=12),
}


def source(shape: tuple[int, int], y: float, x: float) -> np.ndarray:
    """Draw a Gaussian of unit flux."""
    yy, xx = np.ogrid[: shape[0], : shape[1]]
    g = np.exp(-4 * np.log(2) * ((yy - y) ** 2 + (xx - x) ** 2) / FWHM**2)
    return g / g.sum()


def aperture(image: np.ndarray, y: float, x: float) -> float:
    """Sum an image in a circle of diameter FWHM, edge pixels in part."""
    yy, xx = np.ogrid[: image.shape[0], : image.shape[1]]
    share = np.clip(FWHM / 2 + 0.5 - np.hypot(yy - y, xx - x), 0, 1)
    return float(np.nansum(image * share))


def mean_of(cube: np.ndarray) -> np.ndarray:
    """Average the integrations, NaN where there is none."""
    good = np.isfinite(cube)
    n = good.sum(axis=0)
    total = np.where(good, cube, 0.0).sum(axis=0, dtype=np.float64)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def ring(shape: tuple[int, int], star: StarPosition, radius: float) -> np.ndarray:
    """Draw a face-on ring around the star, of a width of a tenth of its radius and peak 1."""
    yy, xx = np.ogrid[: shape[0], : shape[1]]
    return np.exp(-0.5 * ((np.hypot(yy - star.y, xx - star.x) - radius) / (0.1 * radius)) ** 2)


def measure(target: Cube, frames: AlignedArrays, star: StarPosition, name: str) -> None:
    """Print a table for one observation."""
    print(f"\n{name}: {len(target.sci)} integration(s), {len(frames.frames(0).sci)} references")
    print(f"{'':32s}" + "".join(f"{s:>15.1f} arcsec" for s in SEPARATIONS_ARCSEC))
    shape, scale = target.frame_shape, target.info.pixel_scale_arcsec
    for label, recipe in RECIPES.items():
        zones = make_zones(recipe, shape, TangentPlane.linear(star.yx, 0.0, scale))

        def residual(cube: Cube, zones=zones, recipe=recipe) -> np.ndarray:
            return mean_of(subtract(cube, frames, zones, recipe)[0].sci)

        plain, cells = residual(target), []
        for separation in SEPARATIONS_ARCSEC:
            r = separation / scale
            if r > min(star.y, star.x, shape[0] - star.y, shape[1] - star.x) - 4:
                cells.append(f"{'':>22s}")
                continue
            kept = []
            for angle in 2 * np.pi * (np.arange(N_ANGLES) + 0.3) / N_ANGLES:
                y, x = star.y + r * np.cos(angle), star.x + r * np.sin(angle)
                put = 1e3 * source(shape, y, x)
                with_it = residual(replace(target, sci=target.sci + put.astype(np.float32)))
                kept.append(aperture(with_it - plain, y, x) / aperture(put, y, x))
            disc = 10.0 * ring(shape, star, r)
            both = residual(replace(target, sci=target.sci + disc.astype(np.float32)))
            top = disc > 5.0
            disc_kept = np.nanmean((both - plain)[top]) / disc[top].mean()
            n = int(2 * np.pi * r / FWHM)
            around = 2 * np.pi * np.arange(n) / n
            flux = [aperture(plain, star.y + r * np.cos(a), star.x + r * np.sin(a)) for a in around]
            noise = MAD_TO_SIGMA * np.median(np.abs(flux - np.median(flux)))
            through = float(np.mean(kept))
            cells.append(f"{through:6.2f} {noise / max(through, 1e-9):8.2f} {disc_kept:6.2f} ")
        print(f"{label:32s}" + "".join(cells), flush=True)
    print(
        "(throughput of a point source, noise over it [MJy/sr x pixel], throughput of a face-on "
        "ring)"
    )


def prepared(science: Path, refs: list[Path], star: StarPosition | None):
    """Align the references of an observation to its first integration."""
    target, recipe = read_cube(science), AlignRecipe(align_to="first")
    xy = None if star is None else (star.x, star.y)
    aligner = Aligner(
        target, prepare_refs(stack(read_cube(p) for p in refs), recipe), recipe, star_xy=xy
    )
    frames = aligner.frames(0)
    dq = np.stack([frames.dq[k] for k in range(len(frames.dq))])
    return target, AlignedArrays(frames.sci, np.sqrt(frames.variance), dq), aligner.star


def main() -> None:
    """Print the tables: a simulated observation, and AU Mic where the real data are."""
    folder = Path(os.environ.get("LYOT_BENCH_DIR", ".bench")) / "zones"
    if not folder.is_dir():
        simulate_observation(folder, Scene(companions=(), disc=None), seed=2)
    files = sorted(folder.glob("*_calints.fits"))
    refs = [p for p in files if "9003001" in p.name]
    measure(*prepared(files[0], refs, None), "simulated point source, F444W")
    real = Path(sys.argv[1]) / "aumic_f444w" if len(sys.argv) > 1 else None
    if real is not None and real.is_dir():
        files = sorted(real.glob("*_calints.fits"))
        measure(*prepared(files[0], files[2:], StarPosition(150.0, 174.0)), "AU Mic F444W")
        folder = real.parent / "hd106906_f1140c"
        files = sorted(folder.glob("jw0119401500*_calints.fits"))
        science = folder / "jw01277019001_04101_00001_mirimage_calints.fits"
        measure(*prepared(science, files, None), "HD 106906 F1140C")


if __name__ == "__main__":
    main()

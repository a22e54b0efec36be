"""Not speed: what running everything again changes, beyond the frozen response to a source.

Companions are put into the pixels of the science exposures of a simulated observation, and the
whole pipeline runs again: outliers, weight, shifts, fills and subtraction.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits

from common import SCRATCH, machine
from lyot.analysis.brightness import star_brightness
from lyot.analysis.observation import open_run
from lyot.analysis.response import PointSource
from lyot.cli import main as lyot
from lyot.files.view import read_view
from lyot.instruments import NIRCAM
from lyot.simulate import Scene, simulate_observation

CASES = ((0.6, 1e-4), (1.1, 3e-5), (1.1, 1e-3), (2.5, 3e-5), (2.5, 1e-3))
PA = 75.0


def main() -> None:
    """Print the changes."""
    print(machine())
    folder = SCRATCH / "frozen"
    if not folder.is_dir():
        simulate_observation(folder, Scene(companions=(), disc=None), seed=4)
    association = folder / "demo_asn.json"
    scene = json.loads((folder / "truth.json").read_text())["scene"]
    with tempfile.TemporaryDirectory(dir=SCRATCH) as work:
        plain = Path(work) / "plain"
        _reduce(association, plain)
        jy = scene["star_flux"] * 1e6 * 0.063**2
        star = star_brightness(NIRCAM.filter("F444W"), jy=jy / 206264.8**2)
        with open_run(plain, star_jy=star.jy) as observation:
            for separation, contrast in CASES:
                print(_case(observation, association, Path(work), separation, contrast), flush=True)


def _reduce(association: Path, folder: Path) -> None:
    options = ["-o", str(folder), "--no-report", "--rerun"]
    lyot(["run", str(association), *options], standalone_mode=False)


def _case(observation, association: Path, work: Path, separation: float, contrast: float) -> str:
    """Put one companion in, run again, and compare."""
    again, inputs = work / "again", work / "inputs"
    for each in (again, inputs):
        shutil.rmtree(each, ignore_errors=True)
    shutil.copytree(association.parent, inputs)
    flux, r = contrast * observation.star_flux, separation / observation.pixel_scale_arcsec
    frozen, shifts = [], []
    for exposure in observation.exposures:
        y, x = (float(v) for v in exposure.position(r, PA))
        through = float(observation.transmission.at(y, x, mask_yx=exposure.mask_yx))
        box, image = observation.psf.place(y, x, exposure.shape)
        name = exposure.name.split("_a3001")[0] + "_calints.fits"
        with fits.open(inputs / name, mode="update") as hdus:
            hdus["SCI"].data[:, box[0], box[1]] += (flux * through * image).astype(np.float32)
        _, added = exposure.response.added(PointSource(observation.psf, r, PA, through), flux=flux)
        frozen.append((exposure, box, added[0], float(flux * through * image.max())))
    _reduce(inputs / association.name, again)
    worst = 0.0
    for exposure, box, added, peak in frozen:
        view = read_view(again / exposure.name)
        before = read_view(work / "plain" / exposure.name)
        change = np.nanmean(view.data, axis=0) - np.nanmean(before.data, axis=0)
        worst = max(worst, float(np.nanmax(np.abs(change[box] - added))) / peak)
        align = [
            np.asarray(v.provenance["steps"]["align_psfs"]["shift_yx"]) for v in (view, before)
        ]
        shifts.append(np.abs(align[0] - align[1]).max())
    return (
        f"contrast {contrast:.0e} at {separation} arcsec: residual differs by {worst:.1e} of the "
        f"peak, shifts by {max(shifts):.1e} pixel"
    )


if __name__ == "__main__":
    main()

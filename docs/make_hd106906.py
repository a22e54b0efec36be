"""Reduce and measure HD 106906 b as its page does, draw its figure and print its numbers.

Give the folder of the real data.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.visualization import AsinhStretch, ImageNormalize
from matplotlib.figure import Figure
from PIL import Image

from lyot.algorithms.geometry import east_north
from lyot.analysis.companion import fit_companions
from lyot.analysis.detection import detect
from lyot.analysis.observation import open_run
from lyot.files.sorting import build_associations
from lyot.pipeline import Coron3Pipeline
from lyot.viz import analysis as draw

REACH_ARCSEC = 11.0


def on_sky(observation):
    """The residual of the exposure, north up and east to the left."""
    from scipy.ndimage import map_coordinates

    [exposure], grid = observation.exposures, observation.grid
    y, x = exposure.position(*grid.polar)
    image = map_coordinates(np.nan_to_num(exposure.residual[0]), [y, x], order=1, cval=np.nan)
    half = round(REACH_ARCSEC / observation.pixel_scale_arcsec)
    middle = slice(grid.half_pix - half, grid.half_pix + half + 1)
    return image[middle, middle]


def show(ax, image, reach, label, place, **how):
    """Draw an image of the sky, the star marked by a cross and the planet by a circle."""
    ax.imshow(image, origin="lower", extent=(reach, -reach, -reach, reach), **how)
    ax.plot(0, 0, "+", color="black", ms=9)
    ax.plot(*place, "o", mfc="none", mec="black", ms=15, mew=1.2)
    ax.set(title=label, xlabel="offset to the east [arcsec]", ylabel="to the north [arcsec]")


files = sorted((Path(sys.argv[1]) / "hd106906_f1140c").glob("*_calints.fits"))
[association] = build_associations([str(file) for file in files])
with tempfile.TemporaryDirectory() as folder:
    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.input_dir = folder, str(files[0].parent)
    pipeline.run(association)
    with open_run(folder) as observation:
        found = detect(observation)
        fit = fit_companions(observation, [(7.1, 307.0)])
        image = on_sky(observation)

[planet] = fit.companions
place = [float(v) for v in east_north(planet.separation_arcsec.value, planet.pa_deg.value)]
figure = Figure(figsize=(12.0, 4.0), layout="constrained")
left, middle, *boxes = figure.subplot_mosaic(
    [["image", "snr", "data", "model", "residual"]], width_ratios=(4, 4, 1.7, 1.7, 1.7)
).values()
stretch = ImageNormalize(vmin=-0.5, vmax=8.0, stretch=AsinhStretch(0.1))
show(left, image, REACH_ARCSEC, "after subtraction", place, norm=stretch, cmap="inferno")
left.lines[-1].set_markeredgecolor("white")
left.lines[0].set_color("white")
snr_reach = (found.grid.half_pix + 0.5) * found.pixel_scale_arcsec
how = {"vmin": -6.0, "vmax": 6.0, "cmap": "RdBu_r"}
show(middle, found.snr, snr_reach, "S/N of a point source", place, **how)
middle.set(xlim=(REACH_ARCSEC, -REACH_ARCSEC), ylim=(-REACH_ARCSEC, REACH_ARCSEC), ylabel="")
draw.companion(np.array([boxes]), fit)
boxes[0].set_ylabel("")
path = Path(__file__).parent / "images" / "hd106906_b.png"
figure.savefig(path, dpi=75)
Image.open(path).quantize(160).save(path, optimize=True)  # a small file
print(found.to_table()["separation", "position_angle", "snr", "extent", "extent_err", "kind"])
for name in ("separation_arcsec", "pa_deg", "d_ra_arcsec", "d_dec_arcsec", "jy"):
    print(name, getattr(planet, name))
print(f"S/N {planet.snr:.1f}, chi-square {planet.chi2 / planet.n_data:.2f} per pixel")
for name, term in (*planet.budget, ("all", planet.budget.total)):
    print(f"{name}: {1e3 * term.separation_arcsec:.1f} mas, {term.pa_deg:.3f} deg, {term.flux:.3f}")

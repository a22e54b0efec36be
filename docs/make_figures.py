"""Draw the figures of the README and the documentation (`make figures`).

Give the folder of the demo's products; and that of the real data, for the figures of AU Mic. The
picture of the report is taken in Chromium, where that and its driver are installed.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.visualization import AsinhStretch, ImageNormalize
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from lyot.algorithms.geometry import TangentPlane
from lyot.algorithms.statistics import finite_mean
from lyot.analysis.completeness import completeness_map
from lyot.analysis.contrast import sensitivity_map
from lyot.analysis.detection import find_sources
from lyot.analysis.noise import KnownDisc
from lyot.analysis.observation import open_run
from lyot.files.sorting import build_associations
from lyot.files.view import read_view
from lyot.outputs import write_contrast, write_detection
from lyot.pipeline import Coron3Pipeline
from lyot.viz import analysis as draw
from lyot.viz import figures
from lyot.viz.report import write_report

ROLLS_REACH_ARCSEC, ROLLS_SMOOTHING_PIX = 5.0, 1.0


def reduce(association, folder, files, strategy):
    """Reduce AU Mic by a strategy."""
    pipeline = Coron3Pipeline(strategy=strategy)
    pipeline.output_dir, pipeline.input_dir = folder, str(files[0].parent)
    pipeline.run(association)
    return read_view(next(iter(Path(folder).glob("*_i2d.fits"))))


def north_up(view):
    """The image about the star, slightly smoothed, north up and east to the left."""
    scale, reach = view.info.pixel_scale_arcsec, ROLLS_REACH_ARCSEC
    offsets = np.linspace(-reach, reach, 2 * round(2 * reach / scale) + 1)
    north, east = np.meshgrid(offsets, -offsets, indexing="ij")
    plane = TangentPlane.linear(view.star.yx, view.pa_y_deg, scale)
    smooth = gaussian_filter(np.nan_to_num(view.data), ROLLS_SMOOTHING_PIX)
    return map_coordinates(smooth, plane.pixel(east, north), order=1)


def draw_rolls(views):
    """The disc by each strategy."""
    figure, reach = Figure(figsize=(11.0, 4.0), layout="constrained"), ROLLS_REACH_ARCSEC
    axes = figure.subplots(1, 3)
    for ax, (name, view) in zip(axes, views.items(), strict=True):
        stretch = ImageNormalize(vmin=-0.8, vmax=12.0, stretch=AsinhStretch(0.1))
        extent = (reach, -reach, -reach, reach)
        ax.imshow(north_up(view), origin="lower", extent=extent, norm=stretch, cmap="inferno")
        ax.set(title=name.upper(), xlabel="offset to the east [arcsec]")
    axes[0].set_ylabel("offset to the north [arcsec]")
    figure.savefig(images / "aumic_rolls.png", dpi=80)


def photograph(report):
    """The beginning of a report as Chromium shows it, with north up."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1024,1500"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        browser.get(Path(report).resolve().as_uri())
        browser.execute_script(
            "document.querySelectorAll('.viewer').forEach((root) => root.viewer.northUp())"
        )
        browser.save_screenshot(str(images / "report.png"))
    finally:
        browser.quit()


def make_small(path):
    """Keep the colors that a picture needs."""
    Image.open(path).convert("RGB").quantize(200).save(path, optimize=True)


products, images = Path(sys.argv[1]), Path(__file__).parent / "images"
before = read_view(next(iter(sorted(products.glob("*001001*_crfints.fits")))))
after = read_view(next(iter(sorted(products.glob("*001001*_psfsub.fits")))))
figure = Figure(figsize=(10.5, 4.4), layout="constrained", dpi=110)
for ax, data, title in zip(
    figure.subplots(1, 2),
    (before.data[0], finite_mean(after.data, axis=0)),
    ("before: one integration", "after: mean of the integrations"),
    strict=True,
):
    figures.image(
        ax,
        data,
        title=title,
        star=after.star,
        pixel_scale_arcsec=after.info.pixel_scale_arcsec,
        pa_y_deg=after.pa_y_deg,
    )
figure.savefig(images / "before_after.png", dpi=90)

if len(sys.argv) > 2:
    files = sorted((Path(sys.argv[2]) / "aumic_f444w").glob("*_calints.fits"))
    [association] = build_associations([str(file) for file in files])
    with tempfile.TemporaryDirectory() as top:
        folders = {name: str(Path(top) / name) for name in ("rdi", "adi", "adi+rdi")}
        draw_rolls({n: reduce(association, folder, files, n) for n, folder in folders.items()})
        folder, known = folders["rdi"], (KnownDisc(128.7, 15.0),)
        with open_run(folder, star_magnitude=4.0) as observation:
            written = write_contrast(observation, folder, known_sources=known)
            curve = written.result.curve
            sources = find_sources(observation, known_sources=known)
            limits = sensitivity_map(observation, curve)
            complete = completeness_map(observation, known_sources=(*known, *sources))
            found = write_detection(observation, folder, known_sources=known).result
        if shutil.which("chromium") and shutil.which("chromedriver"):
            photograph(write_report(folder))
            make_small(images / "report.png")
    for name, size, make in (
        ("limits", (6.4, 7.2), lambda f: draw.contrast_figure(f, curve, title="AU Mic, F444W")),
        ("sensitivity", (11.0, 4.6), lambda f: draw.sensitivity_figure(f, limits, complete)),
        ("detection", (6.4, 5.4), lambda f: draw.snr_map(f.subplots(), found)),
    ):
        figure = Figure(figsize=size, layout="constrained")
        make(figure)
        figure.savefig(images / f"aumic_{name}.png", dpi=100, bbox_inches="tight")
    table = curve.to_table()
    print(table["separation", "contrast", "throughput"])
    print(found.to_table())

"""Draw the figures of the README and the documentation.

Give the folder of the demo's products; and that of the real data, for the figures of AU Mic.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lyot.analysis.completeness import completeness_map
from lyot.analysis.contrast import contrast_curve, sensitivity_map
from lyot.analysis.detection import detect, find_sources
from lyot.analysis.noise import KnownDisc
from lyot.analysis.observation import open_run
from lyot.files.sorting import build_associations
from lyot.files.view import read_view
from lyot.pipeline import Coron3Pipeline
from lyot.viz import analysis as draw
from lyot.viz import figures

products, images = Path(sys.argv[1]), Path(__file__).parent / "images"
before = read_view(next(iter(sorted(products.glob("*001001*_crfints.fits")))))
after = read_view(next(iter(sorted(products.glob("*001001*_psfsub.fits")))))
figure = Figure(figsize=(10.5, 4.4), layout="constrained", dpi=110)
for ax, data, title in zip(
    figure.subplots(1, 2),
    (before.data[0], np.nanmean(after.data, axis=0)),
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
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Coron3Pipeline()
        pipeline.output_dir, pipeline.input_dir = folder, str(files[0].parent)
        pipeline.run(association)
        known = (KnownDisc(128.7, 15.0),)
        with open_run(folder, star_magnitude=4.0) as observation:
            sources = find_sources(observation, known_sources=known)
            curve = contrast_curve(observation, known_sources=known, found_sources=sources)
            limits = sensitivity_map(observation, curve)
            complete = completeness_map(observation, known_sources=(*known, *sources))
            found = detect(observation, known_sources=known)
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

"""Draw the figures of the README and the documentation from the demo's products."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lyot.files.view import read_view
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

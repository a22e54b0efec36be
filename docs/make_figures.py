"""Draw the figures of the README and the documentation from the demo's products."""

import sys
from pathlib import Path

from lyot.models.views import read_view
from lyot.viz.report import before_after_figure

products, images = Path(sys.argv[1]), Path(__file__).parent / "images"
before = read_view(next(iter(sorted(products.glob("*001001*_crfints.fits")))))
after = read_view(next(iter(sorted(products.glob("*001001*_psfsub.fits")))))
before_after_figure(before, after).savefig(images / "before_after.png", dpi=90)

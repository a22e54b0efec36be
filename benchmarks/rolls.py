"""Not speed: AU Mic by reference stars, by the other roll, and by both, from the same eight files.

Give the folder of the real data, and a file for the figure.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from common import machine
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.noise import KnownDisc
from lyot.analysis.observation import open_run
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.statistic import Statistic
from lyot.pipeline import Coron3Pipeline
from lyot.viz.figures import stretch

DISC_PA, SEPARATIONS = 128.7, np.array([0.5, 1.0, 2.0, 4.0])


def main() -> None:
    """Print what each keeps of the disc and how deep it goes, and draw the maps."""
    print(machine())
    folder = Path(sys.argv[1]) / "aumic_f444w"
    files = sorted(f.name for f in folder.glob("*_calints.fits"))
    kinds = ["science"] * 2 + ["psf"] * (len(files) - 2)
    members = [{"expname": f, "exptype": k} for f, k in zip(files, kinds, strict=True)]
    content = {
        "asn_type": "coron3",
        "asn_id": "c9001",
        "program": "01184",
        "products": [{"name": "aumic", "members": members}],
    }
    figure = Figure(figsize=(11.0, 3.9), layout="constrained")
    axes, norm = figure.subplots(1, 3), None
    for ax, strategy in zip(axes, ("rdi", "adi", "adi+rdi"), strict=True):
        with tempfile.TemporaryDirectory() as work:
            pipeline = Coron3Pipeline()
            pipeline.output_dir, pipeline.input_dir = work, str(folder)
            pipeline.strategy = strategy
            pipeline.run(content)
            with open_run(work, star_magnitude=4.0) as made:
                # Whitened, a filter would take no light that is smooth.
                maps = FluxMaps(made, "aperture")
                disc = (KnownDisc(DISC_PA, 15.0),)
                curve, aperture = (
                    contrast_curve(
                        made,
                        separations_arcsec=SEPARATIONS,
                        statistic=Statistic(flux_by=way),
                        known_sources=disc,
                    )
                    for way in ("whitened", "aperture")
                )
                r = SEPARATIONS / made.pixel_scale_arcsec
                sides = [maps.sample(r, np.full(4, DISC_PA + turn))[0] for turn in (0.0, 180.0)]
                print(strategy)
                for name, values in (
                    ("disc", np.mean(sides, axis=0)),
                    ("throughput of a point source", aperture.throughput[0]),
                    ("contrast limit", curve.calibrated[0]),
                ):
                    print(f"  {name:30s}" + "  ".join(f"{v:9.3g}" for v in values))
                image, scale = maps.sky_flux[0], made.pixel_scale_arcsec
        norm = norm or stretch(image)
        half = (made.grid.half_pix + 0.5) * scale
        ax.imshow(
            image, origin="lower", extent=(half, -half, -half, half), norm=norm, cmap="inferno"
        )
        ax.set_xlim(5, -5)
        ax.set_ylim(-5, 5)
        ax.set_title(strategy.upper())
        ax.set_xlabel("offset to the east [arcsec]")
    axes[0].set_ylabel("offset to the north [arcsec]")
    if len(sys.argv) > 2:
        figure.savefig(sys.argv[2], dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    main()

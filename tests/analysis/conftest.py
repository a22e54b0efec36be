"""A small two-roll reduction whose noise is known, made anew for any draw."""

import numpy as np
import pytest

from lyot.analysis.brightness import StarBrightness
from lyot.analysis.exposure import make_exposure
from lyot.analysis.observation import make_observation
from lyot.analysis.psf import psf_from_image
from lyot.files.aligned import ReferenceInfo
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from scenes import aligned, cube

SHAPE, SCALE, STAR_JY = (91, 93), 0.063, 1.0
ROLLS, N_INT, N_REF = (30.0, 41.0), 3, 10
RECIPE = SubtractRecipe(n_modes=(4,), level_inner_arcsec=2.0)


@pytest.fixture(scope="session")
def gaussian_psf():
    """A Gaussian of 2.4 pixels FWHM."""
    y, x = np.mgrid[-12:13, -12:13]
    return psf_from_image(np.exp(-4 * np.log(2) * (x**2 + y**2) / 2.4**2), origin="a Gaussian")


@pytest.fixture(scope="session")
def draw(gaussian_psf):
    """Return a function that draws a reduction, with companions put into the pixels."""
    transmission = np.ones(SHAPE)

    def _draw(seed, sources=(), *, recipe=RECIPE, noise=1.0, smooth=0.0, rolls_too=False):
        from scipy.ndimage import gaussian_filter

        rng = np.random.default_rng(seed)
        patterns = np.random.default_rng(0).normal(size=(4, *SHAPE)) * 30
        refs = np.tensordot(rng.normal(size=(N_REF, 4)), patterns, 1)
        refs = (refs + rng.normal(size=refs.shape) * 0.3 * noise).astype(np.float32)
        cubes, stars, exposures = [], [], []
        for number, roll in enumerate(ROLLS):
            star = StarPosition(46.2 + (0.0 if rolls_too else 0.3) * number, 44.9, 0.0, 0.0)
            target = np.tensordot(rng.normal(size=(N_INT, 4)), patterns, 1) + 5.0
            target = target + rng.normal(size=target.shape) * noise
            if smooth:
                common = gaussian_filter(rng.normal(size=SHAPE), smooth)
                target = target + common / common.std() * noise
            for separation, pa, flux in sources:
                turn = np.radians(pa - roll)
                y = star.y + separation / SCALE * np.cos(turn)
                x = star.x - separation / SCALE * np.sin(turn)
                box, image = gaussian_psf.place(float(y), float(x), SHAPE)
                target[:, box[0], box[1]] += flux * image
            cubes.append(target.astype(np.float32))
            stars.append(star)
        for number, roll in enumerate(ROLLS):
            target = cubes[number]
            frames, sigma, ref_info = refs, np.full(refs.shape, 0.3 * noise, np.float32), None
            if rolls_too:
                # The other roll's frames are references too, and hold the companions.
                frames = np.concatenate([refs, cubes[1 - number]])
                sigma = np.concatenate([sigma, np.full_like(cubes[1 - number], noise)])
                names = ("REF",) * N_REF + ("STAR",) * N_INT
                rolls, days = np.full(len(frames), ROLLS[1 - number]), np.full(len(frames), np.nan)
                ref_info = ReferenceInfo(names, rolls, days)
            exposures.append(
                make_exposure(
                    cube(target, noise, target="STAR", roll_ref_deg=roll),
                    aligned(frames, sigma, ref_info=ref_info),
                    stars[number],
                    recipe,
                    name=f"roll{number}",
                )
            )
        return make_observation(
            "test",
            exposures,
            recipe,
            psf=gaussian_psf,
            transmission=transmission,
            star=StarBrightness(STAR_JY, 5.66, "stated"),
        )

    return _draw

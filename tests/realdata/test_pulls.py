"""Companions put into AU Mic's exposures before the pipeline come back within their errors.

Each at the pixel where the gWCS of its exposure has it, with the image of another wavefront than
the model's behind the mask; the exposures are reduced anew. The disc is left out.
"""

import json
import shutil

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from stdatamodels.jwst import datamodels

from lyot.algorithms.geometry import east_north
from lyot.analysis.companion import fit_companions
from lyot.analysis.noise import KnownDisc, KnownSource
from lyot.analysis.observation import open_run
from lyot.analysis.psf import OffAxisPSF
from lyot.files.association import FOLDER_KEY
from lyot.files.headers import read_info
from lyot.files.sorting import build_associations
from lyot.instruments import NIRCAM
from lyot.instruments.wavefront import data_seed
from lyot.pipeline import Coron3Pipeline

STAR_XY, MAGNITUDE = (150.0, 174.0), 4.0
DISC, GALAXY = KnownDisc(128.7, 15.0), KnownSource(3.361, 162.1)
LIMIT_ARCSEC, LIMIT = (0.5, 0.6, 1.0, 2.0, 4.0, 6.0), (1e-4, 4e-5, 6.8e-6, 1.6e-6, 8.8e-7, 6e-7)
"""About what `lyot contrast` states; companions are three times as bright."""
ZONES = ((0.6, 0.9), (1.2, 1.7), (2.2, 3.0), (3.6, 4.5))
"""Separations, one companion each a frame, none in the noise of another [arcsec]."""
EXACT = ("star", "scale", "roll", "skew", "psf", "transmission", "calibration", "brightness")
"""Terms that are not put in: the data are made with what the analysis is told."""


def places_of(trial):
    """Draw separations and position angles, off the disc, the galaxy and one another."""
    rng, places = np.random.default_rng(1000 + trial), []
    galaxy = np.array(east_north(3.361, 162.1))
    while len(places) < len(ZONES):
        separation, pa = rng.uniform(*ZONES[len(places)]), rng.uniform(0.0, 360.0)
        apart = [abs((pa - other + 180.0) % 360.0 - 180.0) for _, other in places]
        on_disc = abs((pa - DISC.pa_deg + 90.0) % 180.0 - 90.0) < 20.0
        from_galaxy = np.hypot(*(np.array(east_north(separation, pa)) - galaxy))
        if not on_disc and from_galaxy > 1.0 and all(each > 45.0 for each in apart):
            places.append((separation, pa))
    return places


def pixel_of(wcs, there):
    """The pixel that the gWCS sees there: its inverse is off by 0.02 pixel, the same about it."""
    at = np.array(wcs.invert(there.ra.deg, there.dec.deg, with_bounding_box=False))
    again = wcs.invert(*wcs(*at, with_bounding_box=False), with_bounding_box=False)
    return 2.0 * at - np.array(again)


def put_into(path, sources, optics):
    """Add sources (separation, position angle, flux) to an exposure by its own gWCS."""
    with datamodels.open(path) as model:
        wcs = model.meta.wcs
    star = SkyCoord(*wcs(*STAR_XY, with_bounding_box=False), unit="deg")
    scale = np.array(optics.detector.pixel_scale_arcsec)
    with fits.open(path, mode="update") as hdus:
        data = hdus["SCI"].data
        for separation, pa, flux in sources:
            there = star.directional_offset_by(pa * u.deg, separation * u.arcsec)
            x, y = pixel_of(wcs, there)
            offset = tuple((np.array([x, y]) - STAR_XY) * scale)
            made = optics.psf(offset, n_pixels=65, oversample=3)
            psf = OffAxisPSF(made.image, 3, "another wavefront")
            box, image = psf.place(float(y), float(x), data.shape[-2:])
            data[..., box[0], box[1]] += (flux * made.transmission * image).astype(data.dtype)


def reduced(files, folder, places, brightness, seed):
    """Put companions of a brightness over the limit into the exposures, and reduce them.

    Their separations, angles and fluxes; their images are those of a seed, None for the model's.
    """
    info = read_info(files[0])
    optics = NIRCAM.optics(
        "MASK335R", "F444W", pixel_scale_arcsec=round(info.pixel_scale_arcsec, 6), seed=seed
    )
    jy = NIRCAM.filter("F444W").vega_jy * 10 ** (-0.4 * MAGNITUDE)
    star_flux = jy / (1e6 * np.radians(info.pixel_scale_arcsec / 3600.0) ** 2)
    sources = []
    for separation, pa in places:
        limit = np.exp(np.interp(np.log(separation), np.log(LIMIT_ARCSEC), np.log(LIMIT)))
        sources.append((separation, pa, brightness * limit * star_flux))
    copies = [folder / f.name for f in files]
    for number, (file, copy) in enumerate(zip(files, copies, strict=True)):
        shutil.copy(file, copy)
        if number < 2:
            put_into(copy, sources, optics)
    [asn] = build_associations(copies)
    asn[FOLDER_KEY] = str(folder)
    (folder / "asn.json").write_text(json.dumps(asn))
    pipeline = Coron3Pipeline()
    pipeline.output_dir = str(folder)
    pipeline.resample.skip = True
    for step in (pipeline.klip, pipeline.align_refs):
        step.star_x, step.star_y = STAR_XY
    pipeline.run(str(folder / "asn.json"))
    return sources


def turn_of(found, pa):
    return (found.pa_deg.value - pa + 180.0) % 360.0 - 180.0


def pulls_of(files, folder, trial):
    """Errors of flux, separation and angle over the stated ones."""
    sources = reduced(files, folder, places_of(trial), 3.0, data_seed(trial))
    pulls = []
    with open_run(folder, star_magnitude=MAGNITUDE) as observation:
        for separation, pa, flux in sources:
            [found] = fit_companions(
                observation, [(separation, pa)], n_likelihoods=0, known_sources=(DISC, GALAXY)
            ).companions
            stated = found.budget.without(*EXACT)
            pulls.append(
                [
                    (found.flux.value - flux) / (stated.flux * found.flux.value),
                    (found.separation_arcsec.value - separation) / stated.separation_arcsec,
                    turn_of(found, pa) / stated.pa_deg,
                ]
            )
    return pulls


@pytest.fixture(scope="module")
def files(data_dir):
    return sorted((data_dir / "aumic_f444w").glob("*_calints.fits"))


def pulls_over(trials, files, tmp_path):
    found = []
    for trial in trials:
        folder = tmp_path / str(trial)
        folder.mkdir()
        found += pulls_of(files, folder, trial)
        shutil.rmtree(folder)
    return np.array(found)


def test_bright_companions_are_where_the_gwcs_has_them(files, tmp_path):
    # So bright that no noise matters, of the model's own image: what is left is geometry.
    places = [(1.5, 20.0), (2.6, 75.0), (3.9, 200.0), (2.0, 250.0)]
    sources, apart = reduced(files, tmp_path, places, 300.0, None), []
    with open_run(tmp_path, star_magnitude=MAGNITUDE) as observation:
        for separation, pa, flux in sources:
            [found] = fit_companions(
                observation, [(separation, pa)], n_likelihoods=0, n_injections=0
            ).companions
            assert found.flux.value == pytest.approx(flux, rel=0.005)
            along = found.separation_arcsec.value - separation
            apart.append((along, separation * np.radians(turn_of(found, pa))))
    assert np.abs(apart).max() < 4e-4, apart  # 0.4 mas


def test_companions_put_in_before_the_pipeline_come_back_within_their_errors(files, tmp_path):
    pulls = pulls_over([100], files, tmp_path)
    assert np.abs(pulls).max() < 4.0, pulls
    assert np.sqrt(np.mean(pulls**2)) < 1.5, pulls


@pytest.mark.slow
def test_pulls_of_companions_put_in_before_the_pipeline(files, tmp_path):
    pulls = pulls_over(range(48), files, tmp_path)
    mean, width = pulls.mean(axis=0), pulls.std(axis=0, ddof=1)
    assert np.all(np.abs(mean) < 0.2), (mean, width)  # each known to 0.07
    assert np.all((width > 0.8) & (width < 1.2)), (mean, width)
    for zone in range(len(ZONES)):  # 48 each: known to a tenth
        width = pulls[zone :: len(ZONES)].std(axis=0, ddof=1)
        assert np.all((width > 0.7) & (width < 1.3)), (ZONES[zone], width)

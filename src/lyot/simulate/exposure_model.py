"""Calibrated exposures from arrays, with the headers and the WCS that the archive would write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import position_angle_of_y
from lyot.files.combined import TIMES, wcs_keywords
from lyot.files.headers import set_fact
from lyot.files.products import derived_model
from lyot.instruments import instrument_named
from lyot.instruments.telescope import ARCSEC_PER_RADIAN

INTEGRATION_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Pointing:
    """Where the telescope pointed, and with what."""

    target: str
    radec_deg: tuple[float, float]
    crpix_xy: tuple[float, float]  # where the header puts the star: the middle of the mask, 0-based
    sky_offset_arcsec: tuple[float, float] = (0.0, 0.0)  # error of the WCS, towards east and north
    roll_ref_deg: float = 0.0
    v3i_yangle_deg: float = 0.0
    vparity: int = -1
    pixel_scale_arcsec: tuple[float, float] = (0.063, 0.063)  # along x and y
    dither_arcsec: tuple[float, float] = (0.0, 0.0)
    is_psf: bool = False
    instrument: str = "NIRCAM"
    filter: str = "F444W"
    coronagraph: str = "MASK335R"
    aperture: str = ""
    number: int = 0  # of the exposure, for its times


def exposure_model(arrays: dict[str, NDArray[Any]], pointing: Pointing, /) -> Any:
    """Make a CubeModel of arrays of shape (n_int, n_y, n_x), with headers and WCS."""
    from stdatamodels.jwst import datamodels

    # The schema is asked what it knows of an instrument; all else is checked when it is saved.
    with datamodels.CubeModel() as known:
        _describe_instrument(known, pointing)
        model = derived_model("CubeModel", known, arrays)
    n_int, n_y, n_x = arrays["data"].shape
    meta = model.meta
    meta.telescope = "JWST"
    meta.subarray.xsize, meta.subarray.ysize = n_x, n_y
    meta.exposure.nints, meta.exposure.integration_time = n_int, INTEGRATION_S
    meta.observation.program_number = "09999"
    meta.observation.date, meta.observation.time = "2026-01-01", "00:00:00.000"
    meta.target.catalog_name = meta.target.proposer_name = pointing.target
    meta.target.ra, meta.target.dec = pointing.radec_deg
    meta.target.type = "FIXED"
    meta.bunit_data = meta.bunit_err = "MJy/sr"
    area_arcsec2 = float(np.prod(pointing.pixel_scale_arcsec))
    meta.photometry.pixelarea_steradians = area_arcsec2 / ARCSEC_PER_RADIAN**2
    meta.photometry.pixelarea_arcsecsq = area_arcsec2
    seconds = n_int * INTEGRATION_S
    start = 61041.0 + pointing.number * 2.0 * seconds / 86400.0
    meta.exposure.start_time, meta.exposure.end_time = start, start + seconds / 86400.0
    for name in TIMES:
        setattr(meta.exposure, name, seconds)
    for step in ("assign_wcs", "flat_field", "photom"):
        setattr(meta.cal_step, step, "COMPLETE")
    _point(model, pointing, (n_y, n_x))
    return model


def _describe_instrument(model: Any, pointing: Pointing) -> None:
    """Write with what the exposure was taken, under the instrument's own keywords."""
    instrument = instrument_named(pointing.instrument)
    filter = instrument.filter(pointing.filter)
    coronagraph = instrument.coronagraph(pointing.coronagraph)
    aperture = coronagraph.aperture(filter.channel)
    keys = instrument.keywords
    for key, value in (
        ("INSTRUME", instrument.name),
        (keys.detector, aperture.detector),
        (keys.filter, filter.name),
        (keys.pupil, coronagraph.pupil_wheel),
        (keys.coronagraph, (*coronagraph.keyword_values, coronagraph.name)[0]),
        (keys.subarray, aperture.subarray),
        (keys.aperture, pointing.aperture),
        (keys.is_psf, pointing.is_psf),
        (keys.dither[0], pointing.dither_arcsec[0]),
        (keys.dither[1], pointing.dither_arcsec[1]),
        ("EXP_TYPE", coronagraph.exposure_type),
        *aperture.more_keywords,
    ):
        if value != "":
            set_fact(model, key, value)


def _point(model: Any, pointing: Pointing, shape: tuple[int, int]) -> None:
    """Give a model its WCS and the keywords that go with it."""
    import gwcs
    from astropy import coordinates, units
    from astropy.modeling import models
    from gwcs import coordinate_frames

    ra, dec = pointing.radec_deg
    east, north = (o / 3600.0 for o in pointing.sky_offset_arcsec)
    ra, dec = ra + east / np.cos(np.deg2rad(dec)), dec + north
    pa_y = np.deg2rad(
        position_angle_of_y(pointing.roll_ref_deg, pointing.v3i_yangle_deg, pointing.vparity)
    )
    x0, y0 = pointing.crpix_xy
    # Intermediate world coordinates: the first grows to the east, and so does -x at PA 0.
    matrix = np.array([[-np.cos(pa_y), np.sin(pa_y)], [np.sin(pa_y), np.cos(pa_y)]])
    scale = float(np.sqrt(np.prod(pointing.pixel_scale_arcsec))) / 3600.0
    matrix = matrix * np.divide(pointing.pixel_scale_arcsec, 3600.0 * scale)
    transform = (
        models.Shift(-x0) & models.Shift(-y0)
        | models.AffineTransformation2D(matrix)
        | models.Scale(scale) & models.Scale(scale)
        | models.Pix2Sky_TAN()
        | models.RotateNative2Celestial(ra, dec, 180.0)
    )
    detector = coordinate_frames.Frame2D(
        name="detector", axes_order=(0, 1), unit=(units.pix, units.pix)
    )
    world = coordinate_frames.CelestialFrame(
        name="world", reference_frame=coordinates.ICRS(), unit=(units.deg, units.deg)
    )
    wcs = gwcs.WCS([(detector, transform), (world, None)])
    n_y, n_x = shape
    wcs.bounding_box = ((-0.5, n_x - 0.5), (-0.5, n_y - 0.5))
    model.meta.wcs = wcs
    corners = wcs(
        np.array([-0.5, -0.5, n_x - 0.5, n_x - 0.5]),
        np.array([-0.5, n_y - 0.5, n_y - 0.5, -0.5]),
        with_bounding_box=False,
    )
    keywords = wcs_keywords(np.array([x0, y0]), np.full(2, scale), np.array([ra, dec]), matrix)
    model.meta.wcsinfo = keywords | {
        "ra_ref": ra,
        "dec_ref": dec,
        "roll_ref": pointing.roll_ref_deg,
        "v3yangle": pointing.v3i_yangle_deg,
        "vparity": pointing.vparity,
        "s_region": "POLYGON ICRS  "
        + " ".join(f"{v:.9f}" for v in np.stack(corners, axis=1).ravel()),
    }

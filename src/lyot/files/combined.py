"""Subtracted exposures on their way to the combined image, and that image as a product."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.errors import LyotError
from lyot.files.exposure import cube_from_model
from lyot.files.headers import ExposureInfo
from lyot.files.products import derived_model
from lyot.files.provenance import provenance_of, star_of
from lyot.files.star import StarPosition
from lyot.parameters import CombineRecipe

VARIANCES = ("var_rnoise", "var_poisson", "var_flat")
TIMES = (
    "exposure_time",
    "measurement_time",
    "duration",
    "effective_exposure_time",
    "elapsed_exposure_time",
)
"""Names in ``meta.exposure`` of times that add up over exposures."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """The subtracted integrations of one exposure, ready to be combined.

    Attributes
    ----------
    sci, err : ndarray, shape (n_int, n_y, n_x)
        Residual and error.
    bad : ndarray of bool, shape (n_int, n_y, n_x)
        True where a pixel is left out.
    wcs : gwcs.wcs.WCS
        WCS of the exposure, as its header has it.
    wcsinfo : dict
        WCS keywords.
    info : ExposureInfo
        What the headers say.
    star : StarPosition or None
        The star on its pixels.
    target_radec : tuple of float or None
        Position of the target [degree].
    variances : dict
        VAR_RNOISE, VAR_POISSON and VAR_FLAT where the exposure has them in the shape of SCI.
    variance_refs, variance_refs_coherent : ndarray, shape (n_y, n_x), or None
        The references' part of the variance (see `lyot.subtraction.subtract.Subtraction`).
    """

    sci: NDArray[Any]
    err: NDArray[Any]
    bad: NDArray[np.bool_]
    wcs: Any
    wcsinfo: dict[str, Any]
    info: ExposureInfo
    star: StarPosition | None
    target_radec: tuple[float, float] | None
    variances: dict[str, NDArray[Any]] = field(default_factory=dict)
    variance_refs: NDArray[Any] | None = None
    variance_refs_coherent: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class Combined:
    """One image of the sky.

    Attributes
    ----------
    sci, err : ndarray, shape (n_y, n_x)
        Image and its error; NaN where no pixel contributes. The error is that of each pixel:
        the covariance that drizzling puts between neighbors is not in it.
    wht : ndarray, shape (n_y, n_x)
        Sum of the weights.
    con : ndarray, shape (n_plane, n_y, n_x), int32
        Bit k tells whether integration k contributed.
    variances : dict
        Combined variance components, where every exposure has them.
    wcs : gwcs.wcs.WCS
        WCS of the image.
    s_region : str or None
        Footprint.
    star : StarPosition or None
        The star on its pixels.
    pixel_scale_ratio : float
        Output over input pixel scale.
    pixel_area_sr : float
        Area of an output pixel [sr].
    """

    sci: NDArray[np.float32]
    err: NDArray[np.float32]
    wht: NDArray[np.float32]
    con: NDArray[np.int32]
    variances: dict[str, NDArray[np.float32]]
    wcs: Any
    s_region: str | None
    star: StarPosition | None
    pixel_scale_ratio: float
    pixel_area_sr: float


def residuals_from_model(model: Any, bad_bits: str, /) -> Residuals:
    """Take the residual images of a psfsub product; an image counts as one integration.

    `bad_bits` are the DQ flags of pixels that are left out.
    """
    cube = cube_from_model(model)
    shape = cube.sci.shape
    wcs = model.meta.wcs if model.meta.hasattr("wcs") else None
    made = provenance_of(model).get("steps", {}).get("klip", {})
    target = model.meta.target
    radec = None
    if target.ra is not None and target.dec is not None:
        radec = (float(target.ra), float(target.dec))
    variances = {}
    for name in VARIANCES:
        array = model.getarray_noinit(name) if model.hasattr(name) else None
        if array is not None and np.size(array) == int(np.prod(shape)) and np.any(array):
            variances[name] = np.asarray(array, dtype=np.float32).reshape(shape)
    planes = {
        name: None if made.get(name) is None else np.asarray(made[name], dtype=np.float32)
        for name in ("variance_refs", "variance_refs_coherent")
    }
    return Residuals(
        sci=cube.sci,
        err=cube.err,
        bad=cube.bad(bad_bits),
        wcs=wcs,
        wcsinfo=dict(model.meta.wcsinfo.instance),
        info=cube.info,
        star=star_of(model),
        target_radec=radec,
        variances=variances,
        **planes,
    )


_DETECTOR_KEYWORDS = (
    "v2_ref",
    "v3_ref",
    "ra_ref",
    "dec_ref",
    "roll_ref",
    "v3yangle",
    "vparity",
    "sipiverr",
    "sipmxerr",
    "a_order",
    "b_order",
    "ap_order",
    "bp_order",
    "wcsname",
)


def combined_model(models: list[Any], image: Combined, recipe: CombineRecipe, /) -> Any:
    """Make the i2d product of a combined image; metadata come from the first psfsub model."""
    if not models:
        raise LyotError("There is no subtracted exposure to combine.")
    arrays: dict[str, Any] = {
        "data": image.sci,
        "err": image.err,
        "con": image.con,
        "wht": image.wht,
    }
    model = derived_model("ImageModel", models[0], arrays | image.variances)
    for name in ("int_times", "zeroframe", "area"):
        model.instance.pop(name, None)
    model.meta.wcs = image.wcs
    _describe_wcs(model, image)
    _describe_times(model, models)
    area = image.pixel_area_sr
    model.meta.photometry.pixelarea_steradians = area
    model.meta.photometry.pixelarea_arcsecsq = float(np.rad2deg(np.sqrt(area)) * 3600) ** 2
    done = model.meta.resample
    done.pointings = len(models)
    done.pixel_scale_ratio = image.pixel_scale_ratio
    done.pixfrac, done.kernel, done.fillval = recipe.pixfrac, recipe.kernel, "NAN"
    done.weight_type = recipe.weight_type
    return model


def _describe_wcs(model: Any, image: Combined) -> None:
    """Write the linear WCS of the image into the keywords."""
    info = model.meta.wcsinfo
    kept = {
        k: v
        for k, v in info.instance.items()
        if k not in _DETECTOR_KEYWORDS
        and not k.startswith(("cd1_", "cd2_", "a_", "b_", "ap_", "bp_"))
    }
    transform = image.wcs.forward_transform
    crpix, cdelt, crval = (
        np.asarray(getattr(transform, name).value, dtype=float)
        for name in ("crpix", "cdelt", "crval")
    )
    pc = np.asarray(transform.pc.value, dtype=float)
    kept |= {
        "crpix1": float(crpix[0] + 1),
        "crpix2": float(crpix[1] + 1),
        "cdelt1": float(cdelt[0]),
        "cdelt2": float(cdelt[1]),
        "crval1": float(crval[0]),
        "crval2": float(crval[1]),
        "pc1_1": float(pc[0, 0]),
        "pc1_2": float(pc[0, 1]),
        "pc2_1": float(pc[1, 0]),
        "pc2_2": float(pc[1, 1]),
        "ctype1": "RA---TAN",
        "ctype2": "DEC--TAN",
        "cunit1": "deg",
        "cunit2": "deg",
        "wcsaxes": 2,
        "radesys": "ICRS",
    }
    if image.s_region:
        kept["s_region"] = image.s_region
    model.meta.wcsinfo = kept


def _describe_times(model: Any, models: list[Any]) -> None:
    """Sum the exposure times; take the earliest start and the latest end."""
    exposure = model.meta.exposure
    for name in TIMES:
        values = [getattr(m.meta.exposure, name) for m in models]
        known = [float(v) for v in values if v is not None]
        if known:
            setattr(exposure, name, sum(known))
    starts = [m.meta.exposure.start_time for m in models if m.meta.exposure.start_time]
    ends = [m.meta.exposure.end_time for m in models if m.meta.exposure.end_time]
    if starts:
        exposure.start_time = min(starts)
    if ends:
        exposure.end_time = max(ends)

"""Subtracted exposures on their way to the combined image, and that image as a product."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.files.exposure import cube_from_model
from lyot.files.headers import ExposureInfo
from lyot.files.products import derived_model
from lyot.files.provenance import provenance_of, star_of
from lyot.files.star import StarPosition
from lyot.parameters import CombineRecipe
from lyot.types import Array, Mask

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
    """The subtracted integrations of one exposure, ready to be combined."""

    sci: Array  # (n_int, n_y, n_x), as are err and bad
    err: Array
    bad: Mask
    wcs: Any  # as the header has it
    wcsinfo: dict[str, Any]
    info: ExposureInfo
    star: StarPosition | None
    target_radec: tuple[float, float] | None  # [degree]
    variances: dict[str, Array] = field(default_factory=dict)  # those of VARIANCES it has
    variance_refs: Array | None = None  # (n_y, n_x), the references' part of the variance
    variance_refs_coherent: Array | None = None


@dataclass(frozen=True, eq=False)
class Combined:
    """One image of the sky, NaN where no pixel contributes; ERR is without covariances."""

    sci: NDArray[np.float32]
    err: NDArray[np.float32]
    wht: NDArray[np.float32]
    con: NDArray[np.int32]  # (n_plane, n_y, n_x)
    variances: dict[str, NDArray[np.float32]]  # where every exposure has them
    wcs: Any
    s_region: str | None
    star: StarPosition | None
    pixel_scale_ratio: float  # output over input
    pixel_area_sr: float


def residuals_from_model(model: Any, bad_bits: str, /) -> Residuals:
    """Take the images of a psfsub product; pixels with a flag of `bad_bits` are left out."""
    cube = cube_from_model(model)
    shape = cube.sci.shape
    recorded = provenance_of(model).get("steps", {}).get("klip", {})
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
        name: None if recorded.get(name) is None else np.asarray(recorded[name], dtype=np.float32)
        for name in ("variance_refs", "variance_refs_coherent")
    }
    return Residuals(
        sci=cube.sci,
        err=cube.err,
        bad=cube.bad(bad_bits),
        wcs=model.meta.wcs if model.meta.hasattr("wcs") else None,
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
    "wcsname",
)
_DETECTOR_PREFIXES = ("cd1_", "cd2_", "a_", "b_", "ap_", "bp_", "sip")


def combined_model(models: list[Any], image: Combined, recipe: CombineRecipe, /) -> Any:
    """Make the i2d product of a combined image; metadata come from the first psfsub model."""
    arrays = {"data": image.sci, "err": image.err, "con": image.con, "wht": image.wht}
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
    keywords = {
        k: v
        for k, v in model.meta.wcsinfo.instance.items()
        if k not in _DETECTOR_KEYWORDS and not k.startswith(_DETECTOR_PREFIXES)
    }
    transform = image.wcs.forward_transform
    names = ("crpix", "cdelt", "crval", "pc")
    values = (np.asarray(getattr(transform, name).value, dtype=float) for name in names)
    keywords |= wcs_keywords(*values)
    if image.s_region:
        keywords["s_region"] = image.s_region
    model.meta.wcsinfo = keywords


def wcs_keywords(crpix: Array, cdelt: Array, crval: Array, pc: Array, /) -> dict[str, Any]:
    """Describe a linear WCS in the tangent plane, with its reference pixel 0-based."""
    keywords: dict[str, Any] = {"wcsaxes": 2, "radesys": "ICRS"}
    for k, kind in enumerate(("RA---TAN", "DEC--TAN")):
        keywords |= {
            f"crpix{k + 1}": float(crpix[k] + 1),
            f"cdelt{k + 1}": float(cdelt[k]),
            f"crval{k + 1}": float(crval[k]),
            f"pc{k + 1}_1": float(pc[k, 0]),
            f"pc{k + 1}_2": float(pc[k, 1]),
            f"ctype{k + 1}": kind,
            f"cunit{k + 1}": "deg",
        }
    return keywords


def _describe_times(model: Any, models: list[Any]) -> None:
    """Sum the exposure times; take the earliest start and the latest end."""
    exposure = model.meta.exposure
    for name in TIMES:
        values = [getattr(m.meta.exposure, name) for m in models]
        recorded = [float(v) for v in values if v is not None]
        if recorded:
            setattr(exposure, name, sum(recorded))
    starts = [m.meta.exposure.start_time for m in models if m.meta.exposure.start_time]
    ends = [m.meta.exposure.end_time for m in models if m.meta.exposure.end_time]
    if starts:
        exposure.start_time = min(starts)
    if ends:
        exposure.end_time = max(ends)

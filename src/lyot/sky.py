"""The subtracted integrations of all exposures, combined into one image of the sky."""

from __future__ import annotations

import copy
import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import tangent_offset
from lyot.errors import LyotError, readable
from lyot.files.astrometry import frame_wcs, pixel_map, turned_to
from lyot.files.combined import VARIANCES, Combined, Residuals
from lyot.files.star import StarPosition, combined_err
from lyot.parameters import CombineRecipe
from lyot.types import Array

log = logging.getLogger(__name__)

MAX_ROLL_DIFFERENCE_DEG, MAX_STAR_DISTANCE_PIX = 0.05, 0.2
"""Exposures that differ by less see the same speckles on the same pixels."""
NOISE_STEP_PIX = 4
"""Every which pixel the noise of an exposure is read at."""
MAX_TARGET_ARCSEC = 60.0
"""How far from its star an exposure may say that its target is: JWST points far better."""
MAX_GROWTH = 100.0
"""How much larger than a frame the combined image is at most, at the scale of the frame."""


def combine(exposures: list[Residuals], recipe: CombineRecipe, /) -> Combined:
    """Drizzle all integrations of all exposures onto one grid.

    ERR takes the noise of the references as common to all integrations of a roll, because they
    subtract the same references. An exposure without a WCS is refused.
    """
    if not exposures:
        raise LyotError("There is no subtracted exposure to combine.")
    for exposure in exposures:
        if exposure.wcs is None:
            raise LyotError(
                f"{exposure.info.name} has no WCS, so it cannot be placed on the sky; run "
                "assign_wcs on it, or skip the step resample."
            )
    name, ratio = exposures[0].info.name, recipe.pixel_scale_ratio
    with readable(f"The WCS of {name}", "run assign_wcs again, or skip the step resample"):
        anchored = anchored_wcs(exposures, recipe)
        wcs = _output_wcs(anchored, exposures, recipe)
    n_y, n_x = exposures[0].sci.shape[-2:]
    if np.prod(wcs.array_shape) * ratio**2 > MAX_GROWTH * n_y * n_x:
        raise LyotError(
            f"The WCS of {name} asks for a combined image of {wcs.array_shape} pixels; run "
            "assign_wcs again."
        )
    layers = _layers(anchored, exposures, _Grid(wcs, recipe))
    if not np.isfinite(layers["sci"]).any():
        raise LyotError(
            f"No pixel of {name} counts in the combined image: all are flagged, or have no valid "
            "VAR_RNOISE; change bad_bits or weight_type.",
            parameter="bad_bits",
        )
    stars, star = [(e.star, w) for e, w in zip(exposures, anchored, strict=True) if e.star], None
    if stars:
        sky = _star_on_sky(stars[0][1], stars[0][0])
        x, y = (float(v) for v in wcs.invert(*sky, with_bounding_box=False))
        err = combined_err([e.star for e in exposures if e.star]) / ratio
        star = StarPosition(x, y, err, err, stars[0][0].origin)
    area = float(np.abs(np.linalg.det(wcs.forward_transform.pc.value))) * np.prod(
        np.deg2rad(wcs.forward_transform.cdelt.value)
    )
    return Combined(
        **layers,
        wcs=wcs,
        s_region=_footprint(anchored, exposures, wcs),
        star=star,
        pixel_scale_ratio=ratio,
        pixel_area_sr=float(area),
    )


def _star_on_sky(wcs: Any, star: StarPosition) -> tuple[float, float]:
    """Where a WCS puts a star [degree]."""
    ra, dec = wcs(star.x, star.y, with_bounding_box=False)
    return float(ra), float(dec)


def anchored_wcs(exposures: list[Residuals], recipe: CombineRecipe, /) -> list[Any]:
    """Return the WCS of each exposure, moved on the sky so that all stars fall on one position.

    That is the target's; where the first exposure names none, or one more than an arcminute away,
    it is where its header puts the star. Scales, skew and distortion stay those about the star's
    pixel. They are copies, without bounding boxes; with ``align_on = "header"`` nothing is moved.
    """
    if recipe.align_on == "header":
        return [_without_bounding_box(e.wcs) for e in exposures]
    anchored, sky = [], None
    for e in exposures:
        wcs = frame_wcs(e.wcs, e.wcsinfo, e.info)
        if e.star is None:
            log.warning("The star of %s is unknown; the WCS of its header is used.", e.info.name)
        else:
            there = _star_on_sky(wcs, e.star)
            if not np.isfinite(there).all():
                raise LyotError(
                    f"The WCS of {e.info.name} has no sky at its star, (x, y) = ({e.star.x:.1f}, "
                    f"{e.star.y:.1f}); combine with align_on = header."
                )
            sky = sky or _target(e, there)
            east, north = tangent_offset(*there, sky)
            log.info(
                "The header of %s puts its star %.3f arcsec to the east and %.3f to the north.",
                e.info.name,
                east,
                north,
            )
            wcs = turned_to(wcs, there, sky)
        anchored.append(wcs)
    return anchored


def _target(exposure: Residuals, there: tuple[float, float]) -> tuple[float, float]:
    """Where the target is [degree], if the star can be there; else where the header puts it."""
    target = exposure.target_radec or there
    distance = float(np.hypot(*tangent_offset(*target, there)))
    if distance <= MAX_TARGET_ARCSEC:
        return target
    log.warning(
        "TARG_RA and TARG_DEC of %s are %.0f arcsec from where its header puts its star; the star "
        "stays there. Correct them, or its pointing (run assign_wcs again).",
        exposure.info.name,
        distance,
    )
    return there


def _without_bounding_box(wcs: Any) -> Any:
    wcs = copy.deepcopy(wcs)
    wcs.bounding_box = None
    return wcs


def _sky_footprint(wcs: Any, exposure: Residuals) -> NDArray[np.float64]:
    n_y, n_x = exposure.sci.shape[-2:]
    x = np.array([-0.5, n_x - 0.5, n_x - 0.5, -0.5])
    y = np.array([-0.5, -0.5, n_y - 0.5, n_y - 0.5])
    return np.stack(wcs(x, y, with_bounding_box=False), axis=1)


def _output_wcs(anchored: list[Any], exposures: list[Residuals], recipe: CombineRecipe) -> Any:
    """Return the WCS that holds all exposures, by the rules of the official pipeline."""
    from stcal.alignment.util import compute_scale, wcs_from_sregions

    info = exposures[0].wcsinfo
    fiducial = np.array([info["ra_ref"], info["dec_ref"]])
    scale = float(compute_scale(anchored[0], fiducial)) * recipe.pixel_scale_ratio
    headers = [e.wcsinfo.get("s_region") for e in exposures]
    if recipe.align_on == "header" and all(headers):
        footprints: list[Any] = [str(h) for h in headers]
    else:
        footprints = [_sky_footprint(w, e) for w, e in zip(anchored, exposures, strict=True)]
    return wcs_from_sregions(
        footprints,
        ref_wcs=anchored[0],
        ref_wcsinfo=info,
        pscale_ratio=recipe.pixel_scale_ratio,
        pscale=scale,
        rotation=recipe.rotation,
    )


def _weight(exposure: Residuals, i: int, recipe: CombineRecipe) -> NDArray[np.float32]:
    """Weight of the pixels of one integration: zero where it is bad."""
    good = ~exposure.bad[i] & np.isfinite(exposure.sci[i])
    if recipe.weight_type == "exptime":
        time = exposure.info.exposure_time_s
        return np.where(good, np.float32(time if 0 < time < np.inf else 1.0), np.float32(0))
    noise = exposure.variances.get("var_rnoise")
    if recipe.weight_type == "uniform" or noise is None:
        return good.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / noise[i]
    return np.where(good & np.isfinite(inverse), inverse, 0.0).astype(np.float32)


def _noise_weights(exposures: list[Residuals], recipe: CombineRecipe) -> list[float]:
    """Weight of an integration of each exposure by its noise, 1 on average over all integrations.

    The inverse variance of the mean of the exposure, in equal parts: integrations share the noise
    of the references. 1 where pixels are weighted in another way, or ERR is not known.
    """
    if recipe.weight_type != "ivm" or all("var_rnoise" in e.variances for e in exposures):
        return [1.0] * len(exposures)
    inverse = []
    for e in exposures:
        part = (slice(None, None, NOISE_STEP_PIX),) * 2
        own = np.mean(np.square(e.err[:, *part], dtype=np.float64), axis=0)
        if e.variance_refs is not None:
            own = np.maximum(own - e.variance_refs[part], 0.0)
        variance = own / len(e.sci)
        if e.variance_refs_coherent is not None:
            variance = variance + e.variance_refs_coherent[part]
        known = variance[np.isfinite(variance) & (variance > 0)]
        inverse.append(1.0 / float(np.median(known)) if known.size else np.nan)
    if not np.isfinite(inverse).all():
        return [1.0] * len(exposures)
    numbers = np.array([len(e.sci) for e in exposures], np.float64)
    return [float(w) for w in np.array(inverse) / numbers * (numbers.sum() / np.sum(inverse))]


class _Grid(NamedTuple):
    """The output pixels, and how input pixels are put onto them."""

    wcs: Any
    recipe: CombineRecipe

    def empty(self, **options: Any) -> Any:
        """Return an empty image, to be drizzled onto."""
        from drizzle.resample import Drizzle

        return Drizzle(
            kernel=self.recipe.kernel,
            fillval="NAN",
            fillval2="NAN",
            out_shape=self.wcs.array_shape,
            **options,
        )

    def add(self, image: Any, sci: Array, squared: list[Array], weight: Array, pixmap: Any) -> None:
        """Drizzle a frame onto an image; `squared` are layers of variance."""
        image.add_image(
            sci,
            exptime=1.0,
            pixmap=pixmap,
            data2=squared,
            weight_map=weight,
            pixfrac=self.recipe.pixfrac,
            pixel_scale_ratio=self.recipe.pixel_scale_ratio,
            in_units="cps",
        )


def _layers(anchored: list[Any], exposures: list[Residuals], grid: _Grid) -> dict[str, Any]:
    """Drizzle all integrations of all exposures: image, error, weights, context, variances."""
    names = [v for v in VARIANCES if all(v in e.variances for e in exposures)]
    by_noise = _noise_weights(exposures, grid.recipe)
    frames = [
        (members, weight * np.float32(factor))
        for (members, weight), factor in zip(
            (_frames_of(exposure, grid.recipe) for exposure in exposures), by_noise, strict=True
        )
    ]
    image = grid.empty(max_ctx_id=sum(len(members) for members, _ in frames) - 1)
    maps, weights = [], []
    for wcs, exposure, (members, weight) in zip(anchored, exposures, frames, strict=True):
        pixmap = pixel_map(wcs, grid.wcs, exposure.sci.shape[-2:])
        for rows in members:
            grid.add(image, *_mean_frame(exposure, rows, weight[rows], names), pixmap)
        maps.append(pixmap)
        weights.append(weight.sum(axis=0, dtype=np.float64))
    independent, *variances = image.out_img2
    coherent = _coherent_variance(exposures, weights, grid, maps)
    variance = independent if coherent is None else independent + coherent
    err = np.sqrt(np.maximum(variance, 0.0))
    err[~np.isfinite(image.out_img)] = np.nan
    return {
        "sci": image.out_img,
        "err": err.astype(np.float32),
        "wht": image.out_wht,
        "con": _context(image.out_ctx, [members for members, _ in frames]),
        "variances": dict(zip(names, variances, strict=True)),
    }


def _frames_of(
    exposure: Residuals, recipe: CombineRecipe
) -> tuple[list[list[int]], NDArray[np.float32]]:
    """Return which integrations have the same good pixels, and the weights of all.

    They fall on the same output pixels, with the same shares: their mean is drizzled once.
    """
    weight = np.stack([_weight(exposure, i, recipe) for i in range(len(exposure.sci))])
    groups: dict[bytes, list[int]] = {}
    for i, used in enumerate(weight > 0):
        groups.setdefault(np.packbits(used).tobytes(), []).append(i)
    return list(groups.values()), weight


def _mean_frame(
    exposure: Residuals, rows: list[int], weight: NDArray[np.float32], names: list[str]
) -> tuple[Array, list[Array], Array]:
    r"""Return the mean of some integrations, its layers of variance, and its weight.

    With weights w it is :math:`\sum w s / \sum w`, of variance
    :math:`\sum w^2 v / (\sum w)^2`. Their noise is independent but for the part that comes from
    the references.
    """
    total = weight.sum(axis=0, dtype=np.float64)
    safe = np.where(total > 0, total, 1.0)
    share = np.where(total > 0, weight / safe, 0.0)
    used = total > 0
    sci = np.zeros(total.shape)
    layers = [np.zeros(total.shape) for _ in range(1 + len(names))]
    for i, part in zip(rows, share, strict=True):
        variance = np.square(exposure.err[i], dtype=np.float64)
        if exposure.variance_refs is not None:
            variance = variance - exposure.variance_refs
        sci += part * np.where(used, exposure.sci[i], 0.0)
        of_integration = (variance, *(exposure.variances[name][i] for name in names))
        for layer, values in zip(layers, of_integration, strict=True):
            layer += part**2 * np.where(used, values, 0.0)
    as_float32 = [layer.astype(np.float32) for layer in layers]
    return sci.astype(np.float32), as_float32, total.astype(np.float32)


def _context(of_frames: Any, members: list[list[list[int]]]) -> NDArray[np.int32]:
    """Return one bit for each integration of all exposures: that of the frame it is in."""
    n_bits, shape = 32, of_frames.shape[1:]
    n_int = [sum(map(len, groups)) for groups in members]
    planes = np.zeros((-(-sum(n_int) // n_bits), *shape), np.uint32)
    frame, first = 0, 0
    for groups, n in zip(members, n_int, strict=True):
        for rows in groups:
            plane, bit = divmod(frame, n_bits)
            seen = (of_frames.view(np.uint32)[plane] >> np.uint32(bit)) & np.uint32(1)
            for i in rows:
                plane, bit = divmod(first + i, n_bits)
                planes[plane] |= seen << np.uint32(bit)
            frame += 1
        first += n
    return planes.view(np.int32)


def _coherent_variance(
    exposures: list[Residuals], weights: list[Array], grid: _Grid, maps: list[Any]
) -> Any:
    """Return the variance from the references, which does not average down in a roll.

    All integrations of a roll subtract the same references, so their errors from them add
    linearly: the error of the roll is their weighted mean. Those of several rolls are taken as
    independent. None where no exposure records it.
    """
    rolls = _roll_groups(exposures)
    members: dict[int, list[tuple[Array, Array]]] = {}
    for roll, exposure, weight in zip(rolls, exposures, weights, strict=True):
        if exposure.variance_refs_coherent is not None:
            sigma = np.sqrt(np.nan_to_num(exposure.variance_refs_coherent))
            members.setdefault(roll, []).append((weight, sigma))
    if not members:
        return None
    image = grid.empty(disable_ctx=True)
    for roll, parts in members.items():
        weight = np.sum([w for w, _ in parts], axis=0)
        sigma = np.sum([w * s for w, s in parts], axis=0) / np.where(weight > 0, weight, 1.0)
        grid.add(
            image,
            np.zeros(weight.shape, np.float32),
            [(sigma**2).astype(np.float32)],
            weight.astype(np.float32),
            maps[rolls.index(roll)],
        )
    return image.out_img2[0]


def _roll_groups(exposures: list[Residuals]) -> list[int]:
    """Number the exposures that see the sky alike: same roll, star on the same pixel."""
    groups: list[int] = []
    for e, exposure in enumerate(exposures):
        alike = (groups[other] for other in range(e) if _seen_alike(exposure, exposures[other]))
        groups.append(next(alike, e))
    return groups


def _seen_alike(a: Residuals, b: Residuals) -> bool:
    turn = abs((a.info.roll_ref_deg - b.info.roll_ref_deg + 180.0) % 360.0 - 180.0)
    if not turn < MAX_ROLL_DIFFERENCE_DEG or a.sci.shape[-2:] != b.sci.shape[-2:]:
        return False
    if a.star is None or b.star is None:
        return True
    return float(np.hypot(a.star.x - b.star.x, a.star.y - b.star.y)) < MAX_STAR_DISTANCE_PIX


def _footprint(anchored: list[Any], exposures: list[Residuals], wcs: Any) -> str | None:
    """Union of the footprints, as S_REGION."""
    from stcal.alignment.resample_utils import combine_sregions

    regions = [_sky_footprint(w, e) for w, e in zip(anchored, exposures, strict=True)]
    texts = ["POLYGON ICRS  " + " ".join(f"{v:.9f}" for v in r.ravel()) for r in regions]
    try:
        return str(combine_sregions(texts, wcs.forward_transform))
    except (ValueError, TypeError) as err:
        log.warning("The footprints could not be joined (%s); the product has no S_REGION.", err)
        return None

"""Frames with their errors and flags, from files and from stdatamodels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.compute import memory
from lyot.errors import LyotError, readable
from lyot.files.headers import (
    MODE,
    ExposureInfo,
    info_from_headers,
    info_from_model,
    keep_refused_keywords,
    open_fits,
)
from lyot.files.provenance import check_branches, in_memory
from lyot.files.trees import check_tree
from lyot.types import Array, Mask

log = logging.getLogger(__name__)

MAX_BRIGHTNESS = 1e15
"""Surface brightness that no pixel has [MJy/sr]."""
MIN_VALID_FRACTION = 0.05
"""Pixels of a frame that must have a value."""


@dataclass(frozen=True, eq=False)
class Cube:
    """The integrations of an exposure, or a stack of frames.

    Attributes
    ----------
    sci, err : ndarray, shape (n, n_y, n_x), float32
        Surface brightness and its error [MJy/sr]; the error is NaN where it is missing.
    dq : ndarray, shape (n, n_y, n_x), uint32
        Data quality flags.
    info : ExposureInfo
        What the headers say; in a stack, those of the first exposure.
    dither_arcsec : ndarray, shape (n, 2), or None
        XOFFSET and YOFFSET of each frame of a stack [arcsec].
    targets : tuple of str
        Target of each frame of a stack; empty where the headers do not name it.
    pa_y_deg, mjd : ndarray, shape (n,), or None
        Position angle of the y axis of each frame of a stack [degree], start of its exposure [day].
    shared_variance : ndarray, shape (n_y, n_x), or None
        Part of the variance that is common to all integrations: that of a background that was
        subtracted from them.

    Examples
    --------
    >>> cube = read_cube("science_calints.fits")
    >>> cube.frame_shape, bool(cube.bad("DO_NOT_USE").any())
    ((48, 52), True)
    """

    sci: NDArray[np.float32]
    err: NDArray[np.float32]
    dq: NDArray[np.uint32]
    info: ExposureInfo
    dither_arcsec: NDArray[np.float64] | None = None
    targets: tuple[str, ...] = ()
    pa_y_deg: NDArray[np.float64] | None = None
    mjd: NDArray[np.float64] | None = None
    shared_variance: NDArray[np.floating] | None = None

    def __repr__(self) -> str:
        n, n_y, n_x = self.sci.shape
        return f"<Cube {self.info.name}: {n} frames of {n_y} x {n_x}, {self.info.mode_text}>"

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Shape ``(n_y, n_x)`` of a frame."""
        return (int(self.sci.shape[1]), int(self.sci.shape[2]))

    def bad(self, bits: str) -> Mask:
        """Return the bad pixels: SCI is not finite, or one of the DQ flags `bits` is set."""
        flags = np.uint32(self.info.instrument_value.flag_value(bits))
        out = memory.empty(self.sci.shape, bool)
        for frame, sci, dq in zip(out, self.sci, self.dq, strict=True):
            np.logical_or(~np.isfinite(sci), (dq & flags) != 0, out=frame)
            memory.relieve()
        return out

    def variance(self) -> NDArray[np.float32]:
        """Return the squared error; where it is missing, the median of its frame is taken."""
        out = memory.empty(self.err.shape, np.float32)
        for frame, err in zip(out, self.err, strict=True):
            memory.relieve()
            valid = (err >= 0) & (err <= MAX_BRIGHTNESS)
            if not valid.all():
                typical = np.float32(np.median(err[valid]) if valid.any() else 0.0)
                err = np.where(valid, err, typical)
            np.square(err, out=frame, dtype=np.float32)
        return out


def _as_cube(arrays: list[Any], info: ExposureInfo) -> Cube:
    """Make a cube of native arrays; two-dimensional input becomes one integration."""
    sci, err, dq = arrays
    if sci is None or np.ndim(sci) not in (2, 3) or 0 in np.shape(sci):
        shape = "no" if sci is None else str(np.shape(sci))
        raise LyotError(f"{info.name} holds {shape} SCI data; an exposure is (n_int, n_y, n_x).")
    sci = np.asarray(sci, dtype=np.float32).reshape(-1, *np.shape(sci)[-2:])
    err = _matching(err, sci.shape, np.float32, np.nan, f"ERR of {info.name}")
    dq = _matching(dq, sci.shape, np.uint32, 0, f"DQ of {info.name}")
    frames = list(sci)
    checked = [_checked(f, f"Integration {i + 1} of {info.name}") for i, f in enumerate(frames)]
    if any(new is not old for new, old in zip(checked, frames, strict=True)):
        sci = np.stack(checked)
    largest = np.fmax.reduce(err, axis=None) if len(err) else np.nan
    if largest > MAX_BRIGHTNESS:
        err = np.where(err > MAX_BRIGHTNESS, np.float32(np.nan), err)
        log.warning("ERR of %s beyond %g MJy/sr is not known.", info.name, MAX_BRIGHTNESS)
    elif len(err) and not largest > 0:
        log.warning("ERR of %s holds no positive value: its errors are not known.", info.name)
    return Cube(sci, err, dq, info)


def _checked(frame: NDArray[np.float32], what: str) -> NDArray[np.float32]:
    """Refuse a frame that no camera takes; a copy has NaN for impossible values, with a warning."""
    valid = frame[np.isfinite(frame)]
    if len(valid) and max(-valid.min(), valid.max()) > MAX_BRIGHTNESS:
        frame = np.where(np.abs(frame) > MAX_BRIGHTNESS, np.float32(np.nan), frame)
        n, valid = len(valid), frame[np.isfinite(frame)]
        log.warning("%s: %d pixels beyond %g MJy/sr are bad.", what, n - len(valid), MAX_BRIGHTNESS)
    if len(valid) < MIN_VALID_FRACTION * frame.size or not len(valid):
        raise LyotError(f"{what} has {len(valid) or 'no'} finite pixels; leave the exposure out.")
    if valid.min() == valid.max() and len(valid) > 1:
        value = f"{valid[0]:g}" if valid[0] else "zero"
        raise LyotError(f"{what} is {value} everywhere; leave the exposure out.")
    return frame


def _matching(array: Any, shape: tuple[int, ...], dtype: Any, default: Any, what: str) -> Array:
    if array is None:
        return np.full(shape, default, dtype=dtype)
    if np.shape(array) not in (shape, shape[1:] if shape[0] == 1 else shape):
        raise LyotError(
            f"{what} has the shape {np.shape(array)}, and SCI {shape}; fetch the file again."
        )
    return np.asarray(array).astype(dtype).reshape(shape)


def cube_from_model(model: Any, /) -> Cube:
    """Take the frames of a stdatamodels model, which is not changed."""
    arrays = [model.getarray_noinit(k) if model.hasattr(k) else None for k in ("data", "err", "dq")]
    if arrays[0] is None or np.ndim(arrays[0]) < 2:
        raise LyotError(f"{model.meta.filename or 'The model'} has no data.")
    cube = _as_cube(arrays, info_from_model(model))
    steps = model.instance.get("lyot", {}).get("steps", {})
    cube = with_recorded_variance(cube, steps)
    stacked = steps.get("stack_psfs", {})
    if stacked.get("dither_arcsec") is None:
        return cube
    with readable(f"The stack {cube.info.name}", "run the pipeline again"):
        of_frames: dict[str, Any] = {
            name: np.asarray(stacked[name], dtype=np.float64)
            for name in ("dither_arcsec", "pa_y_deg", "mjd")
            if stacked.get(name) is not None
        }
        targets = tuple(str(name) for name in stacked.get("targets", ()))
        if any(len(values) != len(cube.sci) for values in of_frames.values()):
            raise ValueError("it does not record each of its frames")
        return replace(cube, targets=targets, **of_frames)


def with_recorded_variance(cube: Cube, steps: Mapping[str, Any], /) -> Cube:
    """Return an exposure with the shared variance that its product records, where it does."""
    shared = np.asarray(steps.get("background", {}).get("shared_variance", 0.0), np.float32)
    return replace(cube, shared_variance=shared) if shared.shape == cube.frame_shape else cube


def read_cube(path: str | Path, /) -> Cube:
    """Read an exposure into memory without stdatamodels, which takes twenty times as long.

    Parameters
    ----------
    path : path
        A calibrated exposure.

    Returns
    -------
    Cube

    Raises
    ------
    LyotError
        If the file cannot be read, has no SCI image, or an integration has no finite pixel.

    Examples
    --------
    >>> cube = read_cube("science_calints.fits")
    >>> cube.sci.shape, cube.info.filter
    ((2, 48, 52), 'F444W')
    """
    with readable(path), open_fits(path, memmap=False) as hdus:
        if "SCI" not in hdus:
            raise LyotError(f"{path} has no SCI image; it is no calibrated exposure.")
        arrays = [hdus[k].data if k in hdus else None for k in ("SCI", "ERR", "DQ")]
        shape = () if arrays[0] is None else arrays[0].shape
        info = info_from_headers(
            hdus[0].header, hdus["SCI"].header, name=Path(path).name, shape=shape
        )
        return _as_cube(arrays, info)


def check_same_mode(first: ExposureInfo, other: ExposureInfo, /) -> None:
    """Refuse exposures that differ in shape, or in mode or unit where both headers name them."""
    if first.shape[-2:] != other.shape[-2:]:
        raise LyotError(
            f"Frames of {other.name} are {other.shape[-2:]} pixels and those of {first.name} "
            f"{first.shape[-2:]}; they must be equal."
        )
    for what in (*MODE, "unit"):
        a, b = getattr(first, what), getattr(other, what)
        if a and b and a != b:
            raise LyotError(
                f"{other.name} was taken with {what} {b} and {first.name} with {a}; references "
                "must be of the same mode."
            )


def as_model(source: Any, kind: str, /) -> Any:
    """Open a file as the stdatamodels class of name `kind`; a model is passed on.

    An image becomes a cube of one integration.
    """
    from stdatamodels.jwst import datamodels

    if not isinstance(source, str | Path):
        return source
    with readable(source), warnings.catch_warnings(), open_fits(source, memmap=False) as hdus:
        warnings.simplefilter("ignore")
        _check_tree_of(hdus, source)
        is_image = kind == "CubeModel" and "SCI" in hdus and hdus["SCI"].header["NAXIS"] == 2
        model = getattr(datamodels, "ImageModel" if is_image else kind)(hdus)
        if is_image:
            model = _as_cube_model(model)
        _check_read(model, source)
        keep_refused_keywords(model, hdus[0].header)
    return model


def _as_cube_model(image: Any) -> Any:
    """Make of the model of an image that of a cube with one integration."""
    from stdatamodels.jwst import datamodels

    cube = datamodels.CubeModel()
    cube.update(image, extra_fits=True)
    if image.meta.hasattr("wcs"):
        cube.meta.wcs = image.meta.wcs
    for name in ("data", "err", "dq", "var_poisson", "var_rnoise", "var_flat"):
        array = image.getarray_noinit(name) if image.hasattr(name) else None
        if array is not None and np.ndim(array) == 2:
            setattr(cube, name, array[None])
    image.close()
    return cube


def open_model(source: Any, /, **options: Any) -> Any:
    """Open a file as the stdatamodels class that its header names; options are of stdatamodels."""
    from stdatamodels.jwst import datamodels

    if isinstance(source, str | Path) and ".fits" in Path(source).suffixes:
        with readable(source), open_fits(source) as hdus:
            _check_tree_of(hdus, source)
    with readable(source):
        model = datamodels.open(source, **options)
        _check_read(model, source)
    return model


def _check_read(model: Any, source: object) -> None:
    """Refuse a damaged tree; an array that it does not describe fails here."""
    tree = getattr(model, "instance", {})
    check_branches(tree, source)
    in_memory(tree)


def _check_tree_of(hdus: Any, path: str | Path) -> None:
    """Refuse a tree that stdatamodels would not end to read, or that leads it to other files."""
    if "ASDF" in hdus:
        check_tree(np.asarray(hdus["ASDF"].data).tobytes(), path)


def stack(cubes: Iterable[Cube], /) -> Cube:
    """Concatenate exposures, or stacks, of one mode, taken one by one; the first gives the info."""
    names = ("sci", "err", "dq", "dither_arcsec", "pa_y_deg", "mjd")
    first: ExposureInfo | None = None
    targets: tuple[str, ...] = ()
    parts: dict[str, list[Array]] = {name: [] for name in names}
    for cube in cubes:
        info, n = cube.info, len(cube.sci)
        first = first or info
        check_same_mode(first, info)
        if cube.dither_arcsec is None:
            cube = replace(
                cube,
                dither_arcsec=np.tile(info.dither_arcsec, (n, 1)),
                targets=(info.target,) * n,
                pa_y_deg=np.full(n, info.pa_y_deg),
                mjd=np.full(n, info.mjd),
            )
        for name, arrays in parts.items():
            arrays.append(getattr(cube, name))
        targets += cube.targets
    if first is None:
        raise LyotError(
            "There is no psf member to subtract with; add reference exposures of exptype 'psf'."
        )
    # One array after another, so that the parts of each can go before the next is joined.
    joined: dict[str, Any] = {name: _joined(parts.pop(name)) for name in names}
    return Cube(info=first, targets=targets, **joined)


def _joined(parts: list[Array]) -> Array:
    """Concatenate arrays; a single one is taken as it is."""
    if len(parts) == 1:
        return parts[0]
    out = memory.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    first = 0
    while parts:
        part = parts.pop(0)
        out[first : first + len(part)] = part
        first += len(part)
        memory.relieve()
    return out

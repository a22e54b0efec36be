"""What the headers of an exposure say that a reduction needs."""

from __future__ import annotations

import gzip
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lyot.algorithms.geometry import position_angle_of_y
from lyot.errors import LyotError, readable
from lyot.files.provenance import set_keyword
from lyot.files.star import StarPosition
from lyot.instruments import INSTRUMENTS, UNNAMED
from lyot.instruments.coronagraphs import Coronagraph
from lyot.instruments.filters import Filter
from lyot.instruments.instrument import Instrument, Keywords
from lyot.instruments.telescope import ARCSEC_PER_RADIAN

MODE = ("instrument", "detector", "filter", "pupil", "coronagraph", "subarray", "aperture")
"""Facts that must be equal for two exposures to be subtracted from one another."""

SCIENCE, PSF, BACKGROUND = "science", "psf", "background"
ACQUISITION, CONFIRMATION = "target_acquisition", "confirmation"
ACQUISITIONS = {"TACQ": ACQUISITION, "TACONFIRM": CONFIRMATION}
"""Endings of EXP_TYPE, and what such exposures are called in associations."""

_BACKGROUND_NAME = re.compile(r"(?:^|[^a-z])(?:background|backgnd|bkgd?)(?![a-z])", re.IGNORECASE)

PIXEL_AREAS_SR = (1e-16, 1e-6)
"""Areas that a pixel may have: from 2 mas to 3 arcmin wide [sr]."""
MAX_ACQUISITION_PIX = 5.0
"""How far from the reference point of its aperture a star lies at most."""
MAX_EXPANSION = 100
"""How much larger than on disk a compressed exposure is at most."""
MIN_PACKED_BYTES = 2**20
"""Smaller compressed files may grow as much as one of this size."""
MAX_HEADER_BLOCKS = 2_000
"""Blocks of 36 cards in a header."""
MAX_REST_BYTES = 28_800
"""Bytes after the last extension: some tools pad files to ten blocks."""
_FITS, _EXTENSION, _GZIP = b"SIMPLE", b"XTENSION", b"\x1f\x8b"
_BLOCK, _CARD = 2880, 80
_HUGE = re.compile(rb"[EeDd]\+?\d{3}")


@dataclass(frozen=True)
class ExposureInfo:
    """Facts about an exposure.

    Attributes
    ----------
    name : str
        File name.
    shape : tuple of int
        Shape of SCI, ``(n_int, n_y, n_x)`` or ``(n_y, n_x)``.
    instrument, detector, filter, pupil, coronagraph, subarray, aperture, program, target : str
        As in the headers; empty where they are missing.
    exposure_type, visit, guide_star, pointing : str
        EXP_TYPE, VISIT_ID, GDSTARID and ENGQLPTG.
    is_psf, is_background : bool
        Whether the exposure is of a reference star, or of a dedicated background.
    exposure_time_s, mjd : float
        Effective exposure time [s] and start, EXPSTART [day]; NaN where they are missing.
    roll_ref_deg, v3i_yangle_deg, vparity, pixel_area_sr : float
        ROLL_REF and V3I_YANG [degree], VPARITY, PIXAR_SR; NaN where they are missing.
    wcs_pa_y_deg : float
        Position angle of the y axis by the linear WCS, PC1_2 and PC2_2 [degree]; NaN without them.
    fast_axis : int
        FASTAXIS without its sign: 1 where pixels are read along x, 2 along y.
    dither_arcsec : tuple of float
        XOFFSET and YOFFSET [arcsec].
    corner_xy : tuple of float or None
        Where the first pixel of the frames lies on the detector [pixel, 0-based].
    crpix_xy, star_xy, mask_xy : tuple of float or None
        CRPIX, STARCENX/Y and MASKCENX/Y [pixel, 0-based].
    unit : str
        BUNIT of SCI; empty where it is missing.
    acquired : StarPosition or None
        The star by target acquisitions, where a run has measured it in them.

    Examples
    --------
    >>> mode = {"instrument": "MIRI", "filter": "F1140C", "coronagraph": "4QPM_1140"}
    >>> info = ExposureInfo("x_calints.fits", (10, 224, 288), **mode)
    >>> info.coronagraph_value.deforms_with_offset, round(info.lambda_over_d_pix, 2)
    (True, 3.23)
    """

    name: str
    shape: tuple[int, ...]
    instrument: str = ""
    detector: str = ""
    filter: str = ""
    pupil: str = ""
    coronagraph: str = ""
    subarray: str = ""
    aperture: str = ""
    program: str = ""
    target: str = ""
    exposure_type: str = ""
    visit: str = ""
    guide_star: str = ""
    pointing: str = ""
    is_psf: bool = False
    is_background: bool = False
    exposure_time_s: float = np.nan
    roll_ref_deg: float = np.nan
    v3i_yangle_deg: float = np.nan
    vparity: int = -1
    wcs_pa_y_deg: float = np.nan
    fast_axis: int = 1
    dither_arcsec: tuple[float, float] = (0.0, 0.0)
    corner_xy: tuple[float, float] | None = None
    crpix_xy: tuple[float, float] | None = None
    star_xy: tuple[float, float] | None = None
    mask_xy: tuple[float, float] | None = None
    pixel_area_sr: float = np.nan
    unit: str = ""
    mjd: float = np.nan
    acquired: StarPosition | None = None

    @property
    def mode(self) -> tuple[str, ...]:
        """What must be equal for two exposures to be subtracted from one another."""
        return tuple(getattr(self, name) for name in MODE)

    @property
    def role(self) -> str:
        """What the exposure is for, in the words of associations."""
        for ending, role in ACQUISITIONS.items():
            if self.exposure_type.endswith(ending):
                return role
        return BACKGROUND if self.is_background else PSF if self.is_psf else SCIENCE

    @property
    def pa_y_deg(self) -> float:
        """Position angle of the y axis [degree], by the WCS, else the roll; NaN without both."""
        if np.isfinite(self.wcs_pa_y_deg):
            return self.wcs_pa_y_deg
        v3i = self.v3i_yangle_deg if np.isfinite(self.v3i_yangle_deg) else 0.0
        return position_angle_of_y(self.roll_ref_deg, v3i, self.vparity)

    @property
    def star_along_mask_arcsec(self) -> float:
        """Where along the mask the mask's place for stars lies, from its middle [arcsec]."""
        return self.coronagraph_value.star_x_arcsec(self.filter, self.aperture)

    def mask_yx(self, star: StarPosition, /) -> tuple[float, float]:
        """Where the mask's place for stars lies [pixel, 0-based].

        By MASKCENX/Y, else CRPIX, the reference point of the aperture, where that is near the star
        as target acquisition leaves it; else the star itself.
        """
        x, y = self.mask_xy or self.crpix_xy or (np.inf, np.inf)
        near = np.hypot(x - star.x, y - star.y) < MAX_ACQUISITION_PIX
        return (y, x) if near or self.mask_xy else star.yx

    def along_mask_arcsec(
        self, shape: tuple[int, int], star: StarPosition, /
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the place of each pixel along the two axes of the mask [arcsec]."""
        y0, x0 = self.mask_yx(star)
        y, x = np.indices(shape) * self.pixel_scale_arcsec
        scale = self.pixel_scale_arcsec
        return self.coronagraph_value.along_axes(x - scale * x0, y - scale * y0)

    @property
    def mode_text(self) -> str:
        """The mode in words."""
        parts = (self.instrument, self.filter, self.pupil, self.coronagraph, self.subarray)
        return " ".join(part for part in parts if part) or "an unnamed mode"

    @property
    def instrument_value(self) -> Instrument:
        """The instrument; one without filters and coronagraphs where the header names none."""
        return INSTRUMENTS.get(self.instrument, UNNAMED)

    @property
    def filter_value(self) -> Filter | None:
        """The filter; None where the instrument has none of that name."""
        return self.instrument_value.find_filter(self.filter)

    @property
    def coronagraph_value(self) -> Coronagraph:
        """The coronagraph; a `lyot.instruments.coronagraphs.NoMask` where there is no model."""
        return self.instrument_value.find_coronagraph(self.coronagraph)

    @property
    def pixel_scale_arcsec(self) -> float:
        """Pixel scale [arcsec]: from the pixel area, else the nominal one of the channel."""
        if np.isfinite(self.pixel_area_sr) and self.pixel_area_sr > 0:
            return float(np.sqrt(self.pixel_area_sr)) * ARCSEC_PER_RADIAN
        channel = self.instrument_value.channel(detector=self.detector, filter=self.filter)
        return channel.pixel_scale_arcsec

    @property
    def lambda_over_d_pix(self) -> float:
        """Wavelength over telescope diameter [pixel]; 2 where the filter is not known."""
        value = self.filter_value
        if value is None:
            return 2.0
        return self.instrument_value.lambda_over_d_arcsec(value) / self.pixel_scale_arcsec

    @property
    def fwhm_pix(self) -> float:
        """Width of the image of a point source, of the optics alone [pixel]."""
        return 1.03 * self.lambda_over_d_pix


_TEXT = (*MODE[1:], "program", "exposure_type", "visit", "guide_star", "pointing")
"""Facts in capitals, whose keywords are the fields of the same name of `Keywords`."""
_TRUE = (True, "T", "True", 1)


def info_from_headers(
    primary: Mapping[str, Any], sci: Mapping[str, Any], /, *, name: str, shape: tuple[int, ...]
) -> ExposureInfo:
    """Collect the facts from the primary and SCI headers; missing keywords leave the defaults.

    Raises `LyotError` where a keyword has a value that it cannot have.
    """
    instrument = _text(primary.get("INSTRUME")).upper()
    keys = INSTRUMENTS.get(instrument, UNNAMED).keywords
    text = {name: _text(primary.get(getattr(keys, name))).upper() for name in _TEXT}
    pa_y = np.degrees(np.arctan2(number_of(sci.get("PC1_2")), number_of(sci.get("PC2_2")))) % 360.0
    x, y = keys.dither
    targets = [_text(primary.get(k)) for k in keys.target]
    is_background = (
        primary.get(keys.is_background) in _TRUE
        or _text(primary.get(keys.pattern)).upper() == "BACKGROUND"
        or any(_BACKGROUND_NAME.search(target) for target in targets)
    )
    return ExposureInfo(
        name=name,
        shape=tuple(int(n) for n in shape),
        instrument=instrument,
        **text,
        target=next(filter(None, targets), ""),
        is_psf=primary.get(keys.is_psf) in _TRUE,
        is_background=is_background,
        exposure_time_s=number_of(primary.get(keys.exposure_time), sci.get("XPOSURE")),
        roll_ref_deg=_in_range(sci.get(keys.roll), keys.roll, name, -360.0, 360.0),
        v3i_yangle_deg=number_of(sci.get(keys.v3i_yangle)),
        vparity=_parity(sci.get(keys.vparity), keys.vparity, name),
        wcs_pa_y_deg=float(pa_y),
        fast_axis=2 if abs(number_of(primary.get(keys.fast_axis))) == 2 else 1,
        dither_arcsec=(number_of(primary.get(x), 0.0), number_of(primary.get(y), 0.0)),
        corner_xy=_position(primary, keys.corner),
        crpix_xy=_position(sci, keys.reference_pixel),
        star_xy=_position(sci, keys.star_pixel),
        mask_xy=_position(sci, keys.mask_pixel),
        pixel_area_sr=_in_range(
            sci.get(keys.pixel_area, primary.get(keys.pixel_area)),
            keys.pixel_area,
            name,
            *PIXEL_AREAS_SR,
        ),
        unit=_text(sci.get("BUNIT")),
        mjd=number_of(primary.get(keys.start)),
        acquired=None,
    )


def means_of(names: Iterable[str], /) -> set[str]:
    """Return the names of means (_cal) whose integrations (_calints) are among the names."""
    return {name.replace("_calints.", "_cal.") for name in names if "_calints." in name}


def _text(value: object) -> str:
    return str(value or "").strip()


def number_of(*candidates: object) -> float:
    """Return the first value that is a finite number; NaN where none is."""
    for value in candidates:
        if isinstance(value, int | float) and not isinstance(value, bool):
            with suppress(OverflowError):
                if math.isfinite(value):
                    return float(value)
    return float("nan")


def _in_range(value: object, key: str, name: str, low: float, high: float) -> float:
    """Return a number that a keyword may have; NaN where it has none."""
    number = number_of(value)
    if not (math.isnan(number) or low <= number <= high):
        raise LyotError(
            f"{key} of {name} is {number:g}; it must lie between {low:g} and {high:g}: mend the "
            "header, or fetch the file again."
        )
    return number


def _parity(value: object, key: str, name: str) -> int:
    if value not in (None, "", -1, 1):
        raise LyotError(f"{key} of {name} is {str(value)[:20]!r}; it must be 1 or -1: mend it.")
    return -1 if value in (None, "") else int(str(value))


def _position(sci: Mapping[str, Any], keys: tuple[str, str]) -> tuple[float, float] | None:
    x, y = number_of(sci.get(keys[0])), number_of(sci.get(keys[1]))
    return (x - 1.0, y - 1.0) if np.isfinite(x) and np.isfinite(y) else None


def info_from_model(model: Any, /) -> ExposureInfo:
    """Collect the facts from a stdatamodels model, the same as from the headers of its file."""
    flat = model.to_flat_dict(include_arrays=False)
    # What the schema knows by path, and over it what it does not: STARCENX, other instruments'.
    primary, sci = (
        {key: flat.get(path) for key, path in _paths(extension).items()}
        | {row[0]: row[1] for row in _extra_cards(model, extension)}
        for extension in ("PRIMARY", "SCI")
    )
    name = str(flat.get("meta.filename") or "exposure.fits")
    return info_from_headers(primary, sci, name=name, shape=model.data.shape)


@cache
def _paths(extension: str) -> dict[str, str]:
    """Where a model holds the keywords of a header, by the schema of stdatamodels."""
    from stdatamodels import schema
    from stdatamodels.jwst import datamodels

    found: dict[str, str] = {}

    def note(part: dict[str, Any], path: list[str], *_: Any) -> None:
        if "fits_keyword" in part and part.get("fits_hdu", "PRIMARY") == extension:
            found.setdefault(part["fits_keyword"], ".".join(map(str, path)))

    schema.walk_schema(datamodels.CubeModel().schema, note)
    return found


def set_fact(model: Any, key: str, value: Any, /) -> None:
    """Set a keyword of the primary header, beside the schema where that refuses key or value.

    The schemas of stdatamodels list the instruments, filters and coronagraphs of JWST and drop
    every other value; `info_from_model` reads both.
    """
    path = _paths("PRIMARY").get(key)
    if path is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model[path] = value
        if model[path] == value:
            return
    set_keyword(model, "PRIMARY", key, value, "")


def keep_refused_keywords(model: Any, header: Any, /) -> None:
    """Take from a file's header the values that the schema refused when the model was opened."""
    for key in ("INSTRUME", "CHANNEL", "MODULE", "EXP_TYPE", *Keywords().names):
        place = _paths("PRIMARY").get(key)
        if key in header and place and model[place] is None:
            set_keyword(model, "PRIMARY", key, header[key], header.comments[key])


def take_refused_keywords(model: Any, like: Any, /) -> None:
    """Give a model what the schema refused of another: instrument, filter, coronagraph ..."""
    cards = {row[0]: row for row in _extra_cards(like, "PRIMARY")}
    instrument = cards.get("INSTRUME", ["INSTRUME", ""])[1]
    for key in ("INSTRUME", *INSTRUMENTS.get(instrument, UNNAMED).keywords.names):
        if key in cards:
            set_keyword(model, "PRIMARY", *cards[key])


def _extra_cards(model: Any, extension: str) -> list[Any]:
    """Keywords of a header that the schema does not know: name, value and comment."""
    return list(model.instance.get("extra_fits", {}).get(extension, {}).get("header", []))


def open_fits(path: str | Path, /, *, memmap: bool = True, tiled_dq: bool = False) -> Any:
    """Open a FITS file for reading; say so where it is missing, truncated or no FITS file.

    With `tiled_dq` DQ may be a compressed image; it is then a table of which nothing is to be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise LyotError(f"{path} is no file; name a FITS file.")
    with readable(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file: Any = path.open("rb")
        try:
            start = file.read(len(_FITS))
            if packed := start.startswith(_GZIP):
                file.close()
                file = _BoundedGzip(path)
            elif start != _FITS:
                raise LyotError(f"{path} is not a readable FITS file; it begins otherwise.")
            _check_sizes(file, path)
            file.seek(0)
            hdus = fits.open(file, memmap=memmap and not packed, disable_image_compression=True)
            _check_headers(hdus, path, tiled_dq=tiled_dq)
        except BaseException:
            file.close()
            raise
    return hdus


def _check_sizes(file: Any, path: Path) -> None:
    """Walk from header to header by their sizes: astropy reads for ever where these are absurd."""
    end, size = 0, path.stat().st_size
    while True:
        place = file.seek(end)  # that of the end of a compressed file which is shorter
        place = place if isinstance(file, _BoundedGzip) else min(place, size)
        block = file.read(_BLOCK)
        if place < end or (not end and len(block) < _BLOCK):
            raise LyotError(
                f"{path} is truncated: it has {place + len(block)} bytes of at least "
                f"{max(end, _BLOCK)}; fetch it again."
            )
        if end and not block.startswith(_EXTENSION):
            if len(block) + len(file.read(MAX_REST_BYTES)) > MAX_REST_BYTES:
                raise LyotError(f"{path} goes on after its last extension; fetch it again.")
            return
        end += _size_of_extension(file, block, path)


def _size_of_extension(file: Any, block: bytes, path: Path) -> int:
    """Return the bytes of a header and its data, from its first block on; both may be damaged."""
    sizes: dict[bytes, bytes] = {}
    for n_blocks in range(1, MAX_HEADER_BLOCKS):
        for found in _HUGE.finditer(block):
            _check_number(block[found.start() // _CARD * _CARD :][:_CARD], path)
        for at in range(0, len(block), _CARD):
            key = block[at : at + 8].rstrip()
            if key.startswith((b"NAXIS", b"BITPIX", b"PCOUNT", b"GCOUNT")):
                value = block[at + 10 : at + _CARD].partition(b"/")[0].strip()
                if sizes.setdefault(key, value) != value:  # astropy goes by the last
                    raise LyotError(
                        f"A header of {path} has two values of {key.decode()}; fetch it again."
                    )
            elif key == b"END":
                return _BLOCK * n_blocks + _size_of_data(sizes, path)
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            break
    raise LyotError(f"A header of {path} has no end; fetch it again.")


def _check_number(card: bytes, path: Path) -> None:
    """Refuse a number that becomes infinite: no header can hold it."""
    text = card[10:].partition(b"/")[0].strip().upper().replace(b"D", b"E")
    with suppress(ValueError):
        if math.isinf(float(text)):
            raise LyotError(
                f"{card[:8].decode('latin-1').strip()} of {path} is {text.decode('latin-1')}, "
                "beyond all numbers; mend the header, or fetch the file again."
            )


def _size_of_data(sizes: dict[bytes, bytes], path: Path) -> int:
    try:
        axes = [int(sizes[b"NAXIS%d" % (i + 1)]) for i in range(int(sizes[b"NAXIS"]))]
        n_bits, more = abs(int(sizes[b"BITPIX"])), int(sizes.get(b"PCOUNT", b"0"))
        n_groups = int(sizes.get(b"GCOUNT", b"1"))
    except (KeyError, ValueError):
        axes, n_bits, more, n_groups = [-1], 0, 0, 0
    if axes and (min(*axes, more, n_groups) < 0 or n_bits not in (8, 16, 32, 64)):
        raise LyotError(
            f"A header of {path} has no valid size (NAXIS, BITPIX or PCOUNT); fetch it again."
        )
    n_bytes = n_bits // 8 * n_groups * (more + math.prod(axes)) if axes else 0
    return -(-n_bytes // _BLOCK) * _BLOCK


class _BoundedGzip(gzip.GzipFile):
    """A compressed file that is not read beyond what its size on disk can hold of an exposure."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._path = path
        self._most = MAX_EXPANSION * max(path.stat().st_size, MIN_PACKED_BYTES)

    def read(self, size: int | None = -1) -> bytes:
        left = self._most - self.tell()
        data = super().read(left + 1 if size is None or size < 0 else min(size, left + 1))
        self._check(self.tell())
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0:
            self._check(offset)
        return super().seek(offset, whence)

    def _check(self, place: int) -> None:
        if place > self._most:
            raise LyotError(
                f"{self._path} would grow to more than {self._most / 1e6:.0f} MB, over "
                f"{MAX_EXPANSION} times its size; decompress it yourself if it is to be trusted."
            )


def _check_headers(hdus: Any, path: Path, *, tiled_dq: bool) -> None:
    """Refuse what astropy read otherwise than its sizes say, and images that are compressed."""
    end = 0
    for hdu in hdus:  # each is read when it is asked for
        place = hdu.fileinfo()
        if place["hdrLoc"] < end or place["datSpan"] < 0:
            raise LyotError(f"The extensions of {path} overlap; fetch it again.")
        if "ZIMAGE" in hdu.header and not (tiled_dq and hdu.name == "DQ"):
            raise LyotError(f"{hdu.name} of {path} is a compressed image; decompress it (funpack).")
        end = place["datLoc"] + place["datSpan"]


def read_info(path: str | Path, /) -> ExposureInfo:
    """Read the facts about an exposure or product from its headers.

    Parameters
    ----------
    path : path
        A FITS file with a SCI extension.

    Returns
    -------
    ExposureInfo

    Raises
    ------
    LyotError
        If the file cannot be read or has no SCI image.

    Examples
    --------
    >>> info = read_info("science_calints.fits")
    >>> info.filter, info.coronagraph, round(info.pixel_scale_arcsec, 3)
    ('F444W', 'MASKA335R', 0.063)
    """
    with readable(path), open_fits(path, tiled_dq=True) as hdus:
        if "SCI" not in hdus or hdus["SCI"].header.get("NAXIS", 0) < 2:
            raise LyotError(f"{path} has no SCI image; it is no calibrated exposure.")
        sci = hdus["SCI"].header
        shape = tuple(sci[f"NAXIS{i}"] for i in range(sci["NAXIS"], 0, -1))
        return info_from_headers(hdus[0].header, sci, name=Path(path).name, shape=shape)

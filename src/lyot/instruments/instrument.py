"""An instrument as a value: channels, filters, coronagraphs, pupil, keywords and flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache

from lyot.errors import LyotError
from lyot.instruments.coronagraphs import Coronagraph, NoMask
from lyot.instruments.filters import RAYLEIGH_JEANS, Curve, Filter, Spectrum
from lyot.instruments.offaxis import Detector, Optics
from lyot.instruments.telescope import Pupil
from lyot.instruments.wavefront import WavefrontBudget


@dataclass(frozen=True, kw_only=True)
class Channel:
    """Detectors that share a pixel scale.

    Attributes
    ----------
    name : str
        Name of the channel.
    detectors : tuple of str
        Values of the keyword DETECTOR.
    pixel_scale_arcsec : float
        Nominal pixel scale [arcsec], where a header states no pixel area.
    v3i_yangle_deg : float
        Angle from the telescope's V3 axis to the detector's y axis [degree].
    vparity : int
        -1 where the detector's x axis runs against V2, as on the sky seen from inside.
    pixel_aspect : float
        Pixel scale along y over that along x.
    diffusion_arcsec : float
        Standard deviation of the diffusion of charge [arcsec].
    coupling : tuple of float
        Capacitive coupling to each pixel beside, and to each above and below.
    wavefront : WavefrontBudget
        Size of the wavefront errors.
    coronagraph_response : Curve or None
        Response to photons of what stands in the beam with a coronagraph only, such as the
        substrate of the masks; None where it is the same at all wavelengths.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> NIRCAM.channel(detector="NRCALONG").name
    'LONG'
    """

    name: str
    detectors: tuple[str, ...]
    pixel_scale_arcsec: float
    v3i_yangle_deg: float = 0.0
    vparity: int = -1
    pixel_aspect: float = 1.0
    diffusion_arcsec: float = 0.0
    coupling: tuple[float, float] = (0.0, 0.0)
    wavefront: WavefrontBudget = field(default_factory=WavefrontBudget)
    coronagraph_response: Curve | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Keywords:
    """Names of the FITS keywords of an exposure; those of JWST by default.

    INSTRUME, which names the instrument itself, is the same for all.

    Attributes
    ----------
    detector, filter, pupil, coronagraph, subarray, aperture, program : str
        Keywords of the primary header with what was used.
    target : tuple of str
        Name of the target; the first that is set counts.
    exposure_type : str
        Type of the exposure, which tells target acquisitions from science.
    visit, guide_star, pointing : str
        Visit, guide star, and whether the pointing was measured.
    is_psf, is_background : str
        True for a reference star, and for a dedicated background.
    pattern : str
        Type of the dither pattern; BACKGROUND for a dedicated background.
    exposure_time, start : str
        Effective exposure time [s] and start [MJD].
    dither : tuple of str
        Offsets along x and y [arcsec].
    corner : tuple of str
        Where the first pixel of the frames lies on the detector along x and y [1-based].
    fast_axis : str
        Axis along which the detector reads, 1 for x and 2 for y, with a sign.
    roll, v3i_yangle, vparity : str
        Orientation, in the SCI header.
    reference_pixel, star_pixel, mask_pixel : tuple of str
        Positions along x and y [pixel, 1-based], in the SCI header.
    pixel_area : str
        Area of a pixel [sr], in the SCI or the primary header.

    Examples
    --------
    >>> Keywords(coronagraph="OCCULTER").coronagraph
    'OCCULTER'
    """

    detector: str = "DETECTOR"
    filter: str = "FILTER"
    pupil: str = "PUPIL"
    coronagraph: str = "CORONMSK"
    subarray: str = "SUBARRAY"
    aperture: str = "APERNAME"
    program: str = "PROGRAM"
    target: tuple[str, ...] = ("TARGPROP", "TARGNAME")
    exposure_type: str = "EXP_TYPE"
    visit: str = "VISIT_ID"
    guide_star: str = "GDSTARID"
    pointing: str = "ENGQLPTG"
    is_psf: str = "IS_PSF"
    is_background: str = "BKGDTARG"
    pattern: str = "PATTTYPE"
    exposure_time: str = "EFFEXPTM"
    start: str = "EXPSTART"
    dither: tuple[str, str] = ("XOFFSET", "YOFFSET")
    corner: tuple[str, str] = ("SUBSTRT1", "SUBSTRT2")
    fast_axis: str = "FASTAXIS"
    roll: str = "ROLL_REF"
    v3i_yangle: str = "V3I_YANG"
    vparity: str = "VPARITY"
    reference_pixel: tuple[str, str] = ("CRPIX1", "CRPIX2")
    star_pixel: tuple[str, str] = ("STARCENX", "STARCENY")
    mask_pixel: tuple[str, str] = ("MASKCENX", "MASKCENY")
    pixel_area: str = "PIXAR_SR"

    @property
    def names(self) -> tuple[str, ...]:
        """All keywords."""
        values = [getattr(self, f.name) for f in fields(self)]
        return tuple(n for v in values for n in ((v,) if isinstance(v, str) else v))


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well the calibration of an instrument is known: errors common to all its exposures.

    Attributes
    ----------
    flux : float
        Relative error of the flux calibration.
    mask_arcsec : float
        Error of the position of the mask relative to the star, along one axis [arcsec].
    acquisition_arcsec : float
        Error along one axis of the star behind the mask by its image in a target acquisition and
        the measured pointing [arcsec]. NIRCam: the most by which maneuvers from acquisition to mask
        err (JWST User Documentation, "NIRCam Coronagraph Astrometric Confirmation Images"); MIRI:
        the pointing after target acquisition ("JWST Pointing Accuracy").
    scale : float
        Relative error of the pixel scale.
    roll_deg : float
        Error of the position angle of the detector [degree].
    skew : float
        Relative error of what stretches one axis and squeezes another, in any direction.

    Notes
    -----
    The geometry: two calibrations of NIRCam's coronagraphic field in flight, that of 2022 in the
    observatory's table of apertures (`pysiaf`) and the distortion of 2023 in the exposures of AU
    Mic, differ at MASK335R by 7e-4 in scale, 3.7e-4 in each component of the skew and 0.036 degree
    in orientation. The telescope's roll adds 0.02 degree: the pointing error of 0.10 arcsec (JWST
    User Documentation, "JWST Pointing Accuracy") over the 5 arcmin between guider and instrument.

    Examples
    --------
    >>> from lyot.instruments import MIRI, NIRCAM
    >>> MIRI.accuracy.mask_arcsec > NIRCAM.accuracy.mask_arcsec
    True
    """

    flux: float = 0.05
    mask_arcsec: float = 0.006
    acquisition_arcsec: float = 0.020
    scale: float = 7e-4
    roll_deg: float = 0.04
    skew: float = 3.7e-4


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """A coronagraphic camera, with everything that differs from camera to camera.

    Attributes
    ----------
    name : str
        Value of the keyword INSTRUME.
    pupil : Pupil
        Pupil of the telescope.
    channels : tuple of Channel
        Detectors by pixel scale.
    filters : tuple of Filter
        Filters.
    coronagraphs : tuple of Coronagraph
        Coronagraphs.
    dq_flags : mapping of str to int
        Values of the data quality flags by name. Names that the reduction itself sets or reads:
        DO_NOT_USE, SATURATED, OUTLIER, NON_SCIENCE, FLUX_ESTIMATED.
    keywords : Keywords
        Names of the FITS keywords.
    stpsf_class : str
        Name of its class in ``stpsf``; empty where it has none.
    accuracy : Accuracy
        How well its calibration is known.

    Examples
    --------
    >>> from lyot.instruments import MIRI
    >>> MIRI.channel(filter="F1140C").pixel_scale_arcsec
    0.111
    >>> MIRI.coronagraph("4QPM_1140").deforms_with_offset
    True
    """

    name: str
    pupil: Pupil
    channels: tuple[Channel, ...]
    filters: tuple[Filter, ...]
    coronagraphs: tuple[Coronagraph, ...]
    dq_flags: Mapping[str, int] = field(hash=False, repr=False)
    keywords: Keywords = Keywords()
    stpsf_class: str = ""
    accuracy: Accuracy = Accuracy()

    def find_filter(self, name: str | None, /) -> Filter | None:
        """Look up a filter by name; None where the instrument has no such filter."""
        wanted = (name or "").upper()
        return next((f for f in self.filters if f.name == wanted), None)

    def filter(self, name: str | None, /) -> Filter:
        """Look up a filter by name, for example F444W; a `LyotError` where there is none such."""
        value = self.find_filter(name)
        if value is None:
            names = ", ".join(f.name for f in self.filters) or "none"
            raise LyotError(
                f"Filter {name!r} is not in the table of {self.name or 'an unnamed instrument'}, "
                f"which holds {names}."
            )
        return value

    def find_coronagraph(self, name: str | None, /) -> Coronagraph:
        """Look up a coronagraph by the value of its keyword, or the name of its mask.

        Where there is no model: a `NoMask` of that name, which transmits everything.
        """
        wanted = (name or "").upper()
        for coronagraph in self.coronagraphs:
            if wanted in (coronagraph.name, *coronagraph.keyword_values):
                return coronagraph
        return NoMask(name=wanted)

    def coronagraph(self, name: str | None, /) -> Coronagraph:
        """Look up a coronagraph of which there is a model; a `LyotError` where there is none."""
        value = self.find_coronagraph(name)
        if not value.is_modeled:
            names = ", ".join(c.name for c in self.coronagraphs) or "none"
            raise LyotError(
                f"Coronagraph {name!r} is not in the table of "
                f"{self.name or 'an unnamed instrument'}, which holds {names}."
            )
        return value

    def channel(self, *, detector: str = "", filter: str = "") -> Channel:
        """Return the channel of a detector, else that of a filter, else the first.

        Both are values of the keywords, empty where they are missing. A `LyotError` without
        channels.
        """
        if not self.channels:
            raise LyotError(
                "The header states neither a pixel area nor an instrument of which the pixel scale "
                "is known; set PIXAR_SR."
            )
        value = self.find_filter(filter)
        for channel in self.channels:
            if detector in channel.detectors:
                return channel
        for channel in self.channels:
            if value is not None and channel.name == value.channel:
                return channel
        return self.channels[0]

    def lambda_over_d_arcsec(self, filter: Filter, /) -> float:
        """Return the pivot wavelength over the telescope's diameter [arcsec]."""
        return filter.lambda_over_d_arcsec(self.pupil.diameter_m)

    def flag_value(self, bits: str, /) -> int:
        """Return the value of data quality flags given by name or number.

        They are joined by "+" or ",", for example ``DO_NOT_USE+HOT``, or empty for none. A
        `LyotError` where the instrument has no flag of that name.

        Examples
        --------
        >>> from lyot.instruments import NIRCAM
        >>> NIRCAM.flag_value("DO_NOT_USE+HOT")
        2049
        """
        value, text = 0, str(bits).strip()
        try:
            for part in () if text in ("", "None") else re.split("[+,|]", text):
                name = part.strip()
                value |= self.dq_flags[name.upper()] if name[:1].isalpha() else int(name)
        except (ValueError, KeyError):
            value = -1
        if not 0 <= value < 2**32:
            raise LyotError(
                f"bad_bits is {bits!r}; give names of DQ flags such as DO_NOT_USE, joined by '+'."
            )
        return value

    def optics(
        self,
        coronagraph: str,
        filter: str,
        /,
        *,
        pixel_scale_arcsec: float | None = None,
        spectrum: Spectrum = RAYLEIGH_JEANS,
        n_wavelengths: int | None = None,
        seed: int | None = None,
    ) -> Optics:
        """Put a coronagraphic mode together.

        Parameters
        ----------
        coronagraph, filter : str
            Names of coronagraph and filter.
        pixel_scale_arcsec : float, optional
            Pixel scale, the square root of a pixel's area [arcsec]; by default the nominal one.
        spectrum : Spectrum, optional
            Of the source; that of a hot star by default.
        n_wavelengths : int, optional
            Number of wavelengths; by default what the width of the filter needs.
        seed : int, optional
            Which draw of the wavefront errors; their mean by default.

        Returns
        -------
        Optics
            Nothing is computed yet. A coronagraph without a model has neither mask nor stop.

        Raises
        ------
        LyotError
            If the instrument has no such filter, or the spectrum ends within it.

        Examples
        --------
        >>> from lyot.instruments import MIRI
        >>> print(f"{MIRI.optics('4QPM_1140', 'F1140C').stop_throughput:.2f}")
        0.62
        """
        light = self.filter(filter)
        light.check_covered(spectrum)
        channel = self.channel(filter=filter)
        mask = self.find_coronagraph(coronagraph)
        scale = pixel_scale_arcsec or channel.pixel_scale_arcsec
        aspect, curve = channel.pixel_aspect**0.5, light.curve
        if mask.is_modeled and channel.coronagraph_response is not None:
            curve = curve.times(channel.coronagraph_response)
        return Optics(
            mask=mask,
            stop=mask.stop,
            band=curve.band(spectrum, n_wavelengths=n_wavelengths),
            detector=Detector(
                (scale / aspect, scale * aspect), channel.diffusion_arcsec, channel.coupling
            ),
            wavefront=channel.wavefront,
            seed=seed,
            pupil=self.pupil,
        )


@lru_cache(maxsize=16)
def mode_optics(
    instrument: Instrument,
    coronagraph: Coronagraph,
    filter: Filter,
    pixel_scale_arcsec: float,
    spectrum: Spectrum = RAYLEIGH_JEANS,
    /,
) -> Optics:
    """Return the optics of a mode: one object for its star, its PSF and its transmission."""
    return instrument.optics(
        coronagraph.name, filter.name, pixel_scale_arcsec=pixel_scale_arcsec, spectrum=spectrum
    )

"""Coronagraphs: what the focal-plane mask does to a wave, and the Lyot stop behind it.

A kind of mask is a class; a coronagraph is a value of its class. Places are measured from the
middle of the mask along its own axes. Round masks and bars: Krist et al. 2007, Proc. SPIE 6693,
cut off after the first side lobe as the hardware is. Phase masks and the Lyot spot with its
support: Boccaletti et al. 2015, PASP 127, 633; sizes of the spot and its support, and the
directions of the bars, as in `stpsf`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from lyot.errors import LyotError
from lyot.instruments.telescope import OPEN, LyotStop
from lyot.types import Array

T = TypeVar("T", float, Array)
"""A place, or many."""


@dataclass(frozen=True, kw_only=True)
class Aperture:
    """Where a coronagraph is read out.

    Attributes
    ----------
    channel : str
        Name of the channel (see `lyot.instruments.instrument.Channel`).
    detector, subarray : str
        Values of the keywords DETECTOR and SUBARRAY.
    more_keywords : tuple of (str, str)
        Other keywords that headers hold, with their values.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> NIRCAM.coronagraph("MASKLWB").aperture("LONG").subarray
    'SUB320ALWB'
    """

    channel: str
    detector: str
    subarray: str
    more_keywords: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Coronagraph(ABC):
    """A focal-plane mask with its Lyot stop.

    Attributes
    ----------
    name : str
        Name of the mask, for example MASK335R.
    stop : LyotStop
        The stop in the pupil behind the mask.
    keyword_values : tuple of str
        How headers name it, the usual value first; its name alone where the tuple is empty.
    exposure_type, pupil_wheel : str
        Values of EXP_TYPE and PUPIL.
    apertures : tuple of Aperture
        Where it is read out, one entry per channel.
    stpsf_stop : str
        Name of the stop in ``stpsf``; empty where it has none.
    psf_checks : mapping of str to str
        By filter, how well the image of a source agrees with real stars.
    tilt_deg : float
        Angle from the detector's axes to those of the mask and of the pupil, from x towards y
        [degree].

    Examples
    --------
    >>> from lyot.instruments import MIRI
    >>> [c.name for c in MIRI.coronagraphs if c.deforms_with_offset]
    ['4QPM_1065', '4QPM_1140', '4QPM_1550']
    """

    name: str
    stop: LyotStop
    keyword_values: tuple[str, ...] = ()
    exposure_type: str = ""
    pupil_wheel: str = ""
    apertures: tuple[Aperture, ...] = ()
    stpsf_stop: str = ""
    psf_checks: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    tilt_deg: float = 0.0

    transmission_err: ClassVar[float] = 0.03
    """Root mean square by which the model of the transmission differs from published maps."""

    is_modeled: ClassVar[bool] = True
    """Whether the transmission is that of the mask, not 1 for want of a model."""

    deforms_with_offset: ClassVar[bool] = False
    """Whether a dither deforms the star's image more than it moves it, so that shifts cannot be
    fitted freely."""

    has_boundaries: ClassVar[bool] = False
    """Whether boundaries along its axes scatter light of the sky into stripes."""

    image_step_lambda_d: ClassVar[float] = 0.25
    """Distance of places near the mask at which images are computed, those between following. Masks
    limited in their spatial frequencies hardly deform an image; the edge of a disc does."""

    def psf_check(self, filter: str, /) -> str:
        """Return what the model of the image of a source is worth in a filter, in words."""
        if filter in self.psf_checks:
            return self.psf_checks[filter]
        others = "".join(f"; in {name}: {text}" for name, text in self.psf_checks.items())
        return f"not checked against a real star{others}"

    @property
    def background(self) -> float:
        """Amplitude transmission away from the mask's pattern."""
        return 1.0

    @property
    def reach_xy_arcsec(self) -> tuple[float, float]:
        """Distance along each axis beyond which the mask is as `background` everywhere."""
        return np.inf, np.inf

    @abstractmethod
    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return the amplitude transmission: 0 where opaque, negative where the phase turns.

        From -1 to 1, at places from the middle of the mask along its axes [arcsec].
        """

    def along_axes(self, x: T, y: T, /) -> tuple[T, T]:
        """Turn places along the detector's axes into places along those of the mask."""
        cos, sin = math.cos(math.radians(self.tilt_deg)), math.sin(math.radians(self.tilt_deg))
        return cos * x + sin * y, cos * y - sin * x

    def along_detector(self, x: T, y: T, /) -> tuple[T, T]:
        """Turn places along the axes of the mask into places along the detector's."""
        cos, sin = math.cos(math.radians(self.tilt_deg)), math.sin(math.radians(self.tilt_deg))
        return cos * x - sin * y, cos * y + sin * x

    def star_x_arcsec(self, filter: str, aperture: str = "", /) -> float:
        """Return where along the mask a star is put, from its middle [arcsec].

        By the name of the aperture where that is known, else by the filter.
        """
        del filter, aperture
        return 0.0

    def is_occulted(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.bool_]:
        """Tell where the mask hides the speckles of the star far from it, as along a bar."""
        return np.zeros(np.broadcast_shapes(np.shape(x_arcsec), np.shape(y_arcsec)), bool)

    def aperture(self, channel: str, /) -> Aperture:
        """Return where it is read out in a channel; a `LyotError` where it is not."""
        for aperture in self.apertures:
            if aperture.channel == channel:
                return aperture
        raise LyotError(f"{self.name} has no aperture in the channel {channel!r}.")


@dataclass(frozen=True, kw_only=True)
class NoMask(Coronagraph):
    """No focal-plane mask, or one of which there is no model: everything passes.

    Examples
    --------
    >>> float(NoMask(name="CLEAR").amplitude(0.0, 0.0))
    1.0
    """

    stop: LyotStop = OPEN

    transmission_err: ClassVar[float] = 0.0
    is_modeled: ClassVar[bool] = False

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return 1 everywhere."""
        return np.ones(np.broadcast_shapes(np.shape(x_arcsec), np.shape(y_arcsec)))


_CUT_OFF = 2.0 * np.pi
"""Where the patterns of round masks and bars end: sigma times the distance."""


@dataclass(frozen=True, kw_only=True)
class RoundMask(Coronagraph):
    r"""A round sombrero mask, :math:`1 - (2 J_1(\sigma r) / \sigma r)^2` in amplitude.

    Attributes
    ----------
    sigma_per_arcsec : float
        Scale of the mask [1/arcsec].

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> round(float(NIRCAM.coronagraph("MASK335R").amplitude(0.64, 0.0)) ** 2, 2)
    0.5
    """

    sigma_per_arcsec: float

    transmission_err: ClassVar[float] = 0.007
    image_step_lambda_d: ClassVar[float] = 1.0

    @property
    def background(self) -> float:
        """Amplitude transmission where the pattern is cut off."""
        return float(self.amplitude(np.array(1e3), np.array(0.0)))

    @property
    def reach_xy_arcsec(self) -> tuple[float, float]:
        """Where the pattern is cut off, from the middle."""
        return (_CUT_OFF / self.sigma_per_arcsec,) * 2

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return the amplitude transmission, 0 in the middle."""
        from scipy.special import j1

        r = np.clip(self.sigma_per_arcsec * np.hypot(x_arcsec, y_arcsec), 1e-8, _CUT_OFF)
        return np.asarray(1.0 - (2.0 * j1(r) / r) ** 2)


_BAR_HALF_POINT = 1.79960
"""Where ``(1 - sinc(u)^2)^2`` is one half."""

_BAR_END_ARCSEC = 10.0
"""Half the length of the bars, the ends of constant width included."""


@dataclass(frozen=True, kw_only=True)
class BarMask(Coronagraph):
    r"""A bar along x, :math:`1 - \mathrm{sinc}^2(u)` in amplitude across, wider at one end.

    The half width at half maximum grows from two to six lambda/D of the middle from one end to
    the other.

    Attributes
    ----------
    lambda_over_d_arcsec : float
        lambda/D for which the middle of the bar is made [arcsec]; negative where the bar narrows
        towards larger x.
    taper_arcsec : float
        Half the length over which the width changes [arcsec].
    star_positions_arcsec : mapping of str to float
        Where along the bar a star is put [arcsec from its middle], by the end of the aperture's
        name: a filter, or NARROW.

    References
    ----------
    JWST User Documentation, "NIRCam Coronagraphic Occulting Masks and Lyot Stops".

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> bar = NIRCAM.coronagraph("MASKLWB")
    >>> [round(float(bar.half_width(x)), 2) for x in (-7.5, 0.0, 7.5)]
    [0.88, 0.58, 0.29]
    """

    lambda_over_d_arcsec: float
    taper_arcsec: float = 7.5
    star_positions_arcsec: Mapping[str, float] = field(default_factory=dict, hash=False, repr=False)

    transmission_err: ClassVar[float] = 0.001
    image_step_lambda_d: ClassVar[float] = 1.0

    @property
    def reach_xy_arcsec(self) -> tuple[float, float]:
        """The end of the bar, and where the pattern is cut off at its wide end."""
        widest = 6.0 * abs(self.lambda_over_d_arcsec)
        return _BAR_END_ARCSEC, _CUT_OFF / _BAR_HALF_POINT * widest

    def half_width(self, x_arcsec: Array | float, /) -> NDArray[np.float64]:
        """Return the half width at half maximum of the transmission along the bar [arcsec]."""
        unit = self.lambda_over_d_arcsec
        u = np.clip(np.asarray(x_arcsec) / self.taper_arcsec, -1.0, 1.0)
        return np.asarray(abs(unit) * (4.0 + 2.0 * np.sign(unit) * u))

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return the amplitude transmission, 0 along the middle of the bar."""
        u = np.minimum(np.abs(y_arcsec) * _BAR_HALF_POINT / self.half_width(x_arcsec), _CUT_OFF)
        inside = 1.0 - np.sinc(u / np.pi) ** 2
        return np.where(np.abs(x_arcsec) > _BAR_END_ARCSEC, 1.0, inside)

    def star_x_arcsec(self, filter: str, aperture: str = "", /) -> float:
        """Return where along the bar a star is put.

        The aperture of the bar itself is that of its middle, as is one of no known position.
        """
        if not aperture.endswith(self.name):
            for name in (aperture.rpartition("_")[2], filter):
                if name in self.star_positions_arcsec:
                    return self.star_positions_arcsec[name]
        return 0.0

    def is_occulted(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.bool_]:
        """Tell what lies within the half width of the bar."""
        return np.asarray(np.abs(y_arcsec) < self.half_width(x_arcsec))


@dataclass(frozen=True, kw_only=True)
class FourQuadrantMask(Coronagraph):
    """A four-quadrant phase mask (Rouan et al. 2000, PASP 112, 1479): signs of half a wave.

    Attributes
    ----------
    design_wavelength_m : float
        Wavelength at which neighboring quadrants differ by half a wave [m].

    Examples
    --------
    >>> from lyot.instruments import MIRI
    >>> quadrants = MIRI.coronagraph("4QPM_1140")
    >>> [float(quadrants.amplitude(x, y)) for x, y in ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0))]
    [1.0, -1.0, 1.0]
    """

    design_wavelength_m: float

    deforms_with_offset: ClassVar[bool] = True

    has_boundaries: ClassVar[bool] = True

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return 1 and -1 in turn over the quadrants, 0 on the axes."""
        return np.asarray(np.sign(x_arcsec) * np.sign(y_arcsec))

    def coefficients(self, wavelength_m: float, /) -> tuple[complex, complex]:
        """Write the mask as ``a + b sign(x) sign(y)`` at a wavelength."""
        turned = np.exp(1j * np.pi * self.design_wavelength_m / wavelength_m)
        return complex(0.5 * (1.0 + turned)), complex(0.5 * (1.0 - turned))


@dataclass(frozen=True, kw_only=True)
class LyotSpot(Coronagraph):
    """An opaque disc on an opaque straight support that runs along y through all of the field.

    Attributes
    ----------
    radius_arcsec, support_width_arcsec : float
        Radius of the disc and width of the support [arcsec].

    Notes
    -----
    The disc of MIRI is 4.25 arcsec wide as measured, 4.32 as specified, its support 0.722, or 0.74,
    by the comments of `stpsf`; no published image or map says which.

    Examples
    --------
    >>> from lyot.instruments import MIRI
    >>> spot = MIRI.coronagraph("LYOT_2300")
    >>> [float(spot.amplitude(r, 0.0)) for r in (2.0, 2.2)]
    [0.0, 1.0]
    """

    radius_arcsec: float
    support_width_arcsec: float

    image_step_lambda_d: ClassVar[float] = 0.1

    @property
    def reach_xy_arcsec(self) -> tuple[float, float]:
        """The edge of the disc across the support, which has no end."""
        return max(self.radius_arcsec, 0.5 * self.support_width_arcsec), np.inf

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return 0 on disc and support, grey where an edge crosses a sample, else 1."""
        x = np.ravel(x_arcsec)
        step = abs(float(x[1] - x[0])) if np.size(x_arcsec) > 1 else 1e-9
        spot = 0.5 + (np.hypot(x_arcsec, y_arcsec) - self.radius_arcsec) / step
        support = 0.5 + (np.abs(x_arcsec) - 0.5 * self.support_width_arcsec) / step
        return np.asarray(np.clip(np.minimum(spot, support), 0.0, 1.0))

"""Coronagraphs: the amplitude of the focal-plane mask, what it transmits, and its Lyot stop.

A kind of mask is a class; a coronagraph is a value of its class. Positions are measured from the
middle of the mask along the detector's axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lyot.errors import LyotError
from lyot.instruments.telescope import OPEN, LyotStop
from lyot.types import Array


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
    half_width_arcsec : float
        Half width at half maximum of the transmission [arcsec]; for a four-quadrant phase mask
        the inner working angle.
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

    Examples
    --------
    >>> from lyot.instruments import MIRI
    >>> [c.name for c in MIRI.coronagraphs if c.deforms_with_offset]
    ['4QPM_1065', '4QPM_1140', '4QPM_1550']
    """

    name: str
    half_width_arcsec: float
    stop: LyotStop
    keyword_values: tuple[str, ...] = ()
    exposure_type: str = ""
    pupil_wheel: str = ""
    apertures: tuple[Aperture, ...] = ()
    stpsf_stop: str = ""

    is_modeled: ClassVar[bool] = True
    """Whether the transmission is that of the mask, not 1 for want of a model."""

    is_asymmetric: ClassVar[bool] = False
    """Whether a star's image behind the mask has no center of symmetry at the star."""

    deforms_with_offset: ClassVar[bool] = False
    """Whether a dither deforms the star's image more than it moves it, so that shifts cannot be
    fitted freely."""

    focal_half_width_arcsec: ClassVar[float] = 10.0
    focal_samples: ClassVar[int] = 512
    """Half width and samples of the part of the focal plane on which the mask acts."""

    @abstractmethod
    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return the amplitude transmission: 0 where opaque, negative where the phase turns.

        Parameters
        ----------
        x_arcsec, y_arcsec : ndarray
            Position from the middle of the mask along the detector's axes [arcsec].

        Returns
        -------
        ndarray
            From -1 to 1.
        """

    def transmission(
        self, x_arcsec: Array, y_arcsec: Array, /, *, lambda_over_d_arcsec: float
    ) -> NDArray[np.float64]:
        """Return the fraction of the light of an off-axis source that passes the mask.

        Parameters
        ----------
        x_arcsec, y_arcsec : ndarray
            Position from the middle of the mask along the detector's axes [arcsec].
        lambda_over_d_arcsec : float
            Wavelength over telescope diameter [arcsec]; masks with sharp edges are blurred by it.

        Returns
        -------
        ndarray
            From 0 to 1.
        """
        del lambda_over_d_arcsec
        return np.asarray(self.amplitude(x_arcsec, y_arcsec) ** 2)

    def star_x_arcsec(self, lambda_over_d_arcsec: float, /) -> float:
        """Return where along x a star is put, from the middle of the mask [arcsec]."""
        del lambda_over_d_arcsec
        return 0.0

    def is_occulted(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.bool_]:
        """Tell where the mask hides the speckles of the star far from it, as along a bar."""
        return np.zeros(np.broadcast_shapes(np.shape(x_arcsec), np.shape(y_arcsec)), bool)

    def aperture(self, channel: str, /) -> Aperture:
        """Return where the coronagraph is read out in a channel.

        Parameters
        ----------
        channel : str
            Name of the channel.

        Returns
        -------
        Aperture
            Detector and subarray.

        Raises
        ------
        LyotError
            If the coronagraph is not read out in that channel.
        """
        for aperture in self.apertures:
            if aperture.channel == channel:
                return aperture
        raise LyotError(f"{self.name} has no aperture in the channel {channel!r}.")


@dataclass(frozen=True, kw_only=True)
class NoMask(Coronagraph):
    """No focal-plane mask, or one of which there is no model: everything passes.

    Examples
    --------
    >>> float(NoMask(name="CLEAR").transmission(0.0, 0.0, lambda_over_d_arcsec=0.1))
    1.0
    """

    half_width_arcsec: float = 0.0
    stop: LyotStop = OPEN

    is_modeled: ClassVar[bool] = False

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return 1 everywhere."""
        return np.ones(np.broadcast_shapes(np.shape(x_arcsec), np.shape(y_arcsec)))


@dataclass(frozen=True, kw_only=True)
class RoundMask(Coronagraph):
    r"""A round sombrero mask, :math:`1 - (2 J_1(\sigma r) / \sigma r)^2` in amplitude.

    Attributes
    ----------
    sigma_per_arcsec : float
        Scale of the mask [1/arcsec].

    References
    ----------
    Krist, J. E. et al. 2007, Proc. SPIE 6693, 66930H, doi:10.1117/12.734873.

    Examples
    --------
    >>> from lyot.instruments import NIRCAM
    >>> coronagraph = NIRCAM.coronagraph("MASK335R")
    >>> round(float(coronagraph.transmission(0.64, 0.0, lambda_over_d_arcsec=0.14)), 2)
    0.5
    """

    sigma_per_arcsec: float

    focal_half_width_arcsec: ClassVar[float] = 5.0
    focal_samples: ClassVar[int] = 256

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return the amplitude transmission, 0 in the middle."""
        from scipy.special import j1

        r = np.maximum(np.hypot(x_arcsec, y_arcsec) * self.sigma_per_arcsec, 1e-8)
        return np.asarray(1.0 - (2.0 * j1(r) / r) ** 2)


BAR_HALF_POINT = 1.79960
"""Where ``(1 - sinc(u)^2)^2`` is one half."""


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
    half_length_arcsec : float
        Half the length of the bar [arcsec].

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
    half_length_arcsec: float = 7.5

    is_asymmetric: ClassVar[bool] = True

    def half_width(self, x_arcsec: Array | float, /) -> NDArray[np.float64]:
        """Return the half width at half maximum of the transmission along the bar [arcsec]."""
        unit = self.lambda_over_d_arcsec
        end = self.half_length_arcsec
        u = np.clip(x_arcsec, -end, end) / end
        return np.asarray(abs(unit) * (4.0 + 2.0 * np.sign(unit) * u))

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return the amplitude transmission, 0 along the middle of the bar."""
        u = np.asarray(y_arcsec) * BAR_HALF_POINT / self.half_width(x_arcsec)
        return np.asarray(1.0 - np.sinc(u / np.pi) ** 2)

    def star_x_arcsec(self, lambda_over_d_arcsec: float, /) -> float:
        """Return where the bar is four lambda/D of the filter wide, within its length [arcsec]."""
        unit, end = self.lambda_over_d_arcsec, self.half_length_arcsec
        x = 2.0 * np.sign(unit) * end * (lambda_over_d_arcsec / abs(unit) - 1.0)
        return float(np.clip(x, -end, end))

    def is_occulted(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.bool_]:
        """Tell what lies within the half width of the middle of the bar, at any x."""
        inside = np.abs(y_arcsec) < self.half_width_arcsec
        return np.broadcast_to(inside, np.broadcast_shapes(np.shape(x_arcsec), inside.shape))


@dataclass(frozen=True, kw_only=True)
class FourQuadrantMask(Coronagraph):
    """A four-quadrant phase mask: neighboring quadrants differ by half a wave.

    Attributes
    ----------
    tilt_deg : float
        Angle from the detector's axes to those of the mask, from x towards y [degree].
    floor, scale_lambda_over_d, power : float
        What passes of a source on one axis, and how the loss ends beside it:
        ``1 - (1 - floor) exp(-|d / scale|^power)`` for each axis.

    References
    ----------
    Rouan, D. et al. 2000, PASP 112, 1479, doi:10.1086/317707; Boccaletti, A. et al. 2015, PASP
    127, 633, doi:10.1086/682256.

    Examples
    --------
    >>> from lyot.instruments import MIRI
    >>> quadrants = MIRI.coronagraph("4QPM_1140")
    >>> [float(quadrants.amplitude(x, y)) for x, y in ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0))]
    [1.0, -1.0, 1.0]
    """

    tilt_deg: float
    floor: float
    scale_lambda_over_d: float
    power: float

    is_asymmetric: ClassVar[bool] = True
    deforms_with_offset: ClassVar[bool] = True

    def along_axes(self, x: Array, y: Array, /) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Turn positions along the detector into positions along the axes of the mask."""
        cos, sin = np.cos(np.radians(self.tilt_deg)), np.sin(np.radians(self.tilt_deg))
        return np.asarray(cos * x + sin * y), np.asarray(cos * y - sin * x)

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return 1 and -1 in turn over the quadrants, 0 on the axes."""
        along, across = self.along_axes(x_arcsec, y_arcsec)
        return np.asarray(np.sign(along) * np.sign(across))

    def transmission(
        self, x_arcsec: Array, y_arcsec: Array, /, *, lambda_over_d_arcsec: float
    ) -> NDArray[np.float64]:
        """Return what passes mask and stop; the loss is concentrated along the two axes."""
        along, across = self.along_axes(x_arcsec, y_arcsec)
        scale = self.scale_lambda_over_d * lambda_over_d_arcsec
        return self._beside_axis(along / scale) * self._beside_axis(across / scale)

    def _beside_axis(self, distance: Array) -> NDArray[np.float64]:
        return np.asarray(1.0 - (1.0 - self.floor) * np.exp(-(np.abs(distance) ** self.power)))


@dataclass(frozen=True, kw_only=True)
class LyotSpot(Coronagraph):
    """An opaque disc with a sharp edge.

    Examples
    --------
    >>> from lyot.instruments import MIRI
    >>> spot = MIRI.coronagraph("LYOT_2300")
    >>> [float(spot.amplitude(r, 0.0)) for r in (2.0, 2.2)]
    [0.0, 1.0]
    """

    def amplitude(self, x_arcsec: Array, y_arcsec: Array, /) -> NDArray[np.float64]:
        """Return 0 within the disc, else 1."""
        return np.asarray(np.hypot(x_arcsec, y_arcsec) >= self.half_width_arcsec, dtype=np.float64)

    def transmission(
        self, x_arcsec: Array, y_arcsec: Array, /, *, lambda_over_d_arcsec: float
    ) -> NDArray[np.float64]:
        """Return what passes: the edge is as soft as the image of the source is wide."""
        edge = np.hypot(x_arcsec, y_arcsec) - self.half_width_arcsec
        return np.asarray(0.5 * (1.0 + np.tanh(2.0 * edge / lambda_over_d_arcsec)))

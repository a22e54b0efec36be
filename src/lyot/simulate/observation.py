"""A coronagraphic observation of a star with a disc and companions, and its references.

The files are those that the archive delivers (``_calints.fits``, with WCS, errors and flags) and
an association; the truth is written beside them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.convolution import convolve
from lyot.algorithms.geometry import east_north, position_angle_of_y
from lyot.compute import threads
from lyot.errors import LyotError
from lyot.files.atomic import write_json
from lyot.files.products import save_atomically
from lyot.instruments import instrument_named
from lyot.instruments.coronagraphs import Coronagraph
from lyot.instruments.instrument import Channel, Instrument
from lyot.instruments.offaxis import Optics
from lyot.instruments.transmission import Transmission
from lyot.instruments.wavefront import (
    FIRST_DATA_SEED,
    WavefrontBudget,
    data_seed,
    draw_wavefront,
)
from lyot.simulate.exposure_model import Pointing, exposure_model


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A point source beside the star.

    Attributes
    ----------
    separation_arcsec, pa_deg : float
        Separation from the star [arcsec] and position angle, east of north [degree].
    contrast : float
        Flux as a fraction of the star's.

    Examples
    --------
    >>> Companion(separation_arcsec=1.2, pa_deg=80.0, contrast=1e-4).pa_deg
    80.0
    """

    separation_arcsec: float
    pa_deg: float
    contrast: float


@dataclass(frozen=True, kw_only=True)
class Disc:
    """A narrow inclined ring about the star.

    Attributes
    ----------
    radius_arcsec, width_arcsec : float
        Radius of the ring and its radial standard deviation [arcsec].
    inclination_deg, pa_deg : float
        Inclination, and position angle of the major axis [degree].
    contrast : float
        Total flux as a fraction of the star's.

    Examples
    --------
    >>> ring = {"radius_arcsec": 3.0, "width_arcsec": 0.25, "inclination_deg": 77.0}
    >>> Disc(**ring, pa_deg=110.0, contrast=2e-3).contrast
    0.002
    """

    radius_arcsec: float
    width_arcsec: float
    inclination_deg: float
    pa_deg: float
    contrast: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is observed, and how.

    Attributes
    ----------
    instrument, filter, coronagraph : str
        Their names; detector, pixel scale and subarray are those of the filter's channel.
    aperture : str
        Name of the aperture where the star is not put at the filter's place on a bar: for example
        NRCA5_MASKLWB_NARROW.
    shape : tuple of int
        ``(n_y, n_x)`` of the frames.
    rolls_deg : tuple of float
        ROLL_REF of the science exposures [degree].
    n_int, n_int_psf : int
        Integrations of each science exposure and of each reference.
    n_dither, dither_arcsec : int, float
        Exposures of the reference star, on a small grid, and its step [arcsec].
    star_flux, psf_star_flux : float
        Flux of the stars through the Lyot stop without the mask, over all pixels [MJy/sr].
    companions, disc : tuple of Companion, Disc or None
        What surrounds the star.
    wavefront_nm, drift_nm : float
        Static wavefront error of the telescope, and its change from exposure to exposure [nm rms];
        that of the instrument is its own.
    pointing_mas, jitter_mas : float
        Pointing errors of the target acquisition and of each integration, per axis [mas].
    wcs_error_arcsec : float
        Error of the headers' WCS, per axis [arcsec].
    read_noise, background : float
        Noise of a dark pixel in one integration, and level of the sky [MJy/sr].
    gain : float
        Variance of the photon noise over brightness [MJy/sr].
    bad_fraction, hit_fraction : float
        Fractions of pixels flagged as bad, and of those of an integration with an unflagged hit.

    Examples
    --------
    >>> Scene(instrument="MIRI", filter="F1140C", coronagraph="4QPM_1140").pixel_scale_arcsec
    0.111
    """

    instrument: str = "NIRCAM"
    filter: str = "F444W"
    coronagraph: str = "MASK335R"
    aperture: str = ""
    shape: tuple[int, int] = (160, 160)
    rolls_deg: tuple[float, ...] = (60.0, 70.0)
    n_int: int = 5
    n_int_psf: int = 4
    n_dither: int = 9
    dither_arcsec: float = 0.02
    star_flux: float = 4.5e7
    psf_star_flux: float = 3.6e7
    companions: tuple[Companion, ...] = (
        Companion(separation_arcsec=1.10, pa_deg=205.0, contrast=2.5e-5),
        Companion(separation_arcsec=2.20, pa_deg=25.0, contrast=1.2e-5),
    )
    disc: Disc | None = field(
        default_factory=lambda: Disc(
            radius_arcsec=3.0,
            width_arcsec=0.25,
            inclination_deg=77.0,
            pa_deg=110.0,
            contrast=1e-4,
        )
    )
    wavefront_nm: float = 67.0
    drift_nm: float = 3.0
    pointing_mas: float = 5.0
    jitter_mas: float = 1.0
    wcs_error_arcsec: float = 0.08
    read_noise: float = 0.6
    background: float = 0.4
    gain: float = 0.05
    bad_fraction: float = 0.003
    hit_fraction: float = 0.0003

    def __post_init__(self) -> None:
        self.coronagraph_value.aperture(self.channel.name)
        if min(self.shape) < 32:
            raise LyotError(f"shape is {self.shape}; frames need at least 32 pixels a side.")
        if min(self.n_int, self.n_int_psf, self.n_dither, len(self.rolls_deg)) < 1:
            raise LyotError("A scene needs at least one roll, dither and integration.")

    @property
    def instrument_value(self) -> Instrument:
        """The instrument."""
        return instrument_named(self.instrument)

    @property
    def coronagraph_value(self) -> Coronagraph:
        """The coronagraph."""
        return self.instrument_value.coronagraph(self.coronagraph)

    @property
    def channel(self) -> Channel:
        """The channel of the filter."""
        instrument = self.instrument_value
        return instrument.channel(filter=instrument.filter(self.filter).name)

    @property
    def pixel_scale_arcsec(self) -> float:
        """Pixel scale [arcsec]."""
        return self.channel.pixel_scale_arcsec


class _Exposure(NamedTuple):
    """One exposure to be drawn."""

    name: str
    n_int: int
    pointing: Pointing


@threads.calculation
def simulate_observation(
    folder: str | Path, scene: Scene | None = None, /, *, seed: int = 1
) -> Path:
    """Simulate an observation and write its files.

    Parameters
    ----------
    folder : path
        Where the exposures, the association and ``truth.json`` are written.
    scene : Scene, optional
        What is observed; the default shows a disc and two companions at two rolls.
    seed : int, optional
        Seed of the random numbers: the same seed gives the same pixels.

    Returns
    -------
    Path
        The association file.

    Raises
    ------
    LyotError
        If the files cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> scene = Scene(shape=(32, 32), n_int=1, n_int_psf=1, n_dither=1, disc=None)
    >>> with TemporaryDirectory() as folder:
    ...     simulate_observation(folder, scene).name
    'demo_asn.json'
    """
    scene = scene or Scene()
    folder = Path(folder)
    sky = _Sky(scene, seed)
    plan = _plan(scene, sky)
    stars = {e.name: _write_exposure(folder, e, scene, sky, seed) for e in plan}
    mode = f"{scene.instrument}_{scene.filter}-{scene.coronagraph}".lower()
    association = {
        "asn_type": "coron3",
        "asn_rule": "lyot_simulate",
        "asn_id": "a3001",
        "program": "09999",
        "target": "DEMO",
        "asn_pool": "none",
        "products": [
            {
                "name": f"jw09999_demo_{mode}",
                "members": [
                    {"expname": e.name, "exptype": "psf" if e.pointing.is_psf else "science"}
                    for e in plan
                ],
            }
        ],
    }
    path = folder / "demo_asn.json"
    write_json(association, path)
    truth = {"scene": asdict(scene), "seed": seed, "exposures": stars}
    write_json(truth, folder / "truth.json")
    return path


def _plan(scene: Scene, sky: _Sky) -> list[_Exposure]:
    plan: list[_Exposure] = []
    channel = scene.channel
    detector = scene.coronagraph_value.aperture(channel.name).detector.lower()
    science = Pointing(
        target="DEMO",
        radec_deg=(150.0, -25.0),
        crpix_xy=sky.mask_xy,
        v3i_yangle_deg=channel.v3i_yangle_deg,
        vparity=channel.vparity,
        pixel_scale_arcsec=sky.pixel_scale_arcsec,
        instrument=scene.instrument,
        filter=scene.filter,
        coronagraph=scene.coronagraph,
        aperture=scene.aperture,
    )
    reference = replace(
        science,
        target="DEMO-REF",
        radec_deg=(180.0, -30.0),
        is_psf=True,
        roll_ref_deg=scene.rolls_deg[0] + 35.0,
    )

    def add(visit: int, exposure: int, n_int: int, pointing: Pointing) -> None:
        name = f"jw09999{visit:03d}001_03102_{exposure:05d}_{detector}_calints.fits"
        plan.append(_Exposure(name, n_int, replace(pointing, number=len(plan))))

    for i, roll in enumerate(scene.rolls_deg):
        add(i + 1, 1, scene.n_int, replace(science, roll_ref_deg=roll))
    side = int(np.ceil(np.sqrt(scene.n_dither)))
    steps = (np.arange(side) - (side - 1) / 2) * scene.dither_arcsec
    grid = sorted(((float(x), float(y)) for x in steps for y in steps), key=lambda p: np.hypot(*p))
    for i, dither in enumerate(grid[: scene.n_dither]):
        pointing = replace(reference, dither_arcsec=dither)
        add(len(scene.rolls_deg) + 1, i + 1, scene.n_int_psf, pointing)
    return plan


STAR_WAVELENGTHS, SOURCE_WAVELENGTHS = 3, 5


class _Sky:
    """The optics and the scene, ready to be drawn at any pointing."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        n_y, n_x = scene.shape
        self.mask_xy = (0.5 * n_x - 0.75, 0.5 * n_y - 0.25)
        optics = scene.instrument_value.optics(
            scene.coronagraph_value.name, scene.filter, pixel_scale_arcsec=scene.pixel_scale_arcsec
        )
        self.pixel_scale_arcsec = optics.detector.pixel_scale_arcsec
        optics = replace(
            optics,
            wavefront=replace(optics.wavefront, telescope_m=scene.wavefront_nm * 1e-9),
            seed=data_seed(seed),
        )
        self.n_pixels = 2 * (max(n_y, n_x) // 2 + 2) + 1
        optics = optics.sampled_for(self.n_pixels)
        self.optics = optics.with_fewer_wavelengths(SOURCE_WAVELENGTHS)
        self._star_optics = optics.with_fewer_wavelengths(STAR_WAVELENGTHS)
        star_x = scene.coronagraph_value.star_x_arcsec(scene.filter, scene.aperture)
        self.star_place = self.optics.mask.along_detector(star_x, 0.0)
        self.transmission = Transmission(
            optics=replace(self.optics, seed=None),
            mask_xy_arcsec=(star_x, 0.0),
            origin="the optics",
        )

    def wavefront(self, rms_nm: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a wavefront error of the telescope [m]."""
        budget = WavefrontBudget(telescope_m=rms_nm * 1e-9)
        optics = self.optics
        seed = int(rng.integers(FIRST_DATA_SEED, 2**32))
        return draw_wavefront(budget, optics.n_pupil, seed=seed, pupil=optics.pupil)[0]

    def pa_y(self, roll_deg: float) -> float:
        """Position angle of the detector's y axis [radian]."""
        channel = self.scene.channel
        pa_deg = position_angle_of_y(roll_deg, channel.v3i_yangle_deg, channel.vparity)
        return float(np.radians(pa_deg))

    def to_detector(
        self, east: NDArray[np.float64], north: NDArray[np.float64], roll_deg: float
    ) -> tuple[float, float]:
        """Turn an offset on the sky into one along x and y [arcsec]."""
        pa_y = self.pa_y(roll_deg)
        y = north * np.cos(pa_y) + east * np.sin(pa_y)
        x = north * np.sin(pa_y) - east * np.cos(pa_y)
        return float(x), float(y)

    def star(
        self, offset_xy: tuple[float, float], drift: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the image of the star at an offset behind the mask [arcsec]."""
        return self._image(replace(self._star_optics, drift_m=drift), offset_xy)

    def _image(self, optics: Optics, offset_xy: tuple[float, float]) -> NDArray[np.float64]:
        """Return a frame with a source of unit flux at an offset from the star's place [arcsec]."""
        x, y = np.add(self.mask_xy, np.divide(offset_xy, self.pixel_scale_arcsec))
        place = (offset_xy[0] + self.star_place[0], offset_xy[1] + self.star_place[1])
        return optics.frame(place, (float(x), float(y)), self.scene.shape)

    def surroundings(self, roll_deg: float, star_xy: tuple[float, float]) -> NDArray[np.float64]:
        """Return companions and disc about a star at an offset from the mask [arcsec]."""
        total = np.zeros(self.scene.shape)
        for c in self.scene.companions:
            dx, dy = self.to_detector(*east_north(c.separation_arcsec, c.pa_deg), roll_deg)
            total += c.contrast * self._image(self.optics, (star_xy[0] + dx, star_xy[1] + dy))
        if self.scene.disc is not None:
            total += self._disc(self.scene.disc, roll_deg, star_xy)
        return total

    @cached_property
    def _off_axis(self) -> NDArray[np.float64]:
        """Image of a source far from the mask, its center in the middle."""
        made = self.optics.psf((0.0, 0.0), n_pixels=self.n_pixels, with_mask=False)
        return made.image

    def _disc(
        self, disc: Disc, roll_deg: float, star_xy: tuple[float, float]
    ) -> NDArray[np.float64]:
        n_y, n_x = self.scene.shape
        x = (np.arange(n_x)[None, :] - self.mask_xy[0]) * self.pixel_scale_arcsec[0]
        y = (np.arange(n_y)[:, None] - self.mask_xy[1]) * self.pixel_scale_arcsec[1]
        rows, columns = np.mgrid[:n_y, :n_x]
        transmission = self.transmission.at(rows, columns, mask_yx=self.mask_xy[::-1])
        pa_y = self.pa_y(roll_deg)
        dx, dy = x - star_xy[0], y - star_xy[1]
        north = dy * np.cos(pa_y) + dx * np.sin(pa_y)
        east = dy * np.sin(pa_y) - dx * np.cos(pa_y)
        pa = np.radians(disc.pa_deg)
        major = north * np.cos(pa) + east * np.sin(pa)
        minor = (-north * np.sin(pa) + east * np.cos(pa)) / np.cos(np.radians(disc.inclination_deg))
        r = np.hypot(major, minor)
        ring = np.exp(-0.5 * ((r - disc.radius_arcsec) / disc.width_arcsec) ** 2)
        bright = disc.contrast * ring / ring.sum() * transmission
        return convolve(bright, self._off_axis)[0]


def _write_exposure(
    folder: Path, exposure: _Exposure, scene: Scene, sky: _Sky, seed: int
) -> dict[str, Any]:
    at = exposure.pointing
    rng = np.random.default_rng([seed, 2, at.number])
    drift_rng = np.random.default_rng([seed, 3, at.number])
    drift = sky.wavefront(scene.drift_nm, drift_rng)
    trend = sky.wavefront(0.2 * scene.drift_nm, drift_rng)
    acquired = rng.normal(0.0, scene.pointing_mas * 1e-3, 2)
    pointing = acquired + np.array(at.dither_arcsec)
    jitter = rng.normal(0.0, scene.jitter_mas * 1e-3, (exposure.n_int, 2))
    flux = scene.psf_star_flux if at.is_psf else scene.star_flux

    def noiseless(i: int) -> NDArray[np.float64]:
        x, y = pointing + jitter[i]
        return flux * sky.star((float(x), float(y)), drift + (i / exposure.n_int) * trend)

    images = np.array(threads.map_ordered(noiseless, range(exposure.n_int))) + scene.background
    if not at.is_psf:
        images += flux * sky.surroundings(at.roll_ref_deg, (pointing[0], pointing[1]))
    arrays = _observe(images, scene, rng, np.random.default_rng([seed, 4]))
    east, north = rng.normal(0.0, scene.wcs_error_arcsec, 2)
    model = exposure_model(arrays, replace(at, sky_offset_arcsec=(float(east), float(north))))
    save_atomically(model, folder / exposure.name)
    model.close()
    star = np.array(sky.mask_xy) + pointing / sky.pixel_scale_arcsec
    return {
        "star_xy": star.tolist(),
        "roll_ref_deg": at.roll_ref_deg,
        "jitter_xy_pix": (jitter / sky.pixel_scale_arcsec).tolist(),
    }


def _observe(
    images: NDArray[np.float64],
    scene: Scene,
    rng: np.random.Generator,
    detector: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """Add noise, bad pixels and hits; return the arrays of an exposure."""
    shape = images.shape
    poisson = np.maximum(images, 0.0) * scene.gain
    read = np.full(shape, scene.read_noise**2)
    data = images + rng.normal(size=shape) * np.sqrt(poisson + read)
    err = np.sqrt(poisson + read)
    dq = np.zeros(shape, np.uint32)
    kind = detector.random(shape[1:])
    hot = kind < 0.5 * scene.bad_fraction
    dead = (kind >= 0.5 * scene.bad_fraction) & (kind < scene.bad_fraction)
    data[:, hot] += 400.0
    data[:, dead] = np.nan
    flag_value = scene.instrument_value.flag_value
    dq[:, hot], dq[:, dead] = flag_value("DO_NOT_USE+HOT"), flag_value("DO_NOT_USE+DEAD")
    hits = rng.random(shape) < scene.hit_fraction
    data[hits] += rng.uniform(20.0, 200.0, int(hits.sum()))
    return {
        "data": data.astype(np.float32),
        "err": err.astype(np.float32),
        "dq": dq,
        "var_poisson": poisson.astype(np.float32),
        "var_rnoise": read.astype(np.float32),
    }

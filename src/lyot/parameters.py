"""The parameters of a reduction: one frozen value that validates and serialises itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lyot.errors import LyotError

ALL_INTEGRATIONS, FIRST_INTEGRATION = "all", "first"
AUTO, BY_SYMMETRY, BY_MODEL = "auto", "symmetry", "model"
ZONE_KINDS = ("full", "annuli", "map")
SPACINGS = ("constant", "linear", "log")
PROPAGATED, SCATTER = "propagated", "scatter"
ERROR_KINDS = (PROPAGATED, SCATTER)
ANCHORS = ("star", "header")
KERNELS = ("square", "gaussian", "point", "turbo", "lanczos2", "lanczos3")
WEIGHTS = ("ivm", "exptime", "uniform")
KLIP, MEAN, MEDIAN, IMPUTATION, NMF = "klip", "mean", "median", "imputation", "nmf"
METHODS = (KLIP, MEAN, MEDIAN, IMPUTATION, NMF)
ALL_REFS, BY_CORRELATION, BY_RESIDUAL, BY_TIME = "all", "correlation", "residual", "time"
CHOICES = (ALL_REFS, BY_CORRELATION, BY_RESIDUAL, BY_TIME)
LIBRARY_CHOICES = (BY_CORRELATION, BY_RESIDUAL, BY_TIME, "wavefront", "spectral_type")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise LyotError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")


def _at_least(name: str, value: float, lowest: float) -> None:
    if not value >= lowest:
        raise LyotError(f"{name} is {value!r}; it must be at least {lowest:g}.")


@dataclass(frozen=True, kw_only=True)
class OutlierRecipe:
    """How outliers among the integrations of an exposure are found.

    Attributes
    ----------
    skip : bool
        True to leave the data as they are.
    n_sigma : float
        Threshold in standard deviations of the scatter of the integrations.
    """

    skip: bool = False
    n_sigma: float = 5.0

    def __post_init__(self) -> None:
        """Check the values."""
        _at_least("n_sigma", self.n_sigma, 1.0)


@dataclass(frozen=True, kw_only=True)
class AlignRecipe:
    """How references are aligned to the science integrations.

    Attributes
    ----------
    align_to : {"all", "first"}
        Align to every science integration, or to the first one alone.
    bad_bits : str
        DQ flags of bad pixels, as names joined by "+" or "," or as a number.
    median_box_length : int
        Side of the box from which a bad pixel is repaired for the fit [pixel].
    max_shift : float or None
        Largest shift along each axis [pixel]; None for the coronagraph's own.
    star_from : {"auto", "symmetry", "model"}
        How a star that nobody states is measured.
    """

    align_to: str = ALL_INTEGRATIONS
    bad_bits: str = "DO_NOT_USE"
    median_box_length: int = 3
    max_shift: float | None = None
    star_from: str = AUTO

    def __post_init__(self) -> None:
        """Check the values."""
        _one_of("align_to", self.align_to, (ALL_INTEGRATIONS, FIRST_INTEGRATION))
        _one_of("star_from", self.star_from, (AUTO, BY_SYMMETRY, BY_MODEL))
        _at_least("median_box_length", self.median_box_length, 1)
        if self.max_shift is not None:
            _at_least("max_shift", self.max_shift, 0.0)


@dataclass(frozen=True, kw_only=True)
class SubtractRecipe:
    """How the stellar image is modelled and subtracted.

    Attributes
    ----------
    method : {"klip", "mean", "median", "imputation", "nmf"}
        How the references model the star: their KL modes; their scaled mean or median; KL modes
        whose coordinates come from the anchor pixels, those that count in the fit; non-negative
        components.
    n_modes : tuple of int
        Numbers of KL modes or components, one result each; more than there are references means
        all.
    select : {"all", "correlation", "residual", "time"}
        How references are chosen for each integration and zone: all; those most correlated with
        it; one after another the one that lowers the residual most; those nearest in time.
    n_refs : int
        How many are chosen at most; zero for all.
    min_correlation : float
        References less correlated with the integration in the zone are left out; -1 for none.
    min_rotation_fwhm : float
        References that show the target itself are left out where their roll turns a source by
        less than this [FWHM]; zero for none.
    zones : {"full", "annuli", "map"}
        The search areas.
    n_annuli, n_sectors : int
        Number of annuli, and of sectors in each.
    annuli_spacing : {"constant", "linear", "log"}
        How the widths of the annuli grow.
    inner_arcsec, outer_arcsec : float
        Inner edge of the first annulus and outer edge of the last [arcsec]; an outer edge of
        zero means the nearest edge of the frame.
    sector_overlap : float
        Overlap of neighboring sectors as a fraction of a sector, 0 to 0.5.
    fit_inner_arcsec, fit_outer_arcsec : float
        Pixels nearer to the star, or farther from it, are subtracted but do not count in the fit
        [arcsec]; an outer limit of zero means none.
    level_inner_arcsec : float
        Where the level of the residual is taken: beyond this separation [arcsec]; zero for the
        zone's own mean.
    subtract_mean : bool
        Whether the weighted zone mean is subtracted first, and a level in the end.
    error : {"propagated", "scatter"}
        Propagate the errors, or write the scatter of the residuals of the references, as the
        official step does.
    bad_bits : str
        DQ flags of science pixels that are left out.
    """

    method: str = KLIP
    n_modes: tuple[int, ...] = (50,)
    select: str = ALL_REFS
    n_refs: int = 0
    min_correlation: float = -1.0
    min_rotation_fwhm: float = 0.0
    zones: str = "full"
    n_annuli: int = 5
    n_sectors: int = 1
    annuli_spacing: str = "constant"
    inner_arcsec: float = 0.0
    outer_arcsec: float = 0.0
    sector_overlap: float = 0.0
    fit_inner_arcsec: float = 0.0
    fit_outer_arcsec: float = 0.0
    level_inner_arcsec: float = 5.0
    subtract_mean: bool = True
    error: str = "propagated"
    bad_bits: str = "DO_NOT_USE"

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.n_modes:
            raise LyotError("truncate is empty; give at least one number of KL modes.")
        for n in self.n_modes:
            _at_least("truncate", n, 0)
        _one_of("method", self.method, METHODS)
        _one_of("select", self.select, CHOICES)
        _at_least("n_refs", self.n_refs, 0)
        _at_least("min_correlation", self.min_correlation, -1.0)
        _at_least("min_rotation_fwhm", self.min_rotation_fwhm, 0.0)
        if (self.select == ALL_REFS) != (self.n_refs == 0):
            raise LyotError(
                f"select is {self.select!r} and n_refs is {self.n_refs}; say both how references "
                "are chosen and how many."
            )
        if self.error == SCATTER and (self.method not in (KLIP, IMPUTATION) or self.chooses):
            raise LyotError(
                f"error is {self.error!r}, which needs the KL modes of all references: take "
                "method = klip without a choice of references, or error = propagated."
            )
        if self.method in (MEDIAN, NMF) and self.chooses:
            raise LyotError(
                f"method is {self.method!r}, which takes all references; leave out select, n_refs, "
                "min_correlation and min_rotation_fwhm, or take another method."
            )
        _one_of("zones", self.zones, ZONE_KINDS)
        _one_of("annuli_spacing", self.annuli_spacing, SPACINGS)
        _one_of("error", self.error, ERROR_KINDS)
        _at_least("fit_inner_arcsec", self.fit_inner_arcsec, 0.0)
        _at_least("fit_outer_arcsec", self.fit_outer_arcsec, 0.0)
        _at_least("level_inner_arcsec", self.level_inner_arcsec, 0.0)
        _at_least("n_annuli", self.n_annuli, 1)
        _at_least("n_sectors", self.n_sectors, 1)
        if not 0.0 <= self.sector_overlap <= 0.5:
            raise LyotError(
                f"sector_overlap is {self.sector_overlap}; it must lie between 0 and 0.5."
            )

    @property
    def chooses(self) -> bool:
        """Whether integrations or zones may have references of their own."""
        return bool(
            self.select != ALL_REFS or self.min_correlation > -1.0 or self.min_rotation_fwhm
        )

    @property
    def fits_each(self) -> bool:
        """Whether each integration is fitted with what was chosen for it alone."""
        return self.chooses or self.method == NMF


@dataclass(frozen=True, kw_only=True)
class LibraryRecipe:
    """How references are chosen from a library.

    Attributes
    ----------
    by : {"correlation", "residual", "time", "wavefront", "spectral_type"}
        Those most correlated with the exposure; one after another the one that lowers its
        residual most; those nearest in time, in wavefront, in spectral type.
    n : int
        How many at most; zero for all.
    where : str
        A condition in SQL over the columns of the library's index.
    spectral_type : str
        Spectral type of the target, for ``by = spectral_type``.
    wavefront_nm : float or None
        Rms of the wavefront at its time [nm], for ``by = wavefront``.
    """

    by: str = BY_CORRELATION
    n: int = 200
    where: str = ""
    spectral_type: str = ""
    wavefront_nm: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        _one_of("library_by", self.by, LIBRARY_CHOICES)
        _at_least("library_n", self.n, 0)


@dataclass(frozen=True, kw_only=True)
class CombineRecipe:
    """How the subtracted integrations are combined on the sky.

    Attributes
    ----------
    align_on : {"star", "header"}
        Put the star of every exposure on one sky position, or trust each header's WCS.
    pixfrac : float
        Fraction of a pixel that its flux is confined to before drizzling.
    kernel : str
        Drizzle kernel.
    weight_type : {"ivm", "exptime", "uniform"}
        Weight of a pixel: inverse read-noise variance, exposure time, or one.
    pixel_scale_ratio : float
        Output over input pixel scale.
    rotation : float or None
        Position angle of the output y axis [degree]; None for that of the first exposure.
    bad_bits : str
        DQ flags of pixels that are left out.
    """

    align_on: str = "star"
    pixfrac: float = 1.0
    kernel: str = "square"
    weight_type: str = "ivm"
    pixel_scale_ratio: float = 1.0
    rotation: float | None = None
    bad_bits: str = "DO_NOT_USE+NON_SCIENCE"

    def __post_init__(self) -> None:
        """Check the values."""
        _one_of("align_on", self.align_on, ANCHORS)
        _one_of("kernel", self.kernel, KERNELS)
        _one_of("weight_type", self.weight_type, WEIGHTS)
        if not 0.0 <= self.pixfrac <= 1.0:
            raise LyotError(f"pixfrac is {self.pixfrac}; it must lie between 0 and 1.")
        if not self.pixel_scale_ratio > 0.0:
            raise LyotError(f"pixel_scale_ratio is {self.pixel_scale_ratio}; it must be positive.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All parameters of a reduction.

    Attributes
    ----------
    star_xy : tuple of float or None
        Position of the star in every science exposure [pixel, 0-based]; None to find it.
    outlier, align, subtract, combine
        The parameters of each stage.
    """

    star_xy: tuple[float, float] | None = None
    outlier: OutlierRecipe = field(default_factory=OutlierRecipe)
    align: AlignRecipe = field(default_factory=AlignRecipe)
    subtract: SubtractRecipe = field(default_factory=SubtractRecipe)
    combine: CombineRecipe = field(default_factory=CombineRecipe)


def to_dict(recipe: Any, /) -> dict[str, Any]:
    """Turn a recipe into plain values that any file format takes.

    Parameters
    ----------
    recipe : Recipe or one of its parts
        The recipe.

    Returns
    -------
    dict
        Nested dictionaries of numbers, strings, lists and None.
    """

    def _plain(value: Any) -> Any:
        """Turn tuples into lists, at any depth."""
        if isinstance(value, dict):
            return {key: _plain(item) for key, item in value.items()}
        return [_plain(item) for item in value] if isinstance(value, tuple) else value

    result: dict[str, Any] = _plain(asdict(recipe))
    return result


def from_dict(kind: type, values: dict[str, Any], /) -> Any:
    """Make a recipe of plain values.

    Parameters
    ----------
    kind : type
        `Recipe` or the class of one of its parts.
    values : dict
        As from `to_dict`; what is missing takes its default.

    Returns
    -------
    object
        A value of that class.

    Raises
    ------
    LyotError
        If a name is not a parameter.
    """
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise LyotError(
            f"{unknown[0]!r} is no parameter of {kind.__name__}; known are {', '.join(known)}."
        )
    parts = {
        "outlier": OutlierRecipe,
        "align": AlignRecipe,
        "subtract": SubtractRecipe,
        "combine": CombineRecipe,
    }
    ready = {}
    for name, value in values.items():
        if kind is Recipe and name in parts:
            ready[name] = from_dict(parts[name], value)
        else:
            ready[name] = tuple(value) if isinstance(value, list) else value
    return kind(**ready)

"""The parameters of a reduction: of the pipeline and of each of its steps."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lyot.errors import LyotError
from lyot.parameters.fields import MAX_MODES, Parameters, arcsec, choice, input_file, parameter

ALL_INTEGRATIONS, FIRST_INTEGRATION = "all", "first"
AUTO, BY_SYMMETRY, BY_MODEL = "auto", "symmetry", "model"
PROPAGATED, SCATTER = "propagated", "scatter"
ALL_REFS, BY_CORRELATION, BY_RESIDUAL, BY_TIME = "all", "correlation", "residual", "time"
SURFACES = ("none", "constant", "plane", "quadratic", "cubic")
STRATEGIES = (AUTO, "rdi", "adi", "adi+rdi")


@dataclass(frozen=True, kw_only=True)
class OutlierRecipe(Parameters):
    """How outliers of an exposure are found: among its integrations, and by their sharpness.

    Examples
    --------
    >>> OutlierRecipe(n_sigma=4.0).n_sigma
    4.0
    """

    skip: bool = parameter(False, "Do not look for outliers", option="skip-outliers")
    n_sigma: float = parameter(
        5.0, "Threshold in standard deviations of the scatter of the integrations", minimum=1.0
    )
    spikes: str = choice(
        (AUTO, "always", "never"),
        "Flag pixels that are sharper than any image of the optics; auto in exposures of fewer "
        "than three integrations, which cannot be compared",
    )
    spike_sigma: float = parameter(
        4.5, "Threshold for spikes in standard deviations of the filtered image", minimum=1.0
    )
    grow_saturated: int = parameter(
        1,
        "Flag also pixels within this distance of one that is SATURATED and DO_NOT_USE",
        unit="pixel",
        minimum=0,
        maximum=10,
    )


@dataclass(frozen=True, kw_only=True)
class BackgroundRecipe(Parameters):
    """How the background of exposures is subtracted.

    Examples
    --------
    >>> BackgroundRecipe(surface="plane").inner_arcsec
    3.0
    """

    skip: bool = parameter(
        False, "Subtract no background from the exposures", option="skip-background"
    )
    scale: float | None = parameter(
        None,
        "Factor of the dedicated background exposures; by default it is fitted to each "
        "integration, that of the light along a mask's boundaries apart",
        minimum=0.0,
    )
    surface: str = choice(
        (AUTO, *SURFACES),
        "Surface that is fitted besides; auto takes a constant where there are dedicated "
        "background exposures, and none where there are not",
        option="background-surface",
    )
    inner_arcsec: float = arcsec(3.0, "The background is fitted beyond this separation")
    bad_bits: str = parameter(
        "DO_NOT_USE", "DQ flags of bad pixels: names joined by + or commas, or a number"
    )


@dataclass(frozen=True, kw_only=True)
class AlignRecipe(Parameters):
    """How references are aligned to the science integrations.

    Examples
    --------
    >>> AlignRecipe(align_to="second")
    Traceback (most recent call last):
    ...
    lyot.errors.LyotError: align_to is 'second'; it must be one of all, first.
    """

    align_to: str = choice(
        (ALL_INTEGRATIONS, FIRST_INTEGRATION),
        "Align the references to every science integration, or only to the first (3-D product)",
        option="align-to",
    )
    bad_bits: str = parameter(
        "DO_NOT_USE", "DQ flags of bad pixels: names joined by + or commas, or a number"
    )
    median_box_length: int = parameter(
        3,
        "Side of the box whose median replaces a bad pixel in the alignment",
        unit="pixel",
        minimum=1,
    )
    max_shift: float | None = parameter(
        None,
        "Largest shift along each axis; by default that of the coronagraph",
        unit="pixel",
        minimum=0.0,
    )
    star_from: str = choice(
        (AUTO, BY_SYMMETRY, BY_MODEL),
        "How the star's position is measured where it is not given: center of symmetry, or a "
        "model of the image; auto takes the mean of both, and behind phase masks the model",
    )


@dataclass(frozen=True, kw_only=True)
class AlignInputs(Parameters):
    """Files that the alignment reads.

    Examples
    --------
    >>> AlignInputs(psfmask="psfmask.fits").psfmask
    'psfmask.fits'
    """

    psfmask: str | None = input_file(
        "PSFMASK reference file: the weight of each pixel in the alignment",
        step="override_psfmask",
        option="psfmask",
    )


@dataclass(frozen=True, kw_only=True)
class StarParameters(Parameters):
    """Where the star is in the science exposures; measured by default.

    Examples
    --------
    >>> StarParameters(star_x=160.2, star_y=158.9).xy
    (160.2, 158.9)
    """

    star_x: float | None = parameter(
        None, "Position of the star in the science exposures, x", unit="pixel, 0-based"
    )
    star_y: float | None = parameter(
        None, "Position of the star in the science exposures, y", unit="pixel, 0-based"
    )

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if (self.star_x is None) != (self.star_y is None):
            raise LyotError(
                f"star_x is {self.star_x} and star_y is {self.star_y}; give both or neither.",
                parameter="star_x",
            )

    @property
    def xy(self) -> tuple[float, float] | None:
        """The position, or None."""
        if self.star_x is None or self.star_y is None:
            return None
        return float(self.star_x), float(self.star_y)


@dataclass(frozen=True, kw_only=True)
class ComputeParameters(Parameters):
    """Where the arrays are computed.

    Examples
    --------
    >>> ComputeParameters().device
    'cpu'
    """

    device: str = choice(
        ("cpu", "cuda", "torch"),
        "Where arrays are computed: cpu by NumPy, cuda on a GPU by PyTorch or CuPy, torch by "
        "PyTorch on the CPU",
        option="device",
    )


@dataclass(frozen=True, kw_only=True)
class SubtractRecipe(Parameters):
    """How the stellar image is modeled from the references and subtracted.

    What a method allows is checked where the methods are, by `lyot.subtraction.methods.method_of`.

    Examples
    --------
    >>> SubtractRecipe(n_modes=(5, 20), zones="annuli").n_modes
    (5, 20)
    """

    method: str = parameter(
        "klip",
        "How the references model the star: klip by their KL modes; mean or median by their "
        "scaled mean or median; imputation by KL modes fitted at the anchor pixels (those that "
        "count in the fit); nmf by non-negative components",
        option="method",
        metavar="NAME",
    )
    n_modes: tuple[int, ...] = parameter(
        (50,),
        "Number of KL modes or components; several numbers give one product each, and more than "
        "there are references means all",
        minimum=0,
        maximum=MAX_MODES,
        required=True,
        step="truncate",
        option="truncate",
        metavar="N[,N...]",
    )
    select: str = choice(
        (ALL_REFS, BY_CORRELATION, BY_RESIDUAL, BY_TIME),
        "How references are chosen for each integration and zone: all; the most correlated; one "
        "after another the one that lowers the residual most; the nearest in time",
        option="select",
    )
    n_refs: int = parameter(
        0,
        "Largest number of references chosen by select; 0 for all",
        minimum=0,
        option="n-refs",
        metavar="N",
    )
    min_correlation: float = parameter(
        -1.0,
        "Leave out references that correlate less with the integration in the zone; -1 for none",
        minimum=-1.0,
        maximum=1.0,
    )
    min_rotation_fwhm: float = parameter(
        0.0,
        "Leave out rolls of the target whose rotation moves a source by less, which limits "
        "self-subtraction; 0 for none",
        unit="FWHM",
        minimum=0.0,
        option="min-rotation",
        metavar="FWHM",
    )
    zones: str = choice(
        ("full", "annuli", "map"),
        "Zones that are fitted separately: the full frame, annuli, or those of zone_map",
        option="zones",
    )
    n_annuli: int = parameter(5, "Number of annuli", minimum=1)
    n_sectors: int = parameter(1, "Number of sectors in each annulus", minimum=1)
    annuli_spacing: str = choice(
        ("constant", "linear", "log"), "How the width of the annuli grows with separation"
    )
    inner_arcsec: float = arcsec(0.0, "Inner edge of the first annulus")
    outer_arcsec: float = arcsec(
        0.0, "Outer edge of the last annulus; 0 for the nearest edge of the frame"
    )
    sector_overlap: float = parameter(
        0.0, "Overlap of neighboring sectors as a fraction of a sector", minimum=0.0, maximum=0.5
    )
    fit_inner_arcsec: float = arcsec(
        0.0, "Pixels nearer to the star are subtracted but do not count in the fit"
    )
    fit_outer_arcsec: float = arcsec(
        0.0,
        "Pixels farther from the star are subtracted but do not count in the fit; 0 for no limit",
    )
    level_inner_arcsec: float = arcsec(
        5.0,
        "The background level of the residual is measured beyond this separation; 0 takes the "
        "mean of the zone",
    )
    level_surface: str = choice(
        (AUTO, *SURFACES[1:]),
        "Shape of the background level of the residual; auto takes a constant, and where dedicated "
        "background exposures were subtracted a plane, behind four-quadrant masks a cubic surface",
        option="level-surface",
    )
    rows_inner_arcsec: float = parameter(
        0.0,
        "Subtract from the residual the level of each row that the detector reads, 1/f noise, as "
        "measured beyond this separation, for example 2; 0 leaves it",
        unit="arcsec",
        minimum=0.0,
        option="rows-inner",
        metavar="ARCSEC",
    )
    subtract_mean: bool = parameter(
        True, "Subtract the weighted mean of the zone before the fit, and a level after it"
    )
    error: str = choice(
        (PROPAGATED, SCATTER),
        "What ERR is: the propagated errors, or the scatter of the residuals of the references "
        "as in the official pipeline",
    )
    scale_err: bool = parameter(
        False, "Multiply ERR by the scatter of the blank sky over it, where there is blank sky"
    )
    bad_bits: str = parameter(
        "DO_NOT_USE",
        "DQ flags of science pixels that are left out: names joined by + or commas, or a number",
    )

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if (self.select == ALL_REFS) != (self.n_refs == 0):
            raise LyotError(
                f"select is {self.select!r} and n_refs is {self.n_refs}; say both how references "
                "are chosen and how many.",
                parameter="select",
            )

    @property
    def chooses(self) -> bool:
        """Whether integrations or zones may have references of their own."""
        return bool(
            self.select != ALL_REFS or self.min_correlation > -1.0 or self.min_rotation_fwhm
        )


@dataclass(frozen=True, kw_only=True)
class FitInputs(Parameters):
    """Images that the subtraction reads.

    Examples
    --------
    >>> FitInputs(fit_weight="weight.fits").fit_weight
    'weight.fits'
    """

    fit_weight: str | None = input_file(
        "FITS image of weights in the fit, for example 0 on a disc or a companion"
    )
    zone_map: str | None = input_file("FITS image of zone numbers, for zones = map")
    disc_model: str | None = input_file(
        "FITS image of a disc model, not convolved, north up about the middle pixel; the "
        "coefficients are fitted without the disc, which avoids over-subtraction"
    )


@dataclass(frozen=True, kw_only=True)
class CombineRecipe(Parameters):
    """How the subtracted integrations are combined on the sky.

    Examples
    --------
    >>> CombineRecipe(pixfrac=2.0)
    Traceback (most recent call last):
    ...
    lyot.errors.LyotError: pixfrac is 2.0; it must lie between 0 and 1.
    """

    align_on: str = choice(
        ("star", "header"),
        "Put the stars of all exposures on one sky position, or trust the WCS of each header",
        option="align-on",
    )
    pixfrac: float = parameter(
        1.0,
        "Fraction of a pixel that its flux is confined to before drizzling",
        minimum=0.0,
        maximum=1.0,
    )
    kernel: str = choice(
        ("square", "gaussian", "point", "turbo", "lanczos2", "lanczos3"), "Drizzle kernel"
    )
    weight_type: str = choice(
        ("ivm", "exptime", "uniform"),
        "Weight of a pixel: inverse read-noise variance (without one, the exposure's inverse "
        "variance by ERR), exposure time, or one",
    )
    pixel_scale_ratio: float = parameter(
        1.0, "Output pixel scale over input", minimum=0.05, maximum=20.0
    )
    rotation: float | None = parameter(
        None,
        "Position angle of the output y axis; by default that of the first exposure",
        unit="degree",
    )
    bad_bits: str = parameter(
        "DO_NOT_USE+NON_SCIENCE",
        "DQ flags of pixels that are left out: names joined by + or commas, or a number",
    )


@dataclass(frozen=True, kw_only=True)
class HlspRecipe(Parameters):
    """How the SNR image and the 1-sigma contrast curve of an image are made.

    Examples
    --------
    >>> HlspRecipe(annuli_width=3).annuli_width
    3
    """

    annuli_width: int = parameter(
        2, "Width of the annuli in which the noise is measured", unit="pixel", minimum=1
    )
    center_on: str = choice(
        (AUTO, "star", "image"),
        "Center of the annuli: the recorded star, the middle of the image, or the star where one "
        "is recorded",
    )
    center_x: float | None = parameter(None, "Center of the annuli, x", unit="pixel, 0-based")
    center_y: float | None = parameter(None, "Center of the annuli, y", unit="pixel, 0-based")


@dataclass(frozen=True, kw_only=True)
class ReferenceParameters(Parameters):
    """Which exposures are the references of a science exposure.

    Examples
    --------
    >>> ReferenceParameters(strategy="adi+rdi").strategy
    'adi+rdi'
    """

    strategy: str = choice(
        STRATEGIES,
        "References: rdi (reference-star differential imaging) takes the psf members of the "
        "association, adi (angular differential imaging) the other rolls of the target, adi+rdi "
        "both; auto takes the psf members where there are any",
        option="strategy",
    )
    library: str | None = parameter(
        None,
        "Folder of a reference library, from which the best references are added",
        option="library",
        metavar="LIB",
    )


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(MB|GB)", re.IGNORECASE)
MIN_MEMORY_MB = 700.0
"""What a run needs whatever it reduces."""


@dataclass(frozen=True, kw_only=True)
class MemoryParameters(Parameters):
    """How much memory a run takes.

    Examples
    --------
    >>> MemoryParameters(memory="4GB").n_bytes
    4000000000
    """

    memory: str | None = parameter(
        None,
        "Largest memory of the run, such as 4GB; arrays that do not fit lie on disk, beside the "
        "products; by default 70 % of the memory of the computer",
        option="memory",
        metavar="SIZE",
    )

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.memory is not None and self.n_bytes < MIN_MEMORY_MB * 1e6:
            raise LyotError(
                f"memory is {self.memory[:20]!r}; give at least {MIN_MEMORY_MB:g}MB, such as 4GB.",
                parameter="memory",
            )

    @property
    def n_bytes(self) -> int:
        """The size; 0 where none is given, or none that can be read."""
        found = _SIZE.fullmatch((self.memory or "").strip())
        if found is None:
            return 0
        return int(float(found[1]) * (1e9 if found[2].upper() == "GB" else 1e6))


@dataclass(frozen=True, kw_only=True)
class LibraryRecipe(Parameters):
    """How references are chosen from a library.

    Examples
    --------
    >>> LibraryRecipe(by="time", n=50).n
    50
    """

    by: str = choice(
        (BY_CORRELATION, BY_RESIDUAL, BY_TIME, "wavefront", "spectral_type"),
        "How frames of the library are chosen for each science exposure: the most correlated; one "
        "after another the one that lowers the residual most; the nearest in time, wavefront or "
        "spectral type",
        step="library_by",
        option="library-by",
    )
    n: int = parameter(
        200,
        "Largest number of frames taken from the library; 0 for all",
        minimum=0,
        step="library_n",
        option="library-n",
        metavar="N",
    )
    where: str = parameter(
        "",
        "Restrict the candidates: an SQL condition on the columns of the library",
        step="library_where",
        option="library-where",
        metavar="SQL",
    )
    spectral_type: str = parameter(
        "",
        "Spectral type of the target, for a choice by spectral_type",
        step="library_spectral_type",
        metavar="TYPE",
    )
    wavefront_nm: float | None = parameter(
        None,
        "Rms wavefront error at the time of the target, for a choice by wavefront",
        unit="nm",
        step="library_wavefront_nm",
        metavar="NM",
    )


@dataclass(frozen=True, kw_only=True)
class SaveParameters(Parameters):
    """Which products are written beside the combined image.

    Examples
    --------
    >>> SaveParameters(save_psfalign=False).save_psfstack
    True
    """

    save_crfints: bool = parameter(True, "Save the science exposures with outliers flagged")
    save_psfstack: bool = parameter(True, "Save the stack of references")
    save_psfalign: bool = parameter(True, "Save the aligned references")
    save_psfsub: bool = parameter(True, "Save the subtracted exposures")
    compress_dq: bool = parameter(
        False, "Compress the flags of the aligned references in tiles: a third less to write"
    )


@dataclass(frozen=True, kw_only=True)
class SkipParameters(Parameters):
    """Whether a step is left out."""

    skip: bool = parameter(False, "Skip this step")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The parameters of a reduction that its products record.

    Attributes
    ----------
    star_xy : tuple of float or None
        Position of the star in every science exposure [pixel, 0-based]; None to measure it.
    background, outlier, align, subtract, combine
        The parameters of each stage.

    Examples
    --------
    >>> Recipe(subtract=SubtractRecipe(n_modes=(20,))).subtract.n_modes
    (20,)
    """

    star_xy: tuple[float, float] | None = None
    background: BackgroundRecipe = field(default_factory=BackgroundRecipe)
    outlier: OutlierRecipe = field(default_factory=OutlierRecipe)
    align: AlignRecipe = field(default_factory=AlignRecipe)
    subtract: SubtractRecipe = field(default_factory=SubtractRecipe)
    combine: CombineRecipe = field(default_factory=CombineRecipe)

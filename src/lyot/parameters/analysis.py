"""The parameters of an analysis of a finished run."""

from __future__ import annotations

from dataclasses import dataclass

from lyot.errors import LyotError
from lyot.parameters.fields import (
    MAX_MODES,
    Parameters,
    choice,
    input_file,
    parameter,
    parameters_of,
)

FIVE_SIGMA_FPF = 2.866515719235352e-7


@dataclass(frozen=True, kw_only=True)
class SourceParameters(Parameters):
    """The color of a source, for the model of its PSF."""

    source_spectrum: str | None = input_file(
        "Spectrum of the source, for the model of its PSF: columns of wavelength [micrometer] and "
        "flux density [Jy], or a table with units; by default that of a hot star"
    )
    source_temperature: float | None = parameter(
        None,
        "Temperature of the source, instead of its spectrum",
        unit="K",
        minimum=100.0,
        maximum=1e6,
        metavar="K",
    )


@dataclass(frozen=True, kw_only=True)
class ObservationParameters(SourceParameters):
    """What an analysis of a finished run takes besides the run: PSF, mask and star.

    Examples
    --------
    >>> ObservationParameters(star_magnitude=4.0, n_modes=(5, 20)).n_modes
    (5, 20)
    """

    star_magnitude: float | None = parameter(
        None, "Vega magnitude of the star", step="star_mag", option="star-mag", metavar="MAG"
    )
    star_jy: float | None = parameter(
        None,
        "Flux density of the star",
        unit="Jy",
        above=0.0,
        step="star_flux",
        option="star-flux",
        metavar="JY",
    )
    star_spectrum: str | None = input_file(
        "Spectrum of the star, from which its flux density in the filter follows: columns of "
        "wavelength [micrometer] and flux density [Jy], or a table with units",
        option="star-spectrum",
    )
    star_frame: str | None = input_file(
        "FITS image of the star without the mask, from which its brightness is measured"
    )
    star_err: float | None = parameter(
        None,
        "Relative error of the star's brightness, for the errors of contrasts: 0.03 is 3 %; by "
        "default it is not in them",
        minimum=0.0,
        option="star-err",
        metavar="FRACTION",
    )
    psf: str | None = input_file("FITS image of the off-axis PSF; by default a model")
    transmission: str | None = input_file(
        "FITS map of the mask's transmission on the frames; by default a model"
    )
    keep_err: bool = parameter(
        False,
        "Take ERR as it is; by default it is multiplied by the scatter of the blank sky over it, "
        "where there is blank sky",
    )
    n_modes: tuple[int, ...] | None = parameter(
        None,
        "Numbers of KL modes that are analyzed; by default those of the run",
        minimum=0,
        maximum=MAX_MODES,
        step="truncate",
        metavar="N[,N...]",
    )


@dataclass(frozen=True, kw_only=True)
class ExclusionParameters(Parameters):
    """Sources that are excluded from the noise estimate.

    Examples
    --------
    >>> ExclusionParameters(known=((1.1, 205.0),)).known
    ((1.1, 205.0),)
    """

    known: tuple[tuple[float, float], ...] = parameter(
        (),
        "Exclude a known source from the noise estimate: its separation and position angle; may "
        "be repeated",
        unit="arcsec, degree",
        metavar="SEP PA",
    )
    disc: tuple[float, float] | None = parameter(
        None,
        "Exclude an edge-on disc from the noise estimate: its position angle and half opening "
        "angle",
        unit="degree",
        metavar="PA HALF-WIDTH",
    )


@dataclass(frozen=True, kw_only=True)
class StatisticParameters(Parameters):
    """How the significance of a flux is judged."""

    fpf: float = parameter(
        FIVE_SIGMA_FPF,
        "False-positive fraction of one test; by default that of 5 sigma of a Gaussian",
        above=0.0,
        below=0.5,
        metavar="FPF",
    )
    noise: str = choice(("gaussian", "laplace"), "Distribution of the noise")
    others: str = choice(
        ("n-1", "n"),
        "Number of other positions, of n at a separation, that one is compared with; n is the "
        "choice of VIP and pyKLIP",
    )
    flux_by: str = choice(
        ("whitened", "matched", "aperture"),
        "How a flux is measured: by a matched filter for the noise's covariance, by one for white "
        "noise, or in an aperture of one FWHM",
    )


@dataclass(frozen=True, kw_only=True)
class ContrastParameters(Parameters):
    """Where contrast limits are measured.

    Examples
    --------
    >>> ContrastParameters(separations=(0.5, 1.0, 2.0)).separations
    (0.5, 1.0, 2.0)
    """

    separations: tuple[float, ...] | None = parameter(
        None,
        "Separations from the star; by default 24 from one FWHM to the edge",
        unit="arcsec",
        above=0.0,
        metavar="A[,B...]",
    )


@dataclass(frozen=True, kw_only=True)
class MassParameters(Parameters):
    """What turns contrast limits into limits in mass; all three, or none.

    Examples
    --------
    >>> MassParameters(age=20.0, distance=10.0, mass_table="models.ecsv").age
    20.0
    """

    age: float | None = parameter(
        None,
        "Age of the star, for limits in mass",
        unit="Myr",
        above=0.0,
        option="age",
        metavar="MYR",
    )
    distance: float | None = parameter(
        None,
        "Distance of the star, for limits in mass",
        unit="pc",
        above=0.0,
        option="distance",
        metavar="PC",
    )
    mass_table: str | None = input_file(
        "Table of evolutionary models (ECSV, CSV, FITS, VOTable), for limits in mass: columns age "
        "[Myr], mass [Jupiter masses] and one named after the filter: absolute Vega magnitude, or "
        "flux density at 10 pc with its unit",
        option="mass-table",
    )

    def __post_init__(self) -> None:
        """Check the values, and that none is missing where another is given."""
        super().__post_init__()
        missing = [each.name for each in parameters_of(type(self)) if not getattr(self, each.name)]
        if 0 < len(missing) < 3:
            raise LyotError(
                "Limits in mass need the age and the distance of the star and a table of models; "
                f"give {' and '.join(missing).replace('_', ' ')} too.",
                parameter=missing[0],
            )

    @property
    def is_given(self) -> bool:
        """Whether limits in mass are asked for."""
        return self.age is not None


@dataclass(frozen=True, kw_only=True)
class CompanionParameters(Parameters):
    """How companions are measured.

    Examples
    --------
    >>> CompanionParameters(at=((1.1, 205.0),), likelihoods=0).background
    'plane'
    """

    at: tuple[tuple[float, float], ...] = parameter(
        (),
        "First guess of separation and position angle; companions given together are fitted "
        "together",
        unit="arcsec, degree",
        required=True,
        metavar="SEP PA",
    )
    background: str = parameter(
        "plane",
        "Smooth background fitted with the companion, such as a disc leaves",
        choices=("none", "constant", "plane", "quadratic"),
    )
    likelihoods: int = parameter(
        10_000,
        "Number of likelihoods that the sampling evaluates; 0 takes the errors from the curvature "
        "at the best fit",
        minimum=0,
        metavar="N",
    )


@dataclass(frozen=True, kw_only=True)
class PsfParameters(SourceParameters):
    """Of which source an image is made, and on which pixels.

    Examples
    --------
    >>> PsfParameters(at=(1.0, -0.5), oversample=3).pixels
    65
    """

    at: tuple[float, float] = parameter(
        (),
        "Offset of the source from the star along the detector's x and y",
        unit="arcsec",
        required=True,
        metavar="DX DY",
    )
    instrument: str = parameter("", "Instrument, where no exposure is given", metavar="NAME")
    filter: str = parameter("", "Filter, where no exposure is given", metavar="NAME")
    mask: str = parameter("", "Coronagraphic mask, where no exposure is given", metavar="NAME")
    pixels: int = parameter(
        65, "Width of the image in detector pixels; odd", minimum=1, maximum=999, metavar="N"
    )
    oversample: int = parameter(
        1, "Samples per detector pixel and axis", minimum=1, maximum=25, metavar="N"
    )
    seed: int | None = parameter(
        None,
        "Seed of one draw of the wavefront errors; by default the mean over draws",
        minimum=0,
        metavar="N",
    )


COMMANDS: dict[str, tuple[type[Parameters], ...]] = {
    "contrast": (
        ObservationParameters,
        ExclusionParameters,
        StatisticParameters,
        ContrastParameters,
        MassParameters,
    ),
    "detect": (ObservationParameters, ExclusionParameters, StatisticParameters),
    "companion": (
        ObservationParameters,
        ExclusionParameters,
        StatisticParameters,
        CompanionParameters,
    ),
    "psf": (PsfParameters,),
}
"""The classes of parameters that each analysis takes."""

"""Contrast limits of a finished run, measured, drawn and written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lyot.algorithms.statistics import FIVE_SIGMA_FPF
from lyot.analysis import contrast
from lyot.analysis.maps import Known, KnownDisc
from lyot.analysis.observation import Observation, open_run
from lyot.compute.cluster import Tasks
from lyot.errors import LyotError
from lyot.files.results import write_grid, write_maps, write_table
from lyot.viz import analysis as draw


def known_sources(options: dict[str, Any], /) -> tuple[Known | KnownDisc, ...]:
    """Return the sources that are no noise.

    Parameters
    ----------
    options : dict
        ``known``, pairs of separation and position angle, and ``disc``, position angle and half
        opening of an edge-on disc.

    Returns
    -------
    tuple of Known or KnownDisc
        In that order.
    """
    sources: list[Known | KnownDisc] = [Known(*place) for place in options.get("known") or ()]
    return (*sources, KnownDisc(*options["disc"])) if options.get("disc") else tuple(sources)


@contextmanager
def opened(run: str | Path, options: dict[str, Any], /) -> Iterator[Observation]:
    """Open a finished run for the analysis.

    Parameters
    ----------
    run : path
        Its folder.
    options : dict
        ``truncate``, ``psf``, ``transmission``, ``star_mag``, ``star_flux``, ``star_frame``; each
        may be missing.

    Yields
    ------
    Observation
        To be used within the context.

    Raises
    ------
    LyotError
        If an option is not valid, or a product is missing.
    """
    truncate = options.get("truncate")
    try:
        n_modes = tuple(int(n) for n in truncate.split(",")) if truncate else None
    except ValueError:
        raise LyotError(
            f"--truncate is {truncate!r}; give whole numbers, such as 5,20,50."
        ) from None
    with open_run(
        run,
        n_modes=n_modes,
        psf=options.get("psf"),
        transmission=options.get("transmission"),
        star_jy=options.get("star_flux"),
        star_magnitude=options.get("star_mag"),
        star_frame=options.get("star_frame"),
    ) as observation:
        yield observation


def write_limits(
    run: str | Path, options: dict[str, Any], /, *, tasks: Tasks | None = None
) -> tuple[list[str], contrast.ContrastCurve]:
    """Measure the contrast limits of a finished run, and write table, maps and figures.

    Parameters
    ----------
    run : path
        Its folder.
    options : dict
        As `opened` takes them, and ``separations``, ``fpf``, ``flux_by``, ``noise``, ``known``,
        ``disc``, ``output_dir``.
    tasks : lyot.compute.cluster.Tasks, optional
        Where the grid of injections runs.

    Returns
    -------
    written : list of str
        Paths of what was written.
    curve : ContrastCurve
        The limits.

    Raises
    ------
    LyotError
        If an option is not valid, or a product is missing.
    """
    text = options.get("separations")
    try:
        separations = None if not text else np.array([float(v) for v in text.split(",")])
    except ValueError:
        raise LyotError(f"--separations is {text!r}; give numbers, such as 0.5,1,2.") from None
    fpf, known = options.get("fpf") or FIVE_SIGMA_FPF, known_sources(options)
    distribution = options.get("noise") or "gaussian"
    folder = Path(options.get("output_dir") or run)
    with opened(run, options) as observation:
        curve = contrast.contrast_curve(
            observation,
            separations_arcsec=separations,
            fpf=fpf,
            known=known,
            method=options.get("flux_by") or "matched",
            distribution=distribution,
            tasks=tasks,
        )
        best = observation.n_modes[int(np.bincount(curve.best).argmax())]
        spread = contrast.sensitivity_map(observation, curve, n_modes=best)
        complete = contrast.completeness_map(
            observation,
            separations_arcsec=separations,
            fpf=fpf,
            known=known,
            n_modes=best,
            distribution=distribution,
        )
        name = observation.product
    keywords = {"FPF": fpf, "NMODES": best}
    axes = {"SEPARATION": complete.separation_arcsec, "CONTRAST": complete.contrast}
    written = [
        write_table(curve.to_table(), folder / f"{name}_limits.ecsv"),
        write_maps(
            {"LIMIT": spread.limit},
            folder / f"{name}_sensitivity.fits",
            pixel_scale_arcsec=spread.pixel_scale_arcsec,
            keywords=keywords,
        ),
        write_grid(
            complete.fraction,
            folder / f"{name}_completeness.fits",
            name="FRACTION",
            axes=axes,
            keywords=keywords,
        ),
    ]

    def _curves(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, height_ratios=(2.2, 1.0))
        draw.contrast(upper, curve).set_title(name, fontsize=9)
        draw.throughput(lower, curve)

    def _maps(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        draw.sensitivity(left, spread)
        draw.completeness(right, complete)

    written.append(draw.save(folder / f"{name}_limits.png", _curves, (6.4, 7.2)))
    written.append(draw.save(folder / f"{name}_sensitivity.png", _maps, (11.0, 4.6)))
    return written, curve

"""The sections of the report: what is shown of a run, one function each."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lyot._version import __version__
from lyot.algorithms.geometry import TangentPlane
from lyot.algorithms.statistics import finite_mean
from lyot.analysis.statistic import chance_text
from lyot.files.star import CRPIX, StarPosition
from lyot.types import Array
from lyot.viz.report import plots
from lyot.viz.report.background import background
from lyot.viz.report.blocks import (
    Block,
    Cell,
    Code,
    Details,
    Grid,
    Number,
    Paragraph,
    Source,
    Table,
    cell,
    number,
)
from lyot.viz.report.companions import companions
from lyot.viz.report.drawing import drawing
from lyot.viz.report.facts import Combined, ExposureFacts, Product, RunFacts, Subtraction
from lyot.viz.report.frames import Frame, Viewer, circles, frame_of, known_places
from lyot.viz.style import modes_label

MIN_REFERENCES = 5
MAX_SHIFT_ERROR_PIX = 0.1
MIN_EIGENVALUE_RATIO = 1e-9
"""Last over first eigenvalue, below which the references are called nearly degenerate."""
MAX_FRAME_CHARACTERS = 1_300_000
"""Characters that the frames of all exposures may take, so that the page stays below 3 MB."""


def title(run: RunFacts, /) -> str:
    """Name what was observed: target, instrument, filter and coronagraph."""
    info = run.main.view.info
    parts = (info.target, info.instrument, info.filter, info.coronagraph)
    return " ".join(part for part in parts if part) or run.name


def lead(run: RunFacts, /) -> str:
    """Say in one sentence what the run is."""
    parts = [f"{run.name}: {_plural(len(run.exposures), 'science exposure')}"]
    if run.exposures:
        first = run.exposures[0]
        parts.append(_plural(len(first.alignment.targets), "reference frame"))
        parts.append(f"method {first.best.method}")
    return f"{', '.join(parts)}; lyot {__version__}."


def warnings(run: RunFacts, /) -> list[str]:
    """List what must be known before the products are used; each once."""
    found = [text for exposure in run.exposures for text in _warnings(exposure)]
    if run.companions is not None:
        found += run.companions.meta.get("lyot", {}).get("warnings", [])
    return list(dict.fromkeys(found))


def _warnings(exposure: ExposureFacts) -> Iterator[str]:
    align, root = exposure.alignment, exposure.root
    if len(align.targets) < MIN_REFERENCES:
        yield (
            f"Only {_plural(len(align.targets), 'reference frame')}: the model of the star is poor."
        )
    failed = int(np.sum(~align.converged))
    if failed:
        yield (
            f"{root}: {failed} of {align.converged.size} alignments did not converge or reached "
            "the limit of the shift."
        )
    error = float(np.nanmedian(align.shift_error_yx))
    if error > MAX_SHIFT_ERROR_PIX:
        yield f"{root}: poor alignment, the median shift error is {error:.2f} pixel."
    ratio = _eigenvalue_ratio(exposure.subtractions[-1])
    if ratio < MIN_EIGENVALUE_RATIO:
        yield (
            f"{root}: the references are nearly degenerate; the eigenvalue of the last mode is "
            f"{ratio:.0e} of the first."
        )
    if text := exposure.subtractions[-1].sky.warning(root):
        yield text
    for warning in align.warnings:
        star = f" ({warning['target']})" if warning["target"] else ""
        yield f"Reference {warning['reference'] + 1}{star}: {warning['reason']}."
    if align.weight == "built in":
        yield (
            "No PSFMASK reference file was used: the weight of the alignment was computed from "
            "the coronagraph and the position of the star."
        )
    star_position = exposure.subtractions[-1].view.star
    if star_position is None or star_position.origin == CRPIX:
        yield (
            "The position of the star was not measured: the reference pixel of the header was used."
        )
    if align.note:
        yield align.note


def _eigenvalue_ratio(subtraction: Subtraction) -> float:
    used = subtraction.eigenvalues[:, : subtraction.n_modes_used]
    used = np.where(used > 0, used, np.nan)
    return float(np.nanmin(used / used[:, :1])) if used.size else np.inf


def combined(run: RunFacts, /) -> Iterator[Block]:
    """The combined image and its signal-to-noise ratio, with a summary of each exposure."""
    frames = [frame for image in run.images for frame in _combined_frames(run, image)]
    axes = [
        ("modes", [_modes(image) for image in run.images]),
        ("image", ["surface brightness", "SCI / ERR"]),
    ]
    caption = (
        "All integrations of all rolls, combined on one grid of the sky. The cross marks the star, "
        "circles the candidates; RA and Dec at the cursor take the star to be at TARG_RA and "
        "TARG_DEC. "
        "ERR contains the noise of photons, detector and references, but not residual speckles."
    )
    start = (run.images.index(run.main), 0)
    viewer = Viewer("Combined image", axes, frames, start, caption)
    columns = [_summary(exposure) for exposure in run.exposures]
    rows = [[name, *(column[name] for column in columns)] for name in (columns or [{}])[0]]
    header = ["exposure", *(exposure.root for exposure in run.exposures)]
    summary = Table("Summary", header, rows, download=False)
    yield Grid([viewer, summary])


def _combined_frames(run: RunFacts, image: Combined) -> list[Frame]:
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.where(image.err > 0, image.image / image.err, np.nan)
    # Of the other numbers of modes the surroundings of the star are enough.
    crop = image is not run.main
    suffix = f", {_modes(image)}" if len(run.images) > 1 else ""
    return [
        replace(
            frame_of(image.view, None, data, text + suffix, run.candidates, crop=crop),
            unit=unit,
            limits=limits,
        )
        for data, text, unit, limits in (
            (image.image, "surface brightness", "MJy/sr", None),
            (snr, "SCI / ERR", "", (-5.0, 20.0)),
        )
    ]


def _summary(exposure: ExposureFacts) -> dict[str, Number | str]:
    shift, best = np.hypot(*np.moveaxis(exposure.alignment.shift_yx, -1, 0)), exposure.best
    return {
        "integrations": str(len(best.image)),
        "reference frames": str(shift.shape[1]),
        "modes": f"{best.n_modes_used} of {best.n_modes} requested",
        "rms before subtraction [MJy/sr]": number(best.rms_before, ".3g"),
        "rms after subtraction [MJy/sr]": number(best.rms_after, ".3g"),
        "scatter of the blank sky / ERR": str(best.sky),
        "noise of rows left [MJy/sr]": "" if np.isnan(best.rows.rows) else str(best.rows),
        "median shift of the references [pixel]": number(np.median(shift), ".3f"),
        "largest shift of the references [pixel]": number(np.max(shift), ".3f"),
    }


def candidates(run: RunFacts, /) -> Iterator[Block]:
    """The map of the signal-to-noise ratio of a point source, and the candidates."""
    found = run.detection
    if found is None or run.candidates is None:
        reason = run.unsearched or "The run that made these products did not search."
        yield Paragraph(f"No candidates. {reason}")
        return
    scale = found.pixel_scale_arcsec
    middle = found.maps["SNR"].shape[0] // 2
    star = StarPosition(float(middle), float(middle), origin="measured")
    marks = circles(run.candidates, TangentPlane.linear(star.yx, 0.0, scale))
    radec = run.main.view.target_radec
    frames = [
        Frame(
            text,
            found.maps[name],
            "",
            star,
            0.0,
            scale,
            limits=limits,
            marks=marks,
            star_radec=radec,
        )
        for name, text, limits in (
            ("SNR", "S/N of a point source", (-5.0, 10.0)),
            ("STIM", "STIM", (0.0, 3.0)),
        )
    ]
    caption = (
        "S/N of each position relative to the others at the same separation (Mawet et al. 2014). "
        "North is up, east to the left. Circles mark the candidates of the table."
    )
    if known_places(run.candidates):
        caption += " Circles K1, K2 and so on mark the known sources."
    axes = [("map", [frame.name for frame in frames])]
    viewer = Viewer("Search for point sources", axes, frames, (0,), caption)
    n_places = run.candidates.meta["lyot"]["n_places"]
    about = (
        f"{n_places} independent places were tested. A candidate is extended where an aperture of "
        "2.5 FWHM holds more of its light than of a point's, by more than the noise and the "
        "uncertainty of the PSF explain. It rests on a reference star where it is not found "
        "without that star."
    )
    if not len(run.candidates):
        fpf = float(found.keywords.get("FPF", np.nan))
        about = f"No candidate above the threshold (false-positive fraction {fpf:.2g}). {about}"
    yield Grid([viewer, Paragraph(about)])
    if len(run.candidates):
        yield _candidate_table(run.candidates)
    yield Table.of(
        "Known sources, excluded from the noise",
        list(enumerate(known_places(run.candidates), start=1)),
        {
            "#": lambda each: Source(f"K{each[0]}"),
            "separation [arcsec]": lambda each: number(each[1][0], ".3f"),
            "PA [deg]": lambda each: number(each[1][1], ".2f"),
        },
    )


CANDIDATE_COLUMNS: dict[str, Callable[[Any], Cell]] = {
    "separation [arcsec]": lambda row: number(row["separation"], ".3f"),
    "PA [deg]": lambda row: number(row["position_angle"], ".2f"),
    "S/N": lambda row: number(row["snr"], ".1f"),
    "expected false alarms": lambda row: chance_text(row["expected_false_alarms"]),
    "contrast": lambda row: number(row["contrast"], ".2e"),
    "kind": lambda row: str(row["kind"]),
}
"""What tables of candidates show of each."""


def _candidate_table(candidates: Any) -> Table:
    def _without(row: Any) -> Number | str:
        without = number(row["jackknife_snr"], ".1f")
        if not isinstance(without, Number):
            return without
        return Number(f"{without.text} ({row['key_reference']})", without.full)

    first: dict[str, Callable[[Any], Cell]] = {"#": lambda row: Source(str(row.index + 1))}
    columns = (
        first
        | CANDIDATE_COLUMNS
        | {
            "S/N without the most influential reference star": _without,
            "notes": lambda row: "; ".join(
                filter(None, ("known" if row["known"] else "", str(row["notes"])))
            ),
        }
    )
    return Table.of("Candidates", candidates, columns).without_empty_columns()


def before_after(run: RunFacts, /) -> Iterator[Block]:
    """Each exposure before and after subtraction, integration by integration."""
    share = MAX_FRAME_CHARACTERS // max(len(run.exposures), 1)
    if run.exposures:
        yield Grid(
            [_exposure_viewer(exposure, run.candidates, share) for exposure in run.exposures]
        )


def _exposure_viewer(exposure: ExposureFacts, candidates: Any, share: int) -> Viewer:
    """The mean, and as many integrations as fit in the share of the page."""
    best = exposure.best
    sources = [(f"after, {_modes(s)}", s.image) for s in exposure.subtractions]
    start = exposure.subtractions.index(best)
    if exposure.before is not None:
        sources.insert(0, ("before", exposure.before))
        start += 1
    like = exposure.subtractions[-1]
    n_int = len(like.image)
    averages = [finite_mean(image, axis=0) for _, image in sources]

    def shown(data: Array, text: str, crop: bool) -> Frame:
        return frame_of(like.view, like.plane, data, text, candidates, crop=crop)

    def means(crop: bool) -> list[Frame]:
        pairs = zip(averages, sources, strict=True)
        return [shown(mean, f"{text}, mean", crop) for mean, (text, _) in pairs]

    means_shown = means(crop=False)
    if sum(frame.size for frame in means_shown) > share:
        means_shown = means(crop=True)
    free = share - sum(frame.size for frame in means_shown)
    size = shown(averages[0], "", True).size * len(sources)
    n_shown = min(n_int, max(free // max(size, 1), 0)) if n_int > 1 else 0
    frames: list[Frame] = []
    for (text, image), mean in zip(sources, means_shown, strict=True):
        frames.append(mean)
        for i in range(n_shown):
            frames.append(shown(image[i], f"{text}, integration {i + 1}", True))
    axes = [
        ("image", [text for text, _ in sources]),
        ("integration", ["mean", *(str(i + 1) for i in range(n_shown))]),
    ]
    caption = (
        f"Position angle of the y axis: {best.view.pa_y_deg or 0.0:.1f} degrees. The rms of the "
        f"frame is {best.rms_before:.3g} MJy/sr before subtraction and {best.rms_after:.3g} "
        "MJy/sr after."
    )
    return Viewer(exposure.root, axes, frames, (start, 0), caption)


def contrast(run: RunFacts, /) -> Iterator[Block]:
    """Contrast limits with the throughput, and the noise of the combined image."""
    curve, drawings = run.curve, []
    if curve is not None:
        settings = curve.settings
        caption = (
            f"Star: {settings.get('star', '')}. Off-axis PSF: {settings.get('psf', '')}. "
            f"Transmission of the mask: {settings.get('transmission', '')}."
        )
        if left_out := settings.get("found"):
            caption += (
                f" {_plural(len(left_out), 'detected source')} excluded from the noise, each by "
                f"the shape of its PSF ({'; '.join(left_out)}); the dash-dotted limits include "
                "them."
            )
        title = "Contrast limits and throughput"
        drawings.append(drawing(plots.limits(curve), title, caption))
        if run.completeness is not None:
            caption = (
                "Completeness: contrasts from which the search finds half of injected sources, and "
                "nine in ten, over all position angles."
            )
            panels = plots.completeness(*run.completeness)
            drawings.append(drawing(panels, "Completeness", caption))
        if of := settings.get("masses"):
            best = run.limits[np.asarray(run.limits["best"], bool)]
            caption = (
                f"Mass that would be detected at half of the position angles, at {of['age_myr']:g} "
                f"Myr and {of['distance_pc']:g} pc, by the models of {of['origin']}. Where the "
                "line ends, the models reach no such mass."
            )
            panels = plots.masses(*(np.asarray(best[name]) for name in ("separation", "mass")))
            drawings.append(drawing(panels, "Limits in mass", caption))
    if run.noise_curves:
        caption = (
            "Scatter of the combined image in annuli two pixels wide. Discs and companions "
            "contribute to it."
        )
        panels = plots.noise(run.noise_curves, run.main.view.info.pixel_scale_arcsec)
        drawings.append(drawing(panels, "Scatter against separation", caption))
    yield Grid(drawings)
    if curve is None:
        yield Paragraph(
            "No contrast limits: they need the brightness of the star, which was not given."
        )
        return
    yield from map(Paragraph, curve.caveats)
    absent = () if curve.settings.get("found") else ("contrast_unmasked",)
    known = set(run.limits.colnames).difference(absent)
    names = {name: words for name, words in LIMITS_IN_WORDS.items() if name in known}
    rows = [[cell(row[name]) for name in names] for row in run.limits]
    table = Table("Contrast limits", list(names.values()), rows)
    yield Details("Table of limits", [table.without_empty_columns()])


LIMITS_IN_WORDS = {
    "separation": "separation [arcsec]",
    "n_modes": "modes",
    "contrast_raw": "uncorrected",
    "contrast_corrected": "corrected for throughput",
    "contrast": "contrast limit",
    "contrast_unmasked": "limit with detected sources in the noise",
    "mass": "limit [Jupiter masses]",
    "throughput": "throughput",
    "transmission": "transmission",
    "n_positions": "independent positions",
    "tau": "threshold / noise",
}
"""Columns of the table of limits."""


def provenance(run: RunFacts, /) -> Iterator[Block]:
    """What went into the run: the association, its members with checksums, the library."""
    inputs, info = run.inputs, run.main.view.info
    rolls = ", ".join(f"{e.best.view.pa_y_deg or 0.0:.2f}" for e in run.exposures)
    observation = [
        ["association", inputs.table],
        ["product", run.name],
        ["instrument, filter, mask", f"{info.instrument} {info.filter} {info.coronagraph}"],
        ["position angles of y [deg]", rolls],
    ]
    members: list[list[Number | str]] = [
        [name, kind, Number(f"{checksum[:16]}\u2026", checksum)]
        for name, kind, checksum in inputs.members
    ]
    if inputs.library:
        observation.append(["reference library", inputs.library])
    yield Table("Observation", ["item", "value"], observation, download=False)
    yield Table("Members", ["member", "type", "SHA-256"], members)
    if inputs.library:
        rows = [[name, number(value, ".5f")] for name, value in inputs.frames]
        table = Table("Frames of the library", ["frame", "correlation"], rows)
        yield Details("Frames of the library", [table])


def star(run: RunFacts, /) -> Iterator[Block]:
    """Where the star is on each exposure, and where that comes from."""
    header = ["exposure", "x [pixel, from 0]", "error", "y", "error", "origin"]
    rows = [
        [e.root, *(number(v, ".3f") for v in (at.x, at.x_err, at.y, at.y_err)), at.origin]
        for e in run.exposures
        if (at := e.subtractions[-1].view.star)
    ]
    yield Table("Star", header, rows)
    if run.inputs.star_is_aligned:
        yield Paragraph(
            "The exposures were combined with their stars at the same position on the sky; the WCS "
            "of the headers gives only orientation and scale."
        )


def alignment(run: RunFacts, /) -> Iterator[Block]:
    """The shifts of the references, drawn and listed."""
    drawings, rows = [], list[list[Number | str]]()
    for exposure in run.exposures:
        align = exposure.alignment
        caption = f"{exposure.root}: shift of each reference, with its error."
        if len(align.shift_yx) > 1:
            caption = (
                f"{exposure.root}. Above: drift of the pointing, the mean shift of all references "
                "to each integration. Below: shift of each reference, averaged over integrations."
            )
        caption += f" Weight of the fit: {align.weight or 'not recorded'}."
        panels = plots.shifts(align.shift_yx, align.shift_error_yx)
        drawings.append(drawing(panels, f"Shifts of {exposure.root}", caption))
        for k, target in enumerate(align.targets):
            y, x = align.shift_yx[:, k].mean(axis=0)
            error = np.hypot(*align.shift_error_yx[:, k].mean(axis=0))
            shift = (number(value, ".4f") for value in (x, y, error))
            scale = number(align.scale[:, k].mean(), ".4g")
            converged = "yes" if align.converged[:, k].all() else "no"
            rows.append([exposure.root, str(k + 1), target, *shift, scale, converged])
    header = ["exposure", "reference", "star", "shift x [pixel]", "shift y [pixel]"]
    header += ["error [pixel]", "scale", "converged"]
    yield Grid(drawings)
    yield Details("Table of shifts", [Table("Alignment of the references", header, rows)])


def modes(run: RunFacts, /) -> Iterator[Block]:
    """Show eigenvalues and residual against the number of modes, and what each reference adds."""
    drawings = []
    for exposure in run.exposures:
        last, align = exposure.subtractions[-1], exposure.alignment
        scale = align.scale
        if last.coefficients.shape[-1] != scale.shape[-1]:  # of components, or of the median
            scale = np.ones((1, last.coefficients.shape[-1]))
        panels = [
            plots.spectrum(last.eigenvalues, last.residual_rms),
            plots.weights(last.coefficients, scale, align.targets),
        ]
        caption = (
            f"{exposure.root}. Above: eigenvalues of the Gram matrix of the references, and the "
            "rms residual over the fitted pixels against the number of modes. Below: contribution "
            "of each reference to the model of the star (coefficient divided by brightness scale), "
            "averaged over zones and integrations."
        )
        drawings.append(drawing(panels, f"Modes and weights of {exposure.root}", caption))
    yield Grid(drawings)


def quality(run: RunFacts, /) -> Iterator[Block]:
    """Bad pixels of each product."""
    yield Table.of(
        "Pixels",
        run.pixels,
        {
            "product": lambda of: of.product,
            "frames": lambda of: str(of.n_frames),
            "unusable [%]": lambda of: number(100.0 * of.unusable_fraction, ".3f"),
            "outliers": lambda of: str(of.n_outliers),
            "without value": lambda of: str(of.n_without_value),
            "saturated": lambda of: str(of.n_saturated),
        },
    )
    yield Paragraph(
        "Bad pixels of the science frames are excluded from the fit; those of a reference are "
        "predicted from the other references."
    )


def reproduce(run: RunFacts, /) -> Iterator[Block]:
    """The command and the parameters that give the same products again."""
    yield Code(shlex.join(run.command)) if run.command else Paragraph("Run from Python.")
    yield Details("Parameters", [Code(run.inputs.recipe)])
    yield Paragraph(
        f"lyot {__version__}. The members and their checksums are listed under Provenance; every "
        "product records them too."
    )


SECTIONS: dict[str, Callable[[RunFacts], Iterator[Block]]] = {
    "Combined image": combined,
    "Candidates": candidates,
    "Before and after": before_after,
    "Contrast": contrast,
    "Companions": companions,
    "Backgrounds": background,
    "Provenance": provenance,
    "Position of the star": star,
    "Alignment": alignment,
    "Modes and references": modes,
    "Data quality": quality,
    "Reproduce": reproduce,
}
"""The report, in order, by title; a section without blocks is left out."""


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _modes(result: Product) -> str:
    return modes_label(result.n_modes_used, result.n_modes)

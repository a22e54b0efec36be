"""The section of the report on backgrounds: what was subtracted, how scaled, and what is left."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lyot.algorithms.statistics import finite_mean
from lyot.types import Array
from lyot.viz.report.blocks import Block, Number, Paragraph, Table, number
from lyot.viz.report.facts import ExposureFacts, RunFacts

NEAR_ARCSEC, FAR_ARCSEC = 2.2, 9.0
"""Separations between which the residual shows what is left of a background."""
BOUNDARY_ARCSEC = 0.6
"""Half of the width of the strips along the boundaries of a mask."""
PARTS = ("fine structure", "smooth part", "light of the boundaries")


def background(run: RunFacts, /) -> Iterator[Block]:
    """What was subtracted of each exposure, and what the residual has left of it."""
    rows = [row for exposure in run.exposures for row in _subtracted(exposure)]
    if not rows:
        return
    header = ["exposure", "background exposures", *(f"scale of the {part}" for part in PARTS)]
    header += ["constant [MJy/sr]", "mean of what was subtracted [MJy/sr]"]
    # References of several science exposures are named once.
    yield Table(
        "Subtracted backgrounds", header, list(dict.fromkeys(map(tuple, rows)))
    ).without_empty_columns()
    if any(row[1] for row in rows):
        yield Paragraph(
            "Dedicated backgrounds are scaled to each exposure, each of their parts by its own "
            "factor, fitted far from the star. A factor is near zero where a background had been "
            "subtracted before."
        )
    yield Table("What is left", *_left(run.exposures))
    yield Paragraph(
        f"Median of the residual between {NEAR_ARCSEC:g} and {FAR_ARCSEC:g} arcsec from the star, "
        "less that of the whole of this annulus."
    )


def _subtracted(exposure: ExposureFacts) -> Iterator[list[Number | str]]:
    """One row for the exposure, and one for each of its references."""
    for each in exposure.backgrounds:
        yield [
            each.name,
            str(each.n_exposures or ""),
            *([number(v, ".2f") for v in each.scale] if len(each.scale) else [""] * len(PARTS)),
            number(each.surface[0], ".3g") if len(each.surface) else "",
            number(each.mean, ".3g"),
        ]


def _left(exposures: list[ExposureFacts]) -> tuple[list[str], list[list[Number | str]]]:
    """Medians of the residual in the quadrants of the detector and along a mask's boundaries."""
    header = [
        "exposure",
        *(f"{v} {h} [MJy/sr]" for v in ("upper", "lower") for h in ("left", "right")),
    ]
    rows = []
    for exposure in exposures:
        view = exposure.best.view
        star, info = view.star, view.info
        if star is None:
            continue
        image = finite_mean(exposure.best.image, axis=0)
        y, x = np.indices(image.shape)
        dy, dx = y - star.y, x - star.x
        radius = np.hypot(dy, dx) * info.pixel_scale_arcsec
        ring = np.isfinite(image) & (radius > NEAR_ARCSEC) & (radius < FAR_ARCSEC)
        places: list[Array] = [
            np.logical_and(v, h) for v in (dy > 0, dy <= 0) for h in (dx <= 0, dx > 0)
        ]
        if info.coronagraph_value.has_boundaries:
            along = np.abs(info.along_mask_arcsec(image.shape, star))
            strips = along < BOUNDARY_ARCSEC
            places = [place & ~strips.any(axis=0) for place in places] + list(strips[::-1])
            header = header[:5] + [f"{n} boundary [MJy/sr]" for n in ("horizontal", "vertical")]
        rows.append([exposure.root, *_medians(image, ring, places)])
    return header, rows


def _medians(image: Array, ring: Array, places: list[Array]) -> list[Number | str]:
    level = np.median(image[ring]) if ring.any() else np.nan
    inside = [image[ring & place] for place in places]
    return [number(np.median(v) - level if v.size else np.nan, "+.3f") for v in inside]

"""What a report needs to know of a run, read from its folder as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lyot.analysis.contrast import ContrastCurve
from lyot.errors import LyotError, readable
from lyot.files.headers import open_fits, read_info
from lyot.files.results import SkyMaps, read_maps, read_table
from lyot.files.run import exposure_root, products_of, record_of
from lyot.files.view import View, read_view
from lyot.subtraction.result import RowNoise, SkyNoise
from lyot.types import Array


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the references were aligned to one science exposure."""

    shift_yx: Array
    """Shift applied to each reference [pixel], shape (n_int, n_ref, 2)."""
    shift_error_yx: Array
    scale: Array
    """Brightness of the science target over that of each reference, shape (n_int, n_ref)."""
    converged: Array
    targets: list[str]
    warnings: list[dict[str, Any]]
    """References that may contain sources or are saturated: index, target and reason."""
    weight: str
    note: str


@dataclass(frozen=True, eq=False)
class Product:
    """An image for one number of modes, that which was asked for and that which was used."""

    view: View
    n_modes: int
    n_modes_used: int


@dataclass(frozen=True, eq=False)
class Subtraction(Product):
    """One science exposure after subtraction with one number of modes."""

    method: str
    rms_before: float
    rms_after: float
    sky: SkyNoise
    rows: RowNoise
    eigenvalues: Array
    residual_rms: Array
    coefficients: Array


@dataclass(frozen=True, eq=False)
class ExposureFacts:
    """One science exposure: before subtraction, and after with each number of modes."""

    root: str
    before: View | None
    subtractions: list[Subtraction]
    alignment: Alignment

    @property
    def best(self) -> Subtraction:
        """The subtraction with most modes."""
        return max(self.subtractions, key=lambda s: s.n_modes)


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of a product by their quality."""

    product: str
    n_frames: int
    unusable_fraction: float
    n_outliers: int
    n_without_value: int
    n_saturated: int


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A finished run, as its folder tells it."""

    name: str
    images: list[Product]
    exposures: list[ExposureFacts]
    command: list[str]
    """The command that made the run; empty where it was made from Python."""
    detection: SkyMaps | None
    """Maps of a search for point sources, north up."""
    candidates: Any
    limits: Any
    companions: Any
    """Tables of candidates, contrast limits and fitted companions; None where there are none."""
    pictures: dict[str, bytes]
    """Figures of the companion fits, as PNG, by title."""
    noise_curves: dict[str, dict[str, Array]]
    """Table of the scatter by product: ``radius`` [pixel] and ``sigma``."""
    pixels: list[PixelCounts]
    unsearched: str = ""
    """Why there was no search for companions, where a run knows."""

    @property
    def main(self) -> Product:
        """The combined image with most modes."""
        return max(self.images, key=lambda image: image.n_modes)

    @property
    def steps(self) -> dict[str, Any]:
        """What the steps of the run recorded in the combined image."""
        steps: dict[str, Any] = self.main.view.provenance.get("steps", {})
        return steps

    @property
    def curve(self) -> ContrastCurve | None:
        """The contrast limits as a curve."""
        return None if self.limits is None else ContrastCurve.from_table(self.limits)

    @property
    def library(self) -> dict[str, Any]:
        """The reference library that was used; empty where there was none."""
        for exposure in self.exposures:
            used: dict[str, Any] = exposure.best.view.provenance["steps"].get("library") or {}
            if used:
                return used
        return {}


def read_facts(
    folder: Path, /, *, command: list[str] | None, products: list[str] | None
) -> RunFacts:
    """Read the products of a run, and the results of analyses in the same folder."""
    record = record_of(folder)
    names = record.get("products") if products is None else products
    own = None if names is None else {Path(p).name for p in names}
    views = [read_view(path) for path in products_of(folder, "*_i2d.fits", own)]
    name = _association_of(folder, views)
    exposures, maps = _exposures(folder, own), folder / f"{name}_detection.fits"
    fit_figures = [*folder.glob(f"{name}_companions.png"), *folder.glob(f"{name}_posterior*.png")]
    return RunFacts(
        name=name,
        images=[_combined(view) for view in views],
        exposures=exposures,
        command=command or record.get("command") or [],
        detection=read_maps(maps) if maps.is_file() else None,
        candidates=read_table(folder / f"{name}_candidates.ecsv"),
        limits=read_table(folder / f"{name}_limits.ecsv"),
        companions=read_table(folder / f"{name}_companions.ecsv"),
        pictures={p.stem.removeprefix(f"{name}_"): p.read_bytes() for p in sorted(fit_figures)},
        noise_curves={
            path.name: read_view(path).table for path in products_of(folder, "*_contrast.fits", own)
        },
        pixels=[
            _count_pixels(path)
            for path in (
                *(folder / f"{exposure.root}_crfints.fits" for exposure in exposures),
                *products_of(folder, "*_psfstack.fits", own),
            )
            if path.is_file()
        ],
        unsearched=str(record.get("unsearched") or ""),
    )


def _association_of(folder: Path, views: list[View]) -> str:
    """The name of the one association that all combined images belong to."""
    if not views:
        raise LyotError(f"{folder} holds no combined image (*_i2d.fits): it is not a finished run.")
    names = {v.provenance.get("steps", {}).get("association", {}).get("product", "") for v in views}
    if len(names) > 1:
        raise LyotError(
            f"{folder} holds products of {len(names)} associations; give each a folder of its own."
        )
    return names.pop() or views[0].path.name.removesuffix("_i2d.fits")


def _combined(view: View) -> Product:
    inputs = list(view.provenance.get("exposures", {}).values())
    return Product(
        view,
        n_modes=max((int(e["n_modes"]) for e in inputs), default=0),
        n_modes_used=max((int(e["n_kept"]) for e in inputs), default=0),
    )


def _exposures(folder: Path, own: set[str] | None) -> list[ExposureFacts]:
    views: dict[str, list[View]] = {}
    for path in products_of(folder, "*_psfsub.fits", own):
        views.setdefault(exposure_root(path), []).append(read_view(path))
    flagged = {root: folder / f"{root}_crfints.fits" for root in views}
    return [
        ExposureFacts(
            root,
            before=read_view(flagged[root]) if flagged[root].is_file() else None,
            subtractions=[_subtraction(view) for view in after],
            alignment=_alignment(after[-1].provenance["steps"]["align_psfs"]),
        )
        for root, after in views.items()
    ]


def _subtraction(view: View) -> Subtraction:
    klip = view.provenance["steps"]["klip"]
    return Subtraction(
        view,
        method=str(klip["recipe"].get("method", "klip")),
        n_modes=int(klip["n_modes"]),
        n_modes_used=int(klip["n_kept"]),
        rms_before=float(np.nanmean(klip["rms_before"])),
        rms_after=float(np.nanmean(klip["rms_after"])),
        sky=SkyNoise(**klip.get("sky_noise", {"ratio": np.nan, "n_blocks": 0})),
        rows=RowNoise(**klip.get("row_noise", {"rows": np.nan, "columns": np.nan})),
        eigenvalues=np.atleast_2d(klip["eigenvalues"]),
        residual_rms=np.asarray(klip.get("residual_rms", ())),
        coefficients=np.asarray(klip["coefficients"]),
    )


def _alignment(record: dict[str, Any]) -> Alignment:
    shift = np.asarray(record["shift_yx"])
    return Alignment(
        shift_yx=shift,
        shift_error_yx=np.sqrt(np.asarray(record["shift_covariance"])[..., [0, 1], [0, 1]]),
        scale=np.asarray(record["scale"]),
        converged=np.asarray(record["converged"]) != 0,
        targets=list(record.get("ref_targets", ())) or [""] * shift.shape[1],
        warnings=list(record.get("reference_warnings", ())),
        weight=str(record.get("weight", "")),
        note=str(record.get("note") or ""),
    )


def _count_pixels(path: Path) -> PixelCounts:
    instrument = read_info(path).instrument_value
    unusable, outlier, saturated = (
        np.uint32(instrument.flag_value(name)) for name in ("DO_NOT_USE", "OUTLIER", "SATURATED")
    )
    with readable(path), open_fits(path, memmap=False) as hdus:
        dq = np.asarray(hdus["DQ"].data).astype(np.uint32)
        n_without_value = int((~np.isfinite(hdus["SCI"].data)).sum())
    return PixelCounts(
        path.name,
        n_frames=len(dq),
        unusable_fraction=float(((dq & unusable) != 0).mean()),
        n_outliers=int(((dq & outlier) != 0).sum()),
        n_without_value=n_without_value,
        n_saturated=int(((dq & saturated) != 0).sum()),
    )

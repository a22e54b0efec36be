"""What a report needs to know of a run, read from its folder as plain values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import TangentPlane
from lyot.analysis.contrast import ContrastCurve
from lyot.errors import LyotError, readable
from lyot.files.headers import open_fits, read_info
from lyot.files.results import FitImages, SkyMaps, read_fit, read_grid, read_maps, read_table
from lyot.files.run import exposure_root, is_older, products_of, record_of
from lyot.files.view import View, read_view, recorded_plane
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
    image: Array
    """SCI: (n_y, n_x) where combined, (n_int, n_y, n_x) of an exposure."""
    n_modes: int
    n_modes_used: int


@dataclass(frozen=True, eq=False)
class Combined(Product):
    """The exposures with one number of modes, combined on the sky."""

    err: Array


@dataclass(frozen=True, eq=False)
class Subtraction(Product):
    """One science exposure after subtraction with one number of modes."""

    plane: TangentPlane | None
    """The sky about its star, where it was recorded."""
    method: str
    rms_before: float
    rms_after: float
    sky: SkyNoise
    rows: RowNoise
    eigenvalues: Array
    residual_rms: Array
    coefficients: Array


@dataclass(frozen=True, eq=False)
class SubtractedBackground:
    """What was subtracted of an exposure, science or reference, averaged over integrations."""

    name: str
    n_exposures: int
    """Dedicated background exposures."""
    scale: Array
    """Of each part of them; empty where there are none."""
    surface: Array
    """Coefficients of the surface, the constant first [MJy/sr]; may be empty."""
    mean: float
    """NaN where it was not recorded [MJy/sr]."""


@dataclass(frozen=True, eq=False)
class ExposureFacts:
    """One science exposure: before subtraction, and after with each number of modes."""

    root: str
    before: Array | None
    """Before subtraction, (n_int, n_y, n_x)."""
    subtractions: list[Subtraction]
    alignment: Alignment
    backgrounds: list[SubtractedBackground]

    @property
    def best(self) -> Subtraction:
        """The subtraction with most modes."""
        return max(self.subtractions, key=lambda s: s.n_modes)


class Completeness(NamedTuple):
    """Fraction of injected sources that are found."""

    separation_arcsec: Array
    contrast: Array
    fraction: Array
    """(n_contrast, n_sep)"""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a run rests on, as its combined image records it."""

    table: str
    """The association."""
    members: list[tuple[str, str, str]]
    """Name, type and checksum of each member."""
    library: str
    frames: list[tuple[str, float]]
    """Frames of the library that were used, with their correlation."""
    star_is_aligned: bool
    """Whether the stars, not the WCS, tell how exposures lie on one another."""
    recipe: str
    """All parameters, as JSON."""


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
    images: list[Combined]
    exposures: list[ExposureFacts]
    command: list[str]
    """The command that made the run; empty where it was made from Python."""
    detection: SkyMaps | None
    """Maps of a search for point sources, north up."""
    candidates: Any
    limits: Any
    companions: Any
    """Tables of candidates, contrast limits and fitted companions; None where there are none."""
    curve: ContrastCurve | None
    """The contrast limits as a curve."""
    inputs: Inputs
    completeness: Completeness | None
    """Fraction of injected sources that are found; None where it was not measured."""
    fit: FitImages | None
    """Data, models and posteriors of fitted companions; None where there are none."""
    noise_curves: dict[str, dict[str, Array]]
    """Table of the scatter by product: ``radius`` [pixel] and ``sigma``."""
    pixels: list[PixelCounts]
    unsearched: str = ""
    """Why there was no search for companions, where a run knows."""

    @property
    def main(self) -> Combined:
        """The combined image with most modes."""
        return max(self.images, key=lambda image: image.n_modes)


def read_facts(
    folder: Path, /, *, command: list[str] | None, products: list[str] | None
) -> RunFacts:
    """Read the products of a run, and the results of analyses in the same folder."""
    record = record_of(folder)
    with _recorded(folder):
        names = record.get("products") if products is None else products
        own = None if names is None else {Path(p).name for p in names}
        command = [str(word) for word in command or record.get("command") or ()]
    views = [read_view(path) for path in products_of(folder, "*_i2d.fits", own)]
    name = _association_of(folder, views)
    images = [_combined(view) for view in views]
    exposures = _exposures(folder, own)
    made = [p for p in sorted(folder.glob(f"{name}_*")) if not is_older(p, record)]
    results = {p.name.removeprefix(f"{name}_"): p for p in made}
    limits, curve = _limits(results.get("limits.ecsv"))
    return RunFacts(
        name=name,
        images=images,
        exposures=exposures,
        command=command,
        detection=_detection(results["detection.fits"]) if "detection.fits" in results else None,
        candidates=_candidates(results.get("candidates.ecsv")),
        limits=limits,
        companions=_companions(results.get("companions.ecsv")),
        curve=curve,
        inputs=_inputs(max(images, key=lambda image: image.n_modes).view, exposures),
        completeness=_completeness(results.get("completeness.fits")),
        fit=_fit(results.get("companions.fits")),
        noise_curves={
            path.name: _noise_curve(path) for path in products_of(folder, "*_contrast.fits", own)
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


def _recorded(path: Path) -> AbstractContextManager[None]:
    """The boundary about what a file records: of any age, and changed since by anyone."""
    return readable(path, "run the pipeline again")


def _analysed(path: Path) -> AbstractContextManager[None]:
    """The boundary about a table or map of an analysis."""
    return readable(path, "run the analysis again")


def _numbers(values: Any, *shape: int | None) -> NDArray[np.float64]:
    """Return recorded numbers as an array of a shape, None for any length."""
    array = np.asarray(values, dtype=np.float64)
    if len(array.shape) != len(shape) or any(
        n not in (None, found) for n, found in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"an array of the shape {array.shape} stands where none belongs")
    return array


def _association_of(folder: Path, views: list[View]) -> str:
    """The name of the one association that all combined images belong to."""
    if not views:
        raise LyotError(f"{folder} holds no combined image (*_i2d.fits): it is not a finished run.")
    made = [view.provenance.get("steps", {}).get("association", {}) for view in views]
    names = {str(each.get("product", "")) for each in made}
    if len(names) > 1:
        raise LyotError(
            f"{folder} holds products of {len(names)} associations; give each a folder of its own."
        )
    return names.pop() or views[0].path.name.removesuffix("_i2d.fits")


def _combined(view: View) -> Combined:
    with _recorded(view.path):
        image = _image(view, 2)
        return Combined(
            view,
            image=image,
            err=_numbers(view.err, *image.shape),
            n_modes=modes_of(view),
            n_modes_used=modes_of(view, "n_kept"),
        )


def modes_of(view: View, name: str = "n_modes") -> int:
    """Return the most modes that a combined image records of its exposures."""
    return max((int(e[name]) for e in view.provenance.get("exposures", {}).values()), default=0)


def _image(view: View, n_axes: int) -> NDArray[np.float64]:
    """Return SCI of a product of which star and scale can be drawn."""
    if not view.info.pixel_scale_arcsec > 0.0:
        raise ValueError("the scale of a pixel is not known")
    return _numbers(view.data, *(n_axes * (None,)))


def _exposures(folder: Path, own: set[str] | None) -> list[ExposureFacts]:
    found: dict[str, list[Subtraction]] = {}
    rest: dict[str, tuple[Alignment, list[SubtractedBackground]]] = {}
    for path in products_of(folder, "*_psfsub.fits", own):
        view, root = read_view(path), exposure_root(path)
        with _recorded(path):
            found.setdefault(root, []).append(_subtraction(view))
            n_int = len(found[root][0].image)
            steps = view.provenance["steps"]
            rest[root] = _alignment(steps["align_psfs"], n_int), subtracted_backgrounds(root, steps)
    before = {root: _before(folder / f"{root}_crfints.fits", found[root]) for root in found}
    return [ExposureFacts(root, before[root], found[root], *rest[root]) for root in found]


def subtracted_backgrounds(root: str, steps: dict[str, Any], /) -> list[SubtractedBackground]:
    """Read what was subtracted of an exposure and of its references from the record of steps."""
    records = {root: steps.get("background")} | dict(steps.get("background_of_references", {}))
    found = []
    for name, record in records.items():
        if record:
            scale, surface = (
                _numbers(np.atleast_2d(record[k]), None, None).mean(axis=0)
                for k in ("scale", "surface")
            )
            mean = record.get("mean")
            found.append(
                SubtractedBackground(
                    str(name).removesuffix(".fits").removesuffix("_calints"),
                    len(record["names"]),
                    scale,
                    surface,
                    float(np.nan if mean is None else np.mean(mean)),
                )
            )
    return found


def _before(path: Path, after: list[Subtraction]) -> Array | None:
    """Return the flagged exposure, which must be as large as what became of it."""
    if not path.is_file():
        return None
    view = read_view(path)
    with _recorded(path):
        return _numbers(view.data, *after[0].image.shape)


def _subtraction(view: View) -> Subtraction:
    klip = view.provenance["steps"]["klip"]
    plane, sky = klip.get("plane"), klip.get("sky_noise", {"ratio": np.nan, "n_blocks": 0})
    rows = klip.get("row_noise", {"rows": np.nan, "columns": np.nan})
    return Subtraction(
        view,
        image=_image(view, 3),
        plane=None if plane is None else recorded_plane(plane),
        method=str(klip["recipe"].get("method", "klip")),
        n_modes=int(klip["n_modes"]),
        n_modes_used=int(klip["n_kept"]),
        rms_before=float(np.nanmean(_numbers(klip["rms_before"], None))),
        rms_after=float(np.nanmean(_numbers(klip["rms_after"], None))),
        sky=SkyNoise(float(sky["ratio"]), int(sky["n_blocks"]), bool(sky.get("is_applied"))),
        rows=RowNoise(float(rows["rows"]), float(rows["columns"])),
        eigenvalues=_numbers(np.atleast_2d(klip["eigenvalues"]), None, None),
        residual_rms=np.asarray(klip.get("residual_rms", ()), dtype=np.float64),
        coefficients=_numbers(klip["coefficients"], None, None, None),
    )


def _alignment(record: dict[str, Any], n_int: int) -> Alignment:
    shift = _numbers(record["shift_yx"], None, None, 2)
    n_sets, n_ref, _ = shift.shape
    if n_sets not in (1, n_int):  # one, where all were aligned to the first integration
        raise ValueError(f"shifts to {n_sets} integrations are recorded of {n_int}")
    covariance = _numbers(record["shift_covariance"], n_sets, n_ref, 2, 2)
    targets = [str(target) for target in record.get("ref_targets", ())]
    return Alignment(
        shift_yx=shift,
        shift_error_yx=np.sqrt(covariance[..., [0, 1], [0, 1]]),
        scale=_numbers(record["scale"], n_sets, n_ref),
        converged=_numbers(record["converged"], n_sets, n_ref) != 0,
        targets=targets if len(targets) == n_ref else [""] * n_ref,
        warnings=[
            {"reference": int(w["reference"])} | {key: str(w[key]) for key in ("target", "reason")}
            for w in record.get("reference_warnings", ())
        ],
        weight=str(record.get("weight", "")),
        note=str(record.get("note") or ""),
    )


def _inputs(view: View, exposures: list[ExposureFacts]) -> Inputs:
    """Read what the combined image records of association and library."""
    with _recorded(view.path):
        steps = view.provenance.get("steps", {})
        made = steps.get("association", {})
        kinds = {
            name: kind for kind in ("science", "psf", "background") for name in made.get(kind, ())
        }
        libraries = (e.best.view.provenance["steps"].get("library") for e in exposures)
        used: dict[str, Any] = next(filter(None, libraries), {})
        correlation = _numbers(used.get("correlation", ()), len(used.get("frames", ())))
        return Inputs(
            table=str(made.get("table", "")),
            members=[
                (str(name), kinds.get(name, ""), str(checksum))
                for name, checksum in made.get("sha256", {}).items()
            ],
            library=str(used.get("library", "")),
            frames=[
                (str(name), value)
                for name, value in zip(used.get("frames", ()), correlation.tolist(), strict=True)
            ],
            star_is_aligned=steps.get("resample", {}).get("recipe", {}).get("align_on") == "star",
            recipe=json.dumps(view.provenance.get("recipe", {}), indent=1, default=str),
        )


def _detection(path: Path) -> SkyMaps:
    found = read_maps(path)
    with _analysed(path):
        shape = _numbers(found.maps["SNR"], None, None).shape
        _numbers(found.maps["STIM"], *shape)
        _numbers(found.keywords.get("FPF", np.nan))
    return found


def _check(path: Path, table: Any, numbers: Iterable[str], texts: Iterable[str] = ()) -> None:
    """Refuse a table of which a column is gone or holds something else."""
    with _analysed(path):
        for names, kinds in ((numbers, "fiub"), (texts, "SU")):
            for name in names:
                if table[name].dtype.kind not in kinds:
                    raise ValueError(f"the column {name} does not hold what it should")


def _candidates(path: Path | None) -> Any:
    if path is None:
        return None
    table = read_table(path)
    numbers = ("separation", "position_angle", "snr", "contrast", "expected_false_alarms")
    texts = ("key_reference", "kind", "notes")
    _check(path, table, (*numbers, "jackknife_snr", "known"), texts)
    with _analysed(path):
        int(table.meta["lyot"]["n_places"])
    return table


def _companions(path: Path | None) -> Any:
    if path is None:
        return None
    table = read_table(path)
    _check(path, table, [n for n in table.colnames if n.endswith(("_err", "fraction"))])
    with _analysed(path):
        dict(table.meta.get("lyot", {}))
    return table


def _completeness(path: Path | None) -> Completeness | None:
    if path is None:
        return None
    fraction, axes = read_grid(path)
    with _analysed(path):
        separation, contrast = (_numbers(axes[name], None) for name in ("SEPARATION", "CONTRAST"))
        if fraction.shape != (contrast.size, separation.size) or not (contrast > 0).all():
            raise ValueError("the fractions do not fit their axes")
        return Completeness(separation, contrast, fraction)


def _fit(path: Path | None) -> FitImages | None:
    if path is None:
        return None
    fit = read_fit(path)
    with _analysed(path):
        samples = _numbers(fit.samples, None, 3, None)
        known = samples.size > 0 and bool(fit.boxes) and bool(np.isfinite(samples).all())
        for _, data, model in fit.boxes:
            off = data - _numbers(model, *_numbers(data, None, None).shape)
            known = known and bool(np.isfinite(off).any())
        if not known:
            raise ValueError("it holds no data or no samples")
    return fit


def _limits(path: Path | None) -> tuple[Any, ContrastCurve | None]:
    if path is None:
        return None, None
    table = read_table(path)
    _check(path, table, table.colnames)
    with _analysed(path):
        curve = ContrastCurve.from_table(table)
        found, masses = curve.settings.get("found", []), curve.settings.get("masses", {})
        if not all(isinstance(name, str) for name in found) or (
            masses and not np.isfinite([masses["age_myr"], masses["distance_pc"]]).all()
        ):
            raise ValueError("sources or masses are damaged")
        return table, curve


def _noise_curve(path: Path) -> dict[str, Array]:
    table = read_view(path).table
    with _recorded(path):
        radius = _numbers(table["radius"], None)
        return {"radius": radius, "sigma": _numbers(table["sigma"], len(radius))}


def _count_pixels(path: Path) -> PixelCounts:
    instrument = read_info(path).instrument_value
    bits = [instrument.flag_value(name) for name in ("DO_NOT_USE", "OUTLIER", "SATURATED")]
    n_pixels, n_without_value, n_flagged = 0, 0, np.zeros(len(bits), np.int64)
    with readable(path), open_fits(path, memmap=False) as hdus:
        flags, image, n_frames = hdus["DQ"].section, hdus["SCI"].section, hdus["DQ"].shape[0]
        for i in range(n_frames):  # one at a time stays in the processor's memory
            dq = flags[i].astype(np.uint32)
            n_flagged += [np.count_nonzero(dq & np.uint32(bit)) for bit in bits]
            n_without_value += dq.size - np.count_nonzero(np.isfinite(image[i]))
            n_pixels += dq.size
        unusable, outliers, saturated = n_flagged.tolist()
        return PixelCounts(
            path.name,
            n_frames=n_frames,
            unusable_fraction=unusable / n_pixels,
            n_outliers=outliers,
            n_without_value=n_without_value,
            n_saturated=saturated,
        )

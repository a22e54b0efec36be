"""The products of a finished run, read for the analysis; images that the user supplies."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot.algorithms.geometry import TangentPlane
from lyot.compute import memory
from lyot.errors import LyotError, readable
from lyot.files.aligned import AlignedArrays, ReferenceInfo
from lyot.files.exposure import Cube, read_cube, with_recorded_variance
from lyot.files.headers import open_fits
from lyot.files.star import StarPosition
from lyot.files.view import View, read_view, recorded_plane

_REMEDY = "run the pipeline again"


@dataclass(frozen=True, eq=False)
class ExposureProducts:
    """One science exposure of a finished run."""

    name: str  # of its psfsub product
    target: Cube  # the flagged exposure (crfints)
    aligned: AlignedArrays  # mapped from the psfalign product
    star: StarPosition
    plane: TangentPlane  # the sky about the star
    recipe: dict[str, Any]  # of klip, as plain values
    views: list[View]  # its psfsub products, one for each number of modes
    fit_weight: NDArray[np.float64] | None = None
    zone_map: NDArray[np.float64] | None = None
    disc_model: NDArray[np.float64] | None = None
    disc_scale: float = 0.0  # factor of the disc model that was fitted


@contextmanager
def open_products(folder: str | Path, /) -> Iterator[tuple[str, list[ExposureProducts]]]:
    """Open a finished run: the name of its product, and its exposures, mapped until the end."""
    folder = Path(folder)
    if not folder.is_dir():
        raise LyotError(f"{folder} is no folder; give the folder of a finished run.")
    views: dict[str, list[View]] = {}
    for path in products_of(folder, "*_psfsub.fits", record_of(folder).get("products")):
        views.setdefault(exposure_root(path), []).append(read_view(path))
    if not views:
        raise LyotError(
            f"{folder} holds no psfsub product; run the pipeline first.", function="Coron3Pipeline"
        )
    products = {_association(view)["product"] for each in views.values() for view in each}
    if len(products) > 1:
        raise LyotError(
            f"{folder} holds products of {len(products)} associations ({', '.join(products)}); "
            "give each a folder of its own."
        )
    with ExitStack() as stack:
        yield products.pop(), [_exposure(folder, root, each, stack) for root, each in views.items()]


def record_of(folder: Path, /) -> dict[str, Any]:
    """Return the record of the last run in a folder; empty where there is none, or several."""
    found = sorted(folder.glob("*_run.json"))
    try:
        record = json.loads(found[0].read_text(encoding="utf-8")) if len(found) == 1 else {}
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def older_results(folder: Path, product: str, products: Collection[str], /) -> dict[str, int]:
    """When what earlier runs and analyses of them left beside the products of a run was made."""
    others = (f"{product}_run.json", f"{product}_run.log", f"{product}_report.html")
    left = [p for p in folder.glob(f"{product}_*") if p.name not in (*products, *others)]
    return {p.name: p.stat().st_mtime_ns for p in left if p.is_file()}


def is_older(path: Path, record: dict[str, Any], /) -> bool:
    """Whether a result is from before the last run: its record lists it, and it is unchanged."""
    known = record.get("older")
    made = known.get(path.name) if isinstance(known, dict) else None
    return isinstance(made, int) and path.stat().st_mtime_ns <= made


def _association(view: View) -> dict[str, Any]:
    found: dict[str, Any] = view.provenance.get("steps", {}).get("association", {})
    if not found:
        raise LyotError(
            f"{view.path} was not made by the pipeline; run it.", function="Coron3Pipeline"
        )
    return found


def products_of(folder: Path, pattern: str, names: Collection[str] | None, /) -> list[Path]:
    """Find products by a pattern such as ``*_i2d.fits``, sorted, those of `names` where given."""
    return [p for p in sorted(folder.glob(pattern)) if names is None or p.name in names]


def exposure_root(path: Path, /) -> str:
    """Return the name that the products of one exposure share: without modes and suffix."""
    root = path.name.removesuffix("_psfsub.fits")
    head, _, tail = root.rpartition("_")
    return head if head and tail[:1] == "k" and tail[1:].isdigit() else root


def _exposure(folder: Path, root: str, views: list[View], stack: ExitStack) -> ExposureProducts:
    view = views[0]
    flagged, aligned = folder / f"{root}_crfints.fits", folder / f"{root}_psfalign.fits"
    for path in (flagged, aligned):
        if not path.exists():
            raise LyotError(
                f"{path} is missing, and the analysis needs it; run the pipeline with "
                "save_crfints and save_psfalign true.",
                function="Coron3Pipeline",
            )
    klip = view.provenance.get("steps", {}).get("klip", {})
    if view.star is None or "plane" not in klip:
        raise LyotError(
            f"{view.path} does not record where the sky lies about its star; run the pipeline "
            "again.",
            function="Coron3Pipeline",
        )
    with readable(aligned, _REMEDY):
        hdus = stack.enter_context(open_fits(aligned, tiled_dq=True))
        sci, err = hdus["SCI"].data, hdus["ERR"].data
        memory.is_read(sci)
        # Flags are not used; as scaled integers they could not be mapped.
        flags = np.broadcast_to(np.uint32(0), sci.shape)
    with readable(view.path, _REMEDY):
        return ExposureProducts(
            view.path.name,
            with_recorded_variance(read_cube(flagged), view.provenance["steps"]),
            AlignedArrays(
                *(sci, err, flags),
                star=view.star,
                ref_info=ReferenceInfo.recorded(view.provenance["steps"]),
            ),
            view.star,
            recorded_plane(klip["plane"]),
            dict(klip["recipe"]),
            views,
            disc_scale=float(klip.get("disc_scale", 0.0)),
            **{name: read_image(path)[0] for name, path in klip.get("maps", {}).items()},
        )


def read_image(path: str | Path, /) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Read the first image of a FITS file, as native float64, and the header of its extension."""
    with readable(path), open_fits(path, memmap=False) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.data is not None:
                return np.asarray(hdu.data, dtype=np.float64), dict(hdu.header)
    raise LyotError(f"{path} holds no image.")

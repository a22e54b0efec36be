"""Exposures as the archive delivers them, sorted by their headers into associations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lyot.errors import LyotError
from lyot.files.association import FOLDER_KEY
from lyot.files.headers import BACKGROUND, MODE, PSF, SCIENCE, ExposureInfo, means_of, read_info

_EXPOSURE = re.compile(r"_(cal|calints)\.fits(\.gz)?$")
_PRODUCT = re.compile(
    r"_(psfmask|uncal|rate|rateints|crf|crfints|psfstack|psfalign|psfsub|i2d|snr|contrast|c1d)"
    r"\.fits(\.gz)?$"
)
_NO_LETTERS = re.compile(r"background|backgnd|bkgd?|[^a-z0-9]", re.IGNORECASE)

Infos = Mapping[Path, ExposureInfo]


class Sorting(NamedTuple):
    """Associations of exposures, and the exposures that are in none, with the reason."""

    associations: list[dict[str, Any]]
    unused: list[tuple[Path, str]]


def build_associations(paths: Sequence[str | Path], /) -> list[dict[str, Any]]:
    """Make associations from the headers of exposures.

    Parameters
    ----------
    paths : sequence of path
        Calibrated exposures (``_calints.fits`` or ``_cal.fits``), or folders of them.

    Returns
    -------
    list of dict
        One association for each science target and mode: instrument, detector, filter, pupil,
        coronagraph, subarray, aperture and shape of the frames. Its members are science exposures,
        references (IS_PSF), dedicated backgrounds (BKGDTARG, dither pattern or name of the target)
        and target acquisitions (EXP_TYPE).

    Raises
    ------
    LyotError
        If there is no science exposure, or if two files share a name.

    Examples
    --------
    >>> [association] = build_associations(["science_calints.fits", "reference_calints.fits"])
    >>> for member in association["products"][0]["members"]:
    ...     print(member["exptype"], member["expname"])
    science science_calints.fits
    psf reference_calints.fits
    """
    return sort_exposures(paths).associations


def sort_exposures(paths: Sequence[str | Path], /) -> Sorting:
    """Sort exposures, and those of folders, into associations; only headers are read."""
    files = find_exposures(paths)
    unused = [(p, "it is no calibrated exposure") for p in files if _PRODUCT.search(p.name)]
    infos = {path: read_info(path) for path in files if not _PRODUCT.search(path.name)}
    if not infos:
        raise LyotError("No exposures were given; name at least one _calints.fits file.")
    acquisitions = {p: i for p, i in infos.items() if i.role not in (SCIENCE, PSF, BACKGROUND)}
    groups: dict[Any, dict[Path, ExposureInfo]] = {}
    for path in sorted(infos.keys() - acquisitions.keys(), key=lambda p: (p.name, p)):
        info = infos[path]
        groups.setdefault((info.mode, info.shape[-2:]), {})[path] = info
    found = [group for members in groups.values() for group in _by_target(members)]
    if not found:
        raise LyotError(
            "No exposure is a science target: all are references (IS_PSF), backgrounds or target "
            "acquisitions; add the science exposures."
        )
    for group in found:
        observed = {(i.program, i.target) for i in group.values() if i.role in (SCIENCE, PSF)}
        group |= {p: i for p, i in acquisitions.items() if (i.program, i.target) in observed}
    unused += [
        (path, f"no science exposure has its mode, {info.mode_text}")
        for path, info in infos.items()
        if not any(path in group for group in found)
    ]
    names = _product_names(found)
    return Sorting([_content(g, n) for g, n in zip(found, names, strict=True)], unused)


def find_exposures(paths: Iterable[str | Path], /) -> list[Path]:
    """List the exposures that are named, and those in folders at any depth, each once."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        for each in _in_folder(path) if path.is_dir() else [path]:
            found.setdefault(Path(os.path.realpath(each)), Path(os.path.abspath(each)))
    names: dict[str, Path] = {}
    for path in found.values():
        name = path.name.removesuffix(".gz")
        if (first := names.setdefault(name, path)) != path:
            raise LyotError(
                f"{first} and {path} share a name: one exposure is there twice; remove one."
            )
    means = means_of(names)
    return [path for name, path in names.items() if name not in means]


def _in_folder(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if _EXPOSURE.search(name))


def _by_target(members: Infos) -> Iterator[dict[Path, ExposureInfo]]:
    """Yield the members of one mode for each science target: its own, references, backgrounds."""
    psf = {p: i for p, i in members.items() if i.role == PSF}
    backgrounds = {p: i for p, i in members.items() if i.role == BACKGROUND}
    for target in sorted({i.target for i in members.values() if i.role == SCIENCE}):
        group = {p: i for p, i in members.items() if i.role == SCIENCE and i.target == target} | psf
        needed = {p for info in group.values() for p in own_backgrounds(info, backgrounds)}
        yield group | {p: i for p, i in backgrounds.items() if p in needed}


def own_backgrounds(info: ExposureInfo, backgrounds: Infos, /) -> tuple[Path, ...]:
    """Return the dedicated backgrounds of an exposure.

    Those named after its target; else, of its program or of all, those of the target that was
    observed nearest in time.
    """
    of_program = {p: i for p, i in backgrounds.items() if i.program == info.program}
    candidates = of_program or dict(backgrounds)
    if not candidates:
        return ()
    named = [p for p, i in candidates.items() if _star_of(i.target) == _star_of(info.target)]
    if named:
        return tuple(named)
    away = {p: abs(np.nan_to_num(i.mjd - info.mjd)) for p, i in candidates.items()}
    nearest = candidates[min(away, key=away.__getitem__)].target
    return tuple(p for p, i in candidates.items() if i.target == nearest)


def _star_of(target: str) -> str:
    """Name of a star without what says that its background was observed."""
    return _NO_LETTERS.sub("", target).lower()


def _product_names(groups: Sequence[Infos]) -> list[str]:
    """Name products by target and mode; by whatever else differs where two names were alike."""
    firsts = [next(iter(group.values())) for group in groups]
    labels: list[tuple[str, ...]] = [
        (i.target, i.instrument, i.filter, i.coronagraph) for i in firsts
    ]
    for field in (*MODE, "shape"):
        values = [str(getattr(i, field)) for i in firsts]
        for label in {x for x in labels if labels.count(x) > 1}:
            alike = [k for k, x in enumerate(labels) if x == label]
            if len({values[k] for k in alike}) > 1:
                for k in alike:
                    labels[k] = (*label, values[k])
    names = []
    for info, label in zip(firsts, labels, strict=True):
        words = ("".join(c if c.isalnum() else "-" for c in part.lower()) for part in label if part)
        text = "_".join(word.strip("-") for word in words)
        names.append(f"jw{info.program}_{text}" if info.program else text)
    return names


def _content(group: Infos, product: str) -> dict[str, Any]:
    """Write the association of some members, the science exposures first."""
    first_path, first = next(iter(group.items()))
    home = first_path.parent
    order = (SCIENCE, PSF, BACKGROUND)
    members = [
        {"expname": path.name, "exptype": info.role}
        | ({} if path.parent == home else {FOLDER_KEY: str(path.parent)})
        for path, info in sorted(
            group.items(), key=lambda m: order.index(m[1].role) if m[1].role in order else 3
        )
    ]
    return {
        "asn_type": "coron3",
        "asn_rule": "lyot_asn",
        "asn_id": "a3001",
        "program": first.program,
        "target": first.target,
        "asn_pool": "none",
        FOLDER_KEY: str(home),
        "products": [{"name": product, "members": members}],
    }

"""Associations: which exposures are the science and which the references."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from lyot.errors import LyotError, readable
from lyot.files.headers import ExposureInfo, read_info

SCIENCE, PSF = "science", "psf"
FOLDER_KEY = "exposure_folder"
MAX_SHOWN = 80
"""Characters of a name that a message repeats."""


@dataclass(frozen=True)
class Association:
    """One product and the exposures that make it."""

    product: str  # its name, without suffix
    science: tuple[Path, ...]
    psf: tuple[Path, ...]
    unused: tuple[tuple[str, str], ...] = ()  # name and type of members that are not used
    asn_id: str = ""
    pool: str = ""
    table: str = ""  # name of the association file


def read_association(
    source: str | Path | dict[str, Any], /, *, folder: str | Path | None = None
) -> Association:
    """Read an association and check that its members exist.

    Parameters
    ----------
    source : path or dict
        A JSON file, or its content.
    folder : path, optional
        Folder of the members; by default the one that the file names, else that of the file.

    Returns
    -------
    Association
        Members in order; both old and new spellings of exposure types are read.

    Raises
    ------
    LyotError
        If the file is missing or not JSON, has no product or no science member, names a member
        twice or outside its folder, or gives the product a name that no file can have, or a member
        does not exist.

    Examples
    --------
    >>> association = read_association("asn.json")
    >>> len(association.science), len(association.psf)
    (1, 3)
    """
    table = "" if isinstance(source, dict) else Path(source).name
    content = source if isinstance(source, dict) else _load(Path(source))
    where = table or "the association"
    products = content.get("products")
    if not isinstance(products, list) or not products:
        raise LyotError(f"{where} has no products; an association lists them under 'products'.")
    if len(products) > 1:
        raise LyotError(f"{where} has {len(products)} products; split it, one file per product.")
    product = products[0]
    if not isinstance(product, dict) or not isinstance(product.get("members"), list):
        raise LyotError(f"The product of {where} has no members; list them under 'members'.")
    name = str(product.get("name") or "")
    if not _is_plain_name(name) or not name.isascii() or not name.isprintable():
        raise LyotError(
            f"The product name {_cut(name)} in {where} is not a plain file name; take letters, "
            "digits, '-', '_' and '.'."
        )
    asn_id = str(content.get("asn_id") or "")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", asn_id):
        raise LyotError(
            f"The asn_id {_cut(asn_id)} in {where} becomes a part of file names; take letters, "
            "digits, '-' and '_'."
        )
    if folder is None:
        folder = content.get(FOLDER_KEY) or ("." if not table else Path(str(source)).parent)
    groups = _group_members(product["members"], Path(folder), where)
    if not groups[SCIENCE]:
        raise LyotError(
            f"{where} has no member of exptype 'science'; there is nothing to subtract from."
        )
    for path in groups[SCIENCE] + groups[PSF]:
        if not path.is_file():
            raise LyotError(
                f"Member {path.name} of {where} is not in {path.parent}; put it there or name "
                "its folder with input_dir.",
                parameter="input_dir",
            )
    return Association(
        product=name,
        science=tuple(groups[SCIENCE]),
        psf=tuple(groups[PSF]),
        unused=tuple(groups["other"]),
        asn_id=asn_id,
        pool=str(content.get("asn_pool") or ""),
        table=table,
    )


def _load(path: Path) -> dict[str, Any]:
    with readable(f"Association {path}", "check the path"):
        stored = path.read_bytes()
    try:
        content = json.loads(stored.decode())
    except RecursionError:
        raise LyotError(
            f"Association {path} is nested too deeply: a list in a list without end; write it anew."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as err:
        raise LyotError(f"Association {path} is not JSON ({err}); write it anew.") from None
    if not isinstance(content, dict):
        raise LyotError(f"Association {path} is not a JSON object; it must hold 'products'.")
    return content


def _cut(name: str) -> str:
    """Quote a name in a sentence; very long ones are cut."""
    return ascii(name if len(name) <= MAX_SHOWN else name[:MAX_SHOWN] + "...")


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def _group_members(members: list[Any], folder: Path, where: str) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {SCIENCE: [], PSF: [], "other": []}
    seen: set[str] = set()
    for member in members:
        if not isinstance(member, dict) or not member.get("expname"):
            raise LyotError(f"A member of {where} has no 'expname'; name its file.")
        name, kind = str(member["expname"]), str(member.get("exptype", "")).strip().lower()
        if not _is_plain_name(name):
            raise LyotError(
                f"Member {_cut(name)} of {where} leads outside the association's folder; give a "
                "plain file name, and its folder with input_dir.",
                parameter="input_dir",
            )
        if name in seen:
            raise LyotError(f"Member {name} stands twice in {where}; remove one.")
        seen.add(name)
        used = kind in (SCIENCE, PSF)
        groups[kind if used else "other"].append(folder / name if used else (name, kind))
    return groups


def build_associations(paths: Sequence[str | Path], /) -> list[dict[str, Any]]:
    """Make associations from the headers of exposures.

    Parameters
    ----------
    paths : sequence of path
        Calibrated exposures (``_calints.fits``), all in one folder.

    Returns
    -------
    list of dict
        One association per combination of instrument, filter, coronagraph and subarray, with
        science members (IS_PSF false) before references (IS_PSF true).

    Raises
    ------
    LyotError
        If there is no science exposure, if one combination holds several science targets, or
        if the files lie in several folders or share a name.

    Examples
    --------
    >>> [association] = build_associations(["science_calints.fits", "reference_calints.fits"])
    >>> for member in association["products"][0]["members"]:
    ...     print(member["exptype"], member["expname"])
    science science_calints.fits
    psf reference_calints.fits
    """
    if not paths:
        raise LyotError("No exposures were given; name at least one _calints.fits file.")
    files = [Path(p) for p in paths]
    folders = sorted({p.resolve().parent for p in files})
    if len(folders) > 1:
        raise LyotError(
            f"The exposures lie in {len(folders)} folders ({folders[0]}, {folders[1]}); an "
            "association has one."
        )
    for name, count in Counter(p.name for p in files).items():
        if count > 1:
            raise LyotError(f"{name} is given twice; name each exposure once.")
    groups: dict[tuple[str, ...], list[tuple[Path, ExposureInfo]]] = {}
    for path in files:
        info = read_info(path)
        groups.setdefault(info.mode, []).append((path, info))
    found = [_build_one(sorted(group, key=itemgetter(0))) for group in groups.values()]
    if not any(found):
        raise LyotError(
            "No exposure is a science target: IS_PSF is true in all of them; add the science "
            "exposures."
        )
    return [asn for asn in found if asn]


def _build_one(group: list[tuple[Path, ExposureInfo]]) -> dict[str, Any]:
    science = [(p, i) for p, i in group if not i.is_psf]
    if not science:
        return {}
    targets = sorted({i.target for _, i in science})
    first = science[0][1]
    if len(targets) > 1:
        raise LyotError(
            f"Exposures of {' and '.join(targets)} share {first.mode_text} and are all science "
            "(IS_PSF false); make one association per target."
        )
    shapes = {i.shape[-2:] for _, i in group}
    if len(shapes) > 1:
        raise LyotError(
            f"Frames of {first.mode_text} have different shapes {sorted(shapes)}; they cannot be "
            "subtracted from one another."
        )
    members = [
        {"expname": p.name, "exptype": PSF if i.is_psf else SCIENCE}
        for p, i in science + [(p, i) for p, i in group if i.is_psf]
    ]
    parts = (first.target, first.instrument, first.filter, first.coronagraph)
    words = ("".join(c if c.isalnum() else "-" for c in part.lower()) for part in parts if part)
    label = "_".join(word.strip("-") for word in words)
    product = f"jw{first.program}_{label}" if first.program else label
    return {
        "asn_type": "coron3",
        "asn_rule": "lyot_asn",
        "asn_id": "a3001",
        "program": first.program,
        "target": first.target,
        "asn_pool": "none",
        "products": [{"name": product, "members": members}],
    }

"""Associations: which exposures are the science and which the references."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyot.errors import LyotError, readable
from lyot.files.headers import ACQUISITIONS, BACKGROUND, PSF, SCIENCE

FOLDER_KEY = "exposure_folder"
"""Folder of all members, or of one, where it is not that of the association file."""
MAX_NAME = 255
"""Characters of a file's name, as file systems take it."""
MAX_SHOWN = 80
"""Characters of a name that a message repeats."""


@dataclass(frozen=True)
class Association:
    """One product and the exposures that make it."""

    product: str  # its name, without suffix
    science: tuple[Path, ...]
    psf: tuple[Path, ...]
    background: tuple[Path, ...] = ()
    acquisitions: tuple[Path, ...] = ()  # target acquisitions, and images that confirm them
    unused: tuple[tuple[str, str], ...] = ()  # name and type of members that are not used
    asn_id: str = ""
    pool: str = ""
    table: str = ""  # name of the association file

    @property
    def members(self) -> tuple[Path, ...]:
        """All exposures that are subtracted or subtracted from."""
        return self.science + self.psf + self.background


def read_association(
    source: str | Path | dict[str, Any], /, *, folder: str | Path | None = None
) -> Association:
    """Read an association and check that its members exist.

    Parameters
    ----------
    source : path or dict
        A JSON file, or its content.
    folder : path, optional
        Folder of all members; by default the ones that the file names, else that of the file.

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
    home = content.get(FOLDER_KEY) or ("." if not table else Path(str(source)).parent)
    groups = _group_members(product["members"], folder, str(home), where)
    if not groups[SCIENCE]:
        raise LyotError(
            f"{where} has no member of exptype 'science'; there is nothing to subtract from."
        )
    for path in groups[SCIENCE] + groups[PSF] + groups[BACKGROUND]:
        if len(path.name) > MAX_NAME or not path.is_file():
            raise LyotError(
                f"Member {path.name[:MAX_NAME]} of {where} is not in {path.parent}; put it there "
                "or name its folder with input_dir.",
                parameter="input_dir",
            )
    return Association(
        product=name,
        science=tuple(groups[SCIENCE]),
        psf=tuple(groups[PSF]),
        background=tuple(groups[BACKGROUND]),
        acquisitions=tuple(groups["acquisition"]),
        unused=tuple(groups["other"]),
        asn_id=asn_id,
        pool=str(content.get("asn_pool") or ""),
        table=table,
    )


def _load(path: Path) -> dict[str, Any]:
    with readable(f"Association {path}", "check the path"):
        stored = path.read_text(encoding="utf-8")
    try:
        content = json.loads(stored)
    except RecursionError:
        raise LyotError(
            f"Association {path} is nested too deeply: it holds too many lists within lists; write "
            "it again."
        ) from None
    except json.JSONDecodeError as err:
        raise LyotError(f"Association {path} is not JSON ({err}); write it again.") from None
    if not isinstance(content, dict):
        raise LyotError(f"Association {path} is not a JSON object; it must hold 'products'.")
    return content


def _cut(name: str) -> str:
    """Quote a name in a sentence; very long ones are cut."""
    return ascii(name if len(name) <= MAX_SHOWN else name[:MAX_SHOWN] + "...")


def _is_plain_name(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def _group_members(
    members: list[Any], folder: str | Path | None, home: str, where: str
) -> dict[str, list[Any]]:
    """Sort the members by type: in `folder` where one is given, else in their own or `home`."""
    names = (SCIENCE, PSF, BACKGROUND, "acquisition", "other")
    groups: dict[str, list[Any]] = {name: [] for name in names}
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
        place = Path(folder if folder is not None else str(member.get(FOLDER_KEY) or home)) / name
        if kind in (SCIENCE, PSF, BACKGROUND):
            groups[kind].append(place)
        elif kind in ACQUISITIONS.values() and len(name) <= MAX_NAME and place.is_file():
            groups["acquisition"].append(place)
        else:
            groups["other"].append((name, kind))
    return groups

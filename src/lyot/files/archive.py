"""Exposures of a program, listed and fetched from the archive; nothing else needs a network."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lyot.errors import LyotError
from lyot.files.atomic import atomic_write, check_free_space, checksum, remove_stale, write_json
from lyot.files.headers import means_of, open_fits

log = logging.getLogger(__name__)

MODES = ("NIRCAM/CORON", "MIRI/CORON", "NIRCAM/TARGACQ", "MIRI/TARGACQ")
"""What the archive calls coronagraphy, with backgrounds, and target acquisitions."""
KINDS = ("CALINTS", "CAL")
MANIFEST = "fetched.json"
BATCH = 20
"""Observations whose files are asked for at once: long answers do not arrive in time."""
FETCHED, PRESENT, FAILED = "fetched", "present", "failed"


@dataclass(frozen=True)
class ArchiveFile:
    """A calibrated exposure in the archive."""

    name: str
    uri: str
    n_bytes: int
    target: str
    instrument: str
    public: bool


def list_program(program: int, /) -> list[ArchiveFile]:
    """List the calibrated coronagraphic exposures of a program, with acquisitions."""
    archive = _archive()
    numbers = [str(program), f"{program:05d}"]
    observations = _asked(
        archive.query_criteria,
        obs_collection="JWST",
        proposal_id=numbers,
        instrument_name=list(MODES),
    )
    if not len(observations):
        raise LyotError(
            f"The archive has no coronagraphic observation of program {program}; check the number."
        )
    found: dict[str, ArchiveFile] = {}
    for start in range(0, len(observations), BATCH):
        batch = observations[start : start + BATCH]
        of_id = {str(row["obsid"]): row for row in batch}
        for product in _asked(archive.get_product_list, batch):
            name, kind = (
                str(product[key]) for key in ("productFilename", "productSubGroupDescription")
            )
            row = of_id.get(str(product["obsID"]))
            if row is None or kind not in KINDS or not name.startswith(f"jw{program:05d}"):
                continue
            found[name] = ArchiveFile(
                name=name,
                uri=str(product["dataURI"]),
                n_bytes=int(product["size"]),
                target=str(row["target_name"]),
                instrument=str(row["instrument_name"]),
                public=str(row["dataRights"]).upper() == "PUBLIC",
            )
    return [found[name] for name in sorted(found.keys() - means_of(found))]


def fetch(
    files: Sequence[ArchiveFile],
    folder: str | Path,
    /,
    *,
    received: Callable[[ArchiveFile, str], None] | None = None,
) -> list[str]:
    """Fetch files that are not in a folder already; return what became of each.

    Size and checksum of each are noted in ``fetched.json``: a file that has changed since, or is
    not whole, is fetched again. What was interrupted goes on when it is started again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale(folder)
    manifest = _read_manifest(folder / MANIFEST)
    missing = [each for each in files if not _is_whole(folder, each, manifest)]
    n_bytes = sum(each.n_bytes for each in missing)
    check_free_space(folder, n_bytes, f"{len(missing)} files of the archive")
    states = []
    for each in files:
        state = PRESENT
        if each in missing:
            try:
                _fetch_one(each, folder)
                state = FETCHED
            except LyotError as err:
                log.warning("%s", err)
                state = FAILED
            else:
                manifest[each.name] = asdict(each) | {"sha256": checksum(folder / each.name)}
                write_json(manifest, folder / MANIFEST)
        if received is not None:
            received(each, state)
        states.append(state)
    return states


def _fetch_one(file: ArchiveFile, folder: Path) -> None:
    with atomic_write(folder / file.name) as temporary:
        status, message, _ = _asked(
            _archive().download_file, file.uri, local_path=str(temporary), cache=False
        )
        if str(status) != "COMPLETE" or not temporary.is_file():
            raise LyotError(f"{file.name} was not fetched ({message or status}); try again.")
        size = temporary.stat().st_size
        if size != file.n_bytes:
            raise LyotError(
                f"{file.name} has {size} bytes, and {file.n_bytes} in the archive; try again."
            )
        open_fits(temporary).close()  # refuses what is no FITS file, or truncated


def _is_whole(folder: Path, file: ArchiveFile, manifest: dict[str, Any]) -> bool:
    path, known = folder / file.name, manifest.get(file.name)
    if not path.is_file() or path.stat().st_size != file.n_bytes:
        return False
    return known is not None and known.get("sha256") == checksum(path)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _archive() -> Any:
    """Return the archive's interface; say how to install it where it is missing."""
    try:
        from astroquery.mast import Observations
    except ImportError:
        raise LyotError(
            "Fetching from the archive needs astroquery; install it: pip install 'lyot[fetch]'."
        ) from None
    return Observations


def _asked(question: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Ask the archive; whatever goes wrong there is one sentence."""
    try:
        return question(*arguments, **options)
    except Exception as err:
        reason = str(err).strip().partition("\n")[0][:200].rstrip(".") or type(err).__name__
        raise LyotError(
            f"The archive does not answer ({reason}); check the network, and try again."
        ) from err

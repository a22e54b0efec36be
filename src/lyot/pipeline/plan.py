"""The plan of a run: what will be done, from headers and parameters, before a pixel is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lyot.errors import LyotError
from lyot.files.association import Association
from lyot.files.exposure import check_same_mode
from lyot.files.headers import ExposureInfo
from lyot.files.sorting import own_backgrounds
from lyot.parameters import (
    FIRST_INTEGRATION,
    STRATEGIES,
    LibraryRecipe,
    Recipe,
    ReferenceParameters,
    SaveParameters,
    to_dict,
)
from lyot.references.acquisition import unusable_because
from lyot.steps.base import root_of

MIN_ROLL_DIFFERENCE_DEG = 0.5
"""Rolls that differ by less count as one roll, and are not subtracted from one another."""

CUBE_BYTES, IMAGE_BYTES = 12, 28
"""Bytes per pixel: SCI, ERR and DQ; an image has WHT, CON and three variances too."""

FIXED_BYTES, PAIR_BYTES = 4e8, 150.0
"""What a run takes at least, and for each pair of references; measured with 40 to 2,000."""
UNIT = "MJy/sr"
"""Unit of calibrated exposures."""

AUTO, RDI, ADI, ADI_RDI = STRATEGIES
IN_WORDS = {
    RDI: "PSF reference stars (rdi)",
    ADI: "the target at other rolls (adi)",
    ADI_RDI: "PSF reference stars and the target at other rolls (adi+rdi)",
}


@dataclass(frozen=True, kw_only=True)
class RunParameters:
    """Everything that decides what a run does."""

    recipe: Recipe = field(default_factory=Recipe)
    references: ReferenceParameters = field(default_factory=ReferenceParameters)
    library: LibraryRecipe = field(default_factory=LibraryRecipe)
    save: SaveParameters = field(default_factory=SaveParameters)
    combine: bool = True  # whether the combined image is made
    contrast: bool = True  # whether its SNR image and contrast curve are made
    suffix: str = "i2d"  # of the combined image
    save_results: bool = True  # whether anything is written


@dataclass(frozen=True)
class PlannedExposure:
    """One science exposure, its references, and the names of its products."""

    science: Path
    n_int: int
    references: tuple[Path, ...]  # in the order in which they are stacked
    n_references: int  # frames, with the most that come from the library
    psfstack: str  # exposures that share a stack share its name
    crfints: str
    psfalign: str
    psfsub: tuple[str, ...]  # one for each number of modes


@dataclass(frozen=True)
class PlannedImage:
    """Names of the products of the combined exposures, for one number of modes."""

    image: str
    snr: str
    contrast: str


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    association: Association
    parameters: RunParameters  # with the strategy that ``auto`` stands for
    backgrounds: Mapping[Path, tuple[Path, ...]]  # the own ones of each exposure that has some
    acquisitions: Mapping[Path, tuple[Path, ...]]  # that show the star of a science exposure
    unused: tuple[tuple[str, str], ...]  # members that are not used, and their type or the reason
    exposures: tuple[PlannedExposure, ...]  # one for each science exposure, in member order
    images: tuple[PlannedImage, ...]  # one for each number of modes; none without a combination
    products: dict[str, int]  # what will be written, and the least number of bytes that it takes
    warnings: tuple[str, ...] = ()  # what the user should know before it is done

    @property
    def n_bytes(self) -> int:
        """Disk space that the products need at least."""
        return sum(self.products.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values, for JSON."""
        parameters = self.parameters
        library = parameters.references.library
        return {
            "product": self.association.product,
            "association": self.association.table,
            "references": to_dict(parameters.references),
            "library": to_dict(parameters.library) if library else None,
            "parameters": to_dict(parameters.recipe),
            "backgrounds": {
                path.name: [str(p) for p in own] for path, own in self.backgrounds.items()
            },
            "acquisitions": {
                path.name: [str(p) for p in own] for path, own in self.acquisitions.items()
            },
            "unused": [list(each) for each in self.unused],
            "exposures": [
                asdict(e)
                | {"science": str(e.science), "references": [str(p) for p in e.references]}
                for e in self.exposures
            ],
            "products": [{"name": name, "n_bytes": n} for name, n in self.products.items()],
            "n_bytes": self.n_bytes,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def make_plan(
    association: Association,
    infos: Mapping[Path, ExposureInfo],
    parameters: RunParameters,
    /,
    *,
    n_library: int = 0,
) -> Plan:
    """Plan a run from the headers of all members and the number of frames in the library."""
    first = infos[association.science[0]]
    for path in association.members[1:]:
        check_same_mode(first, infos[path])
    if first.unit and first.unit.replace(" ", "").lower() != UNIT.lower():
        raise LyotError(
            f"The unit of {first.name} is {first.unit}; exposures must be calibrated to {UNIT} "
            "(calwebb_image2)."
        )
    strategy, warnings = _resolve(association, parameters)
    warnings += list(_doubts(association, infos))
    chosen = [_references(strategy, association, infos, path) for path in association.science]
    for path, references in zip(association.science, chosen, strict=True):
        if not references and strategy != RDI:
            raise LyotError(
                f"{_table(association)} has no member of exptype 'psf', and no science exposure at "
                f"another roll than {path.name}, from which it could be subtracted; add either."
            )
    library = bool(parameters.references.library)
    n_most = min(parameters.library.n or n_library, n_library) if library else 0
    tags = [f"_k{n:03d}" for n in parameters.recipe.subtract.n_modes]
    tags = tags if len(tags) > 1 else [""]
    stacks = _stacks(association, chosen, library=library)
    exposures: list[PlannedExposure] = []
    for path, references, stack in zip(association.science, chosen, stacks, strict=True):
        root = _root(association, path)
        for other in exposures:
            if other.crfints == f"{root}_crfints.fits":
                raise LyotError(
                    f"{other.science.name} and {path.name} of {_table(association)} would both "
                    f"make {other.crfints}; they are one exposure twice: remove one, or rename it."
                )
        exposures.append(
            PlannedExposure(
                science=path,
                n_int=_n_int(infos[path]),
                references=references,
                n_references=sum(_n_int(infos[each]) for each in references) + n_most,
                psfstack=f"{stack}_psfstack.fits",
                crfints=f"{root}_crfints.fits",
                psfalign=f"{root}_psfalign.fits",
                psfsub=tuple(f"{root}{tag}_psfsub.fits" for tag in tags),
            )
        )
    roots = [association.product + tag for tag in tags] if parameters.combine else []
    kinds = (parameters.suffix, "snr", "contrast")
    images = [PlannedImage(*(f"{root}_{kind}.fits" for kind in kinds)) for root in roots]
    return Plan(
        association,
        replace(parameters, references=replace(parameters.references, strategy=strategy)),
        _backgrounds(association, infos, parameters),
        *_acquisitions(association, infos, parameters),
        tuple(exposures),
        tuple(images),
        dict(_products(exposures, images, first, parameters)),
        tuple(warnings),
    )


def check_memory(plan: Plan, n_bytes: int, /) -> None:
    """Refuse a limit of the memory, 0 for none, in which the matrices of the references do not fit.

    They are as large as the square of the number of references, and are not cut into blocks.
    """
    n_ref = max(exposure.n_references for exposure in plan.exposures)
    needed = FIXED_BYTES + PAIR_BYTES * n_ref**2
    if 0 < n_bytes < needed:
        raise LyotError(
            f"memory is {n_bytes / 1e6:.0f} MB, and a run with {n_ref} references takes "
            f"{needed / 1e6:.0f} MB; give more, or take fewer references.",
            parameter="memory",
        )


def _backgrounds(
    association: Association, infos: Mapping[Path, ExposureInfo], parameters: RunParameters
) -> dict[Path, tuple[Path, ...]]:
    """Return the dedicated background exposures of each exposure from which one is subtracted."""
    if parameters.recipe.background.skip or not association.background:
        return {}
    found = {path: infos[path] for path in association.background}
    return {p: own_backgrounds(infos[p], found) for p in association.science + association.psf}


def _acquisitions(
    association: Association, infos: Mapping[Path, ExposureInfo], parameters: RunParameters
) -> tuple[dict[Path, tuple[Path, ...]], tuple[tuple[str, str], ...]]:
    """Return the acquisitions of each science exposure that has some, and what is not used."""
    found: dict[Path, tuple[Path, ...]] = {}
    reasons: dict[Path, str] = {}
    for path in association.science:
        stated = parameters.recipe.star_xy is not None or infos[path].star_xy is not None
        for each in association.acquisitions:
            reason = unusable_because(infos[path], infos[each])
            if stated and not reason:
                reason = "the position of the star is given"
            if not reason:
                found[path] = (*found.get(path, ()), each)
            reasons[each] = reason and reasons.get(each, reason)
    unused = [(path.name, f"{infos[path].role}: {why}") for path, why in reasons.items() if why]
    return found, (*association.unused, *unused)


def _stacks(
    association: Association, chosen: list[tuple[Path, ...]], *, library: bool
) -> list[str]:
    """Name the stack of each exposure; those that follow one another with one choice share it."""
    if len(set(chosen)) == 1 and not library:
        return [association.product] * len(chosen)
    names: list[str] = []
    for k, path in enumerate(association.science):
        again = k > 0 and chosen[k] == chosen[k - 1] and not library
        names.append(names[-1] if again else _root(association, path))
    return names


def _root(association: Association, science: Path) -> str:
    """Return the name of an exposure's products, without their suffix."""
    return root_of(science.name) + (f"_{association.asn_id}" if association.asn_id else "")


def _table(association: Association) -> str:
    return association.table or "The association"


def _resolve(association: Association, parameters: RunParameters) -> tuple[str, list[str]]:
    """Return the strategy that is followed, and what the user should know of it."""
    strategy, library = parameters.references.strategy, bool(parameters.references.library)
    warnings = []
    if strategy == ADI and library:
        raise LyotError(
            "strategy is 'adi', which takes no reference star, and a library is given; take "
            "strategy = adi+rdi, or no library."
        )
    if strategy == AUTO:
        strategy = RDI if association.psf or library else ADI
        if strategy == ADI and len(association.science) > 1:
            warnings.append(
                f"{_table(association)} has no member of exptype 'psf': each roll is subtracted "
                "from the others (angular differential imaging)."
            )
    elif strategy != ADI and not association.psf and not library:
        raise LyotError(
            f"{_table(association)} has no member of exptype 'psf'; add reference exposures, give "
            "a library, or take strategy = adi."
        )
    return strategy, warnings


def _doubts(association: Association, infos: Mapping[Path, ExposureInfo]) -> Iterator[str]:
    """What is strange in the headers, and does not prevent the run."""
    for path in association.science:
        if infos[path].is_psf:
            yield f"{path.name} is a science member, and its header says reference star (IS_PSF)."
        if not np.isfinite(infos[path].pa_y_deg):
            yield f"{path.name} records no roll: its image cannot be turned to north."


def _references(
    strategy: str, association: Association, infos: Mapping[Path, ExposureInfo], science: Path
) -> tuple[Path, ...]:
    """Return the exposures that a strategy subtracts from a science exposure."""
    if strategy == RDI:
        return association.psf
    roll = infos[science].pa_y_deg
    others = tuple(
        other
        for other in association.science
        if abs((infos[other].pa_y_deg - roll + 180.0) % 360.0 - 180.0) >= MIN_ROLL_DIFFERENCE_DEG
    )
    return others + association.psf if strategy == ADI_RDI and others else others


def _products(
    exposures: Sequence[PlannedExposure],
    images: Sequence[PlannedImage],
    first: ExposureInfo,
    parameters: RunParameters,
) -> Iterator[tuple[str, int]]:
    """What will be written, in that order, and its size."""
    if not parameters.save_results:
        return
    frame = first.shape[-2] * first.shape[-1]
    cube, save, recipe = CUBE_BYTES * frame, parameters.save, parameters.recipe
    for exposure in exposures:
        n_ref, n_int = exposure.n_references, exposure.n_int
        if save.save_psfstack:
            yield exposure.psfstack, cube * n_ref
        if save.save_crfints:
            yield exposure.crfints, cube * n_int
        if save.save_psfalign:
            n_sets = 1 if recipe.align.align_to == FIRST_INTEGRATION else n_int
            yield exposure.psfalign, cube * n_ref * n_sets
        if save.save_psfsub:
            yield from ((name, cube * n_int) for name in exposure.psfsub)
    for names in images:
        yield names.image, IMAGE_BYTES * frame
        if parameters.contrast:
            yield names.snr, 4 * frame
            yield names.contrast, 0


def _n_int(info: ExposureInfo) -> int:
    return info.shape[0] if len(info.shape) == 3 else 1


def _lines(plan: Plan) -> Iterator[str]:
    parameters = plan.parameters
    recipe = parameters.recipe
    modes = ", ".join(str(n) for n in recipe.subtract.n_modes)
    yield f"{plan.association.product}: {_plural(len(plan.exposures), 'science exposure')}"
    references = parameters.references
    yield (
        f"  References: {IN_WORDS[references.strategy]}. Method: {recipe.subtract.method}, up to "
        f"{modes} modes."
    )
    if references.library:
        yield f"  Library: {references.library}, chosen by {parameters.library.by}"
    before: tuple[Path, ...] = ()
    for exposure in plan.exposures:
        most = "at most " if references.library else ""
        yield (
            f"  {exposure.science.name}: {_plural(exposure.n_int, 'integration')}, "
            f"{most}{_plural(exposure.n_references, 'reference frame')}"
        )
        if own := plan.backgrounds.get(exposure.science, ()):
            yield f"    background: {', '.join(path.name for path in own)}"
        for path in plan.acquisitions.get(exposure.science, ()):
            yield f"    star by {path.name}"
        if exposure.references and exposure.references == before:
            yield "    references: the same"
        else:
            yield from _reference_lines(plan, exposure.references)
        before = exposure.references
    for name, kind in plan.unused:
        yield f"  not used: {name} ({kind})"
    yield "Products and their sizes (at least):"
    for name, n_bytes in plan.products.items():
        yield f"  {name:<60} {n_bytes / 1e6:10.1f} MB"
    size = plan.n_bytes
    yield f"Disk space: {f'{size / 1e6:.0f} MB' if size < 1e9 else f'{size / 1e9:.1f} GB'}"
    for warning in plan.warnings:
        yield f"Warning: {warning}"


def _reference_lines(plan: Plan, references: tuple[Path, ...]) -> Iterator[str]:
    """List references, those together that lose the same background."""
    groups: dict[tuple[Path, ...], list[Path]] = {}
    for path in references:
        groups.setdefault(plan.backgrounds.get(path, ()), []).append(path)
    for own, paths in groups.items():
        names = ", ".join(path.name for path in own)
        yield f"    references, minus the background {names}:" if own else "    references:"
        yield from (f"      {path.name}" for path in paths)


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"

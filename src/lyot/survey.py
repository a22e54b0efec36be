"""Associations reduced one by one or many at a time, each once: what is unchanged is left alone."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lyot._version import __version__
from lyot.compute import cluster, memory, process, threads
from lyot.errors import LyotError
from lyot.files.association import Association, read_association
from lyot.files.atomic import checksum, remove_stale, sampled_checksum, write_json
from lyot.files.results import SURVEY_SUMMARY
from lyot.files.run import older_results
from lyot.files.sorting import find_exposures, sort_exposures
from lyot.parameters import (
    PIPELINE,
    MassParameters,
    MemoryParameters,
    ObservationParameters,
    ReferenceParameters,
    StepParameters,
    complete,
    parameters_of,
    to_names,
)
from lyot.progress import Progress, no_progress

if TYPE_CHECKING:
    from lyot.analysis.candidate import Candidate
    from lyot.analysis.observation import Observation
    from lyot.pipeline import Coron3Pipeline
    from lyot.pipeline.plan import Plan

log = logging.getLogger(__name__)

REDUCED, UNCHANGED, FAILED = "reduced", "unchanged", "failed"
MAX_MEASURED = 3
"""Companions that a run measures, together: the most significant ones."""
AFTER_A_RUN = ("lyot.outputs", "lyot.viz.report.page", "jinja2", "rich.console", "rich.table")
"""Modules that a run needs at its end: imported beside its computing."""
NO_MASSES = MassParameters()
MADE_BY_RUN = "lyot_run"
"""The asn_rule of an association that a run writes; a later run sorts the exposures again."""


@dataclass(frozen=True)
class Job:
    """An association, and how it is reduced."""

    association: str
    output_dir: str
    content: dict[str, Any] | None = None  # of an association that the run itself writes
    parameters: StepParameters = field(default_factory=dict)
    input_dir: str = ""  # folder of the members; by default that of the association
    observation: ObservationParameters | None = None  # for contrast limits; None for no limits
    masses: MassParameters = NO_MASSES  # for limits in mass
    search: bool = True  # whether companions are searched for
    measure: bool = False  # whether candidates that are points are measured
    report: bool = True
    rerun: bool = False  # whether an association that is up to date is reduced again
    command: tuple[str, ...] = ()  # that was typed, for the report


@dataclass(frozen=True)
class Finished:
    """What became of a job."""

    association: str
    product: str  # its name; empty where the association could not be read
    state: str  # REDUCED, UNCHANGED or FAILED
    products: tuple[str, ...] = ()  # paths
    summary: tuple[dict[str, Any], ...] = ()  # one entry per science exposure
    seconds: float = 0.0
    peak_memory_mb: float = 0.0  # of the process, since it began
    message: str = ""  # why it failed
    # That a search found, the most significant first; None where there was none.
    candidates: tuple[dict[str, Any], ...] | None = None
    unsearched: str = ""  # why there was none
    companions: tuple[dict[str, Any], ...] = ()  # that were measured
    limits: tuple[tuple[float, float], ...] = ()  # separations [arcsec] and contrast limits


class Source(NamedTuple):
    """An association: its file, or the content of one that was made from headers."""

    path: str
    content: dict[str, Any] | None = None


def expand(sources: Sequence[str], /) -> list[Source]:
    """Find the associations of files and folders, each once; make them where there are none.

    A folder stands for the associations in it at any depth, else for the exposures in it; these
    and exposures that are named are sorted together.
    """
    found: list[str] = []
    exposures: list[str | Path] = []
    for source in sources:
        path, named = Path(source), list[str | Path]()
        if path.is_dir():
            files = [p for p in sorted(path.rglob("*_asn.json")) if _is_of_stage_3(p)]
            named += [] if files else find_exposures([path])
            if not files and not named:
                raise LyotError(
                    f"{path} holds no association (*_asn.json) and no calibrated exposure "
                    "(*_calints.fits, *_cal.fits); name another folder."
                )
        else:
            files = [path] if path.suffix == ".json" else []
            named += [] if files else [source]
        exposures += named
        found += [str(file) for file in files if str(file) not in found]
    made: list[Source] = []
    if exposures:
        contents, unused = sort_exposures(exposures)
        made = [Source("", content | {"asn_rule": MADE_BY_RUN}) for content in contents]
        for path, reason in unused:
            log.warning("%s is not used: %s.", path.name, reason)
    return [Source(path) for path in found] + made


def _is_of_stage_3(path: Path) -> bool:
    """Whether an association in a folder is for a run; those of stage 2 and of runs are not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # what is wrong with it is said when it is read
    kind, rule = (str(dict(content).get(key) or "") for key in ("asn_type", "asn_rule"))
    return (not kind or "coron" in kind) and rule != MADE_BY_RUN


def plan(job: Job, sources: Sequence[Source], /) -> list[Job]:
    """Make one job per association, each with a folder of its own where there are several."""
    jobs: list[Job] = []
    names: dict[str, str] = {}
    for path, content in sources:
        try:
            name = read_association(content or path, folder=job.input_dir or None).product
        except LyotError:
            name = Path(path).stem
        if name in names and len(sources) > 1:
            raise LyotError(
                f"{path or name} and {names[name]} both make a product named {name}; rename one."
            )
        names[name] = path or name
        folder = Path(job.output_dir) / name if len(sources) > 1 else Path(job.output_dir)
        association = path or str(folder / f"{name}_asn.json")
        jobs.append(replace(job, association=association, content=content, output_dir=str(folder)))
    return jobs


def _association_of(job: Job) -> Association:
    return read_association(job.content or job.association, folder=job.input_dir or None)


def run(jobs: Sequence[Job], tasks: cluster.Tasks, /) -> Iterator[Finished]:
    """Reduce several associations; one that fails does not stop the others."""
    for outcome in tasks.completed(attempt, jobs):
        if outcome.value is not None:
            yield outcome.value
        else:
            yield _failed(jobs[outcome.number], outcome.error, 0.0)


def attempt(job: Job, /) -> Finished:
    """Do a job; where it fails, the message says why, and nothing is raised."""
    started = time.monotonic()
    try:
        return reduce(job)
    except (Exception, SystemExit) as err:
        if not isinstance(err, LyotError):
            log.debug("%s failed.", job.association, exc_info=True)
        return _failed(job, err, time.monotonic() - started)


def _failed(job: Job, error: BaseException | None, seconds: float) -> Finished:
    text = str(error) if isinstance(error, LyotError) else f"{type(error).__name__}: {error}"
    try:
        product = _association_of(job).product
    except LyotError:
        product = ""
    return Finished(job.association, product, FAILED, seconds=seconds, message=text)


def reduce(job: Job, /, *, progress: Progress = no_progress) -> Finished:
    """Reduce an association, unless nothing that its products rest on has changed."""
    with threads.SecondThread() as second:
        return _reduce(job, second, progress)


def _reduce(job: Job, second: threads.SecondThread, progress: Progress) -> Finished:
    started = time.monotonic()
    folder = Path(job.output_dir)
    asn = _association_of(job)
    digests = _checksums(asn, second)
    record = folder / f"{asn.product}_run.json"
    remove_stale(folder)
    if not job.rerun and record.is_file():
        before = _unchanged(job, asn, record, digests)
        if before is not None:
            return before
    pipeline = _pipeline(job)
    pipeline.digests = digests
    process.freeze_imports()
    pipeline.progress = progress
    unsearched = _why_unsearched(job, pipeline)
    analyzed = job.observation is not None or not unsearched
    pipeline.keep_fits = analyzed and _fits_nest(pipeline)
    pipeline.needed_later = AFTER_A_RUN
    sums: dict[str, Future[str]] = {}

    def _sum_up(path: str) -> None:
        sums[Path(path).name] = second.submit(sampled_checksum, path)

    pipeline.saved = _sum_up
    paths: list[str] = []
    older: dict[str, int] = {}
    measured: dict[str, Any] = {"unsearched": unsearched}

    def _analyze_run() -> None:
        # Products of earlier runs with other modes may lie beside those of this one.
        write_json({"products": [Path(p).name for p in pipeline.products]}, record)
        _analyze(job, pipeline, paths, measured, searched=not unsearched)

    pipeline.analyze = _analyze_run if analyzed else None
    with _log_file(folder, asn.product):
        record.unlink(missing_ok=True)
        if job.content is not None:
            write_json(job.content, job.association)
        pipeline.run(job.association)
        products = [*pipeline.products, *paths]
        if pipeline.products:  # for the report
            names = [Path(p).name for p in pipeline.products]
            older = _older(folder, asn.product, [Path(p).name for p in products])
            unsearched = measured["unsearched"]
            write_json({"products": names, "unsearched": unsearched, "older": older}, record)
        for path in paths:
            _sum_up(path)  # beside the report
        if job.report and any(p.endswith("_i2d.fits") for p in products):
            from lyot.viz.report import write_report

            report = write_report(folder, command=list(job.command), products=products)
            products.append(report)
            _sum_up(report)
        second.wait()
    finished = Finished(
        job.association,
        asn.product,
        REDUCED,
        tuple(products),
        tuple(pipeline.summary),
        time.monotonic() - started,
        memory.peak_bytes() / 1e6,
        **measured,
    )
    if pipeline.save_results:
        content = {
            "software": "lyot",
            "command": list(job.command),
            "fingerprint": fingerprint(job, asn, pipeline.checksums),
            "products": {(name := Path(p).name): sums[name].result() for p in products},
            "summary": list(finished.summary),
            "candidates": finished.candidates,
            "unsearched": finished.unsearched,
            "older": older,
            "companions": list(finished.companions),
            "limits": list(finished.limits),
            "seconds": finished.seconds,
            "peak_memory_mb": finished.peak_memory_mb,
        }
        write_json(content, record)
    return finished


def _older(folder: Path, product: str, products: list[str]) -> dict[str, int]:
    """Find what earlier runs left: results that are not of these products."""
    found = older_results(folder, product, products)
    if tables := [name for name in found if name.endswith(".ecsv")]:
        text = "Of an earlier run, and not in the report: %s; make them again, or remove them."
        log.warning(text, ", ".join(sorted(tables)))
    return found


def _checksums(asn: Association, second: threads.SecondThread) -> dict[str, Future[str]]:
    """Begin with the checksums of the members, where there is a thread for them beside imports."""
    members = asn.members + asn.acquisitions if threads.n_threads() > 1 else ()
    # A missing file is reported later, when its headers are read.
    return {path.name: second.submit(checksum, path) for path in members if path.is_file()}


def _why_unsearched(job: Job, pipeline: Coron3Pipeline) -> str:
    """Say why a run is not searched for companions; nothing where it is."""
    saved, names = pipeline.parameters().save, ("crfints", "psfalign", "psfsub")
    is_saved = {n: pipeline.save_results and getattr(saved, f"save_{n}") for n in names}
    absent = [name for name in names if not is_saved[name]]
    if not job.search:
        return "The search was switched off."
    return f"The search needs products that were not saved: {', '.join(absent)}." if absent else ""


def _fits_nest(pipeline: Coron3Pipeline) -> bool:
    """Whether the fits of all numbers of modes follow from one."""
    from lyot.subtraction.methods import method_of

    recipe = pipeline.parameters().recipe.subtract
    return len(recipe.n_modes) == 1 or method_of(recipe).truncations_nest


def _analyze(
    job: Job,
    pipeline: Coron3Pipeline,
    paths: list[str],
    measured: dict[str, Any],
    /,
    *,
    searched: bool,
) -> None:
    """Search a finished run, and measure limits where the brightness of the star is known."""
    from lyot.analysis.observation import open_run

    given = job.observation or ObservationParameters()
    if not pipeline.keep_fits:  # of several numbers of modes that do not nest
        given = replace(given, n_modes=(max(pipeline.parameters().recipe.subtract.n_modes),))
    try:
        with open_run(job.output_dir, given, subtracted=pipeline.subtracted) as observation:
            if searched:
                pipeline.progress("search for companions", 0, 1)
                _search(job, observation, paths, measured)
                pipeline.progress("search for companions", 1, 1)
            if job.observation is not None:
                _measure_limits(job, observation, paths, measured)
    except LyotError as err:
        if job.observation is not None:
            raise
        _note_unsearched(err, measured)
    pipeline.subtracted.clear()


def _note_unsearched(err: LyotError, measured: dict[str, Any]) -> None:
    log.warning("The run is not searched for companions: %s", err)
    measured["unsearched"] = str(err)


def _search(job: Job, observation: Observation, paths: list[str], measured: dict[str, Any]) -> None:
    """Search for companions, and measure those that are points where that is asked for."""
    from lyot.outputs import write_companions, write_detection

    try:
        found = write_detection(observation, job.output_dir)
    except LyotError as err:
        _note_unsearched(err, measured)
        return
    paths += found.paths
    measured["candidates"] = tuple(map(_summary_of, found.result.candidates))
    places = [(c.separation_arcsec, c.pa_deg) for c in found.result.candidates if c.can_be_measured]
    points = [place for place in places if observation.sees(*place)]
    if not (job.measure and points):
        return
    try:
        fit = write_companions(observation, job.output_dir, points[:MAX_MEASURED])
    except LyotError as err:
        log.warning("The candidates are not measured: %s", err)
        return
    paths += fit.paths
    measured["companions"] = tuple(
        {
            "separation_arcsec": asdict(c.separation_arcsec),
            "pa_deg": asdict(c.pa_deg),
            "jy": asdict(c.jy),
            "snr": c.snr,
        }
        for c in fit.result.companions
    )


def _measure_limits(
    job: Job, observation: Observation, paths: list[str], measured: dict[str, Any]
) -> None:
    from lyot.outputs import write_contrast

    limits = write_contrast(observation, job.output_dir, masses=job.masses)
    paths += limits.paths
    curve = limits.result.curve
    pairs = zip(curve.separation_arcsec.tolist(), curve.best_limit.tolist(), strict=True)
    measured["limits"] = tuple(pairs)


def _summary_of(candidate: Candidate) -> dict[str, Any]:
    """Return what the summary of a run says of a candidate, as plain values."""
    names = ("separation_arcsec", "pa_deg", "snr", "flux", "contrast", "false_alarms")
    values = {name: float(getattr(candidate, name)) for name in names}
    numbers = {name: value if np.isfinite(value) else None for name, value in values.items()}
    return numbers | {"kind": candidate.kind, "notes": candidate.notes}


def _pipeline(job: Job) -> Coron3Pipeline:
    from lyot.pipeline import Coron3Pipeline

    pipeline = Coron3Pipeline()
    pipeline.output_dir = job.output_dir
    if job.input_dir:
        pipeline.input_dir = job.input_dir
    for step, values in complete(job.parameters).items():
        target = pipeline if step == PIPELINE else getattr(pipeline, step)
        for value in values:
            for name, each in to_names(value).items():
                setattr(target, name, each)
    return pipeline


def plan_of(job: Job, /) -> Plan:
    """Plan the run of a job: nothing is written, and no pixel is read."""
    return _pipeline(job).plan(job.content or job.association)


def fingerprint(
    job: Job, asn: Association, checksums: dict[str, str] | None = None, /
) -> dict[str, Any]:
    """Return all that a job's products rest on, by content; `checksums` are of known members."""
    sha256 = checksums or {p.name: checksum(p) for p in asn.members + asn.acquisitions}
    values = complete(job.parameters)
    # No product rests on the memory that a run may take.
    values = {
        step: tuple(value for value in given if not isinstance(value, MemoryParameters))
        for step, given in values.items()
    }
    all_values = [value for given in values.values() for value in given]
    all_values += [job.masses] if job.observation is None else [job.observation, job.masses]
    files = [
        path
        for value in all_values
        for each in parameters_of(type(value))
        if each.is_file and (path := getattr(value, each.name))
    ]
    [library] = [value.library for value in all_values if isinstance(value, ReferenceParameters)]
    content = {
        "version": __version__,
        "product": asn.product,
        "asn_id": asn.asn_id,
        "science": [[p.name, sha256[p.name]] for p in asn.science],
        "psf": [[p.name, sha256[p.name]] for p in asn.psf],
        "background": [[p.name, sha256[p.name]] for p in asn.background],
        "acquisitions": [[p.name, sha256[p.name]] for p in asn.acquisitions],
        "steps": {
            step: {name: each for value in given for name, each in to_names(value).items()}
            for step, given in values.items()
        },
        "observation": None if job.observation is None else to_names(job.observation),
        "masses": to_names(job.masses),
        "report": job.report,
        "search": job.search,
        "measure": job.measure,
        "files": [[str(path), checksum(path)] for path in files],
        "library": _library_state(library) if library else None,
    }
    return dict(json.loads(json.dumps(content)))


def _library_state(path: str) -> str:
    from lyot.files.library_store import Library

    digest = hashlib.sha256()
    for row in Library(path).query():
        digest.update(f"{row['sha256']} {row['integration']}\n".encode())
    return digest.hexdigest()


def _unchanged(
    job: Job, asn: Association, record: Path, digests: Mapping[str, Future[str]]
) -> Finished | None:
    """Return what was made before, if its products and all that they rest on are unchanged."""
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
        known = {name: each.result() for name, each in digests.items()}
        if before["fingerprint"] != fingerprint(job, asn, known):
            return None
        for name, digest in before["products"].items():
            path = record.parent / name
            if not path.is_file() or sampled_checksum(path) != digest:
                log.info("%s has been changed or removed; %s is reduced again.", path, asn.product)
                return None
        return Finished(
            job.association,
            asn.product,
            UNCHANGED,
            tuple(str(record.parent / name) for name in before["products"]),
            tuple(before["summary"]),
            candidates=None if before["candidates"] is None else tuple(before["candidates"]),
            unsearched=before["unsearched"],
            companions=tuple(before["companions"]),
            limits=tuple(map(tuple, before["limits"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@contextmanager
def _log_file(folder: Path, product: str) -> Iterator[None]:
    """Write what is logged to a file beside the products."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / f"{product}_run.log", mode="w", encoding="utf-8")
    except OSError as err:
        raise LyotError(
            f"{folder} is not a folder you may write to ({err.strerror}); name another."
        ) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("lyot")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    except Exception as err:
        # To the file alone: whoever called says it to the user.
        what = {"msg": str(err), "levelno": logging.ERROR, "levelname": "ERROR", "name": log.name}
        handler.handle(logging.makeLogRecord(what))
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def write_summary(
    finished: Sequence[Finished], folder: str | Path, /, *, report: bool = True
) -> str:
    """Write what became of a survey to ``survey.json``, and the page that compares it.

    Return the path of the page; empty where none is asked for.
    """
    write_json([asdict(each) for each in finished], Path(folder) / SURVEY_SUMMARY)
    if not report:
        return ""
    from lyot.viz.report import write_survey_report

    return write_survey_report(folder)

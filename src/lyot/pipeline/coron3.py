"""The coronagraphic pipeline: from an association to the combined image and its products."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from stpipe import Pipeline

from lyot import steps
from lyot.compute import memory, process, threads
from lyot.errors import LyotError
from lyot.files.aligned import AlignedFrames, Errors
from lyot.files.association import read_association
from lyot.files.atomic import check_free_space, checksum
from lyot.files.exposure import Cube, as_model, cube_from_model, read_cube, stack
from lyot.files.headers import read_info
from lyot.files.library_store import Library
from lyot.files.products import save_atomically
from lyot.files.star import StarPosition
from lyot.files.stream import WriteBlock, write_blocks
from lyot.files.trees import hasten_schemas
from lyot.parameters import (
    FIRST_INTEGRATION,
    PIPELINE,
    STEPS,
    AlignRecipe,
    BackgroundRecipe,
    CombineRecipe,
    LibraryRecipe,
    MemoryParameters,
    OutlierRecipe,
    Recipe,
    ReferenceParameters,
    SaveParameters,
    StarParameters,
    SubtractRecipe,
    to_dict,
)
from lyot.pipeline.plan import (
    CUBE_BYTES,
    Plan,
    PlannedExposure,
    PlannedImage,
    RunParameters,
    check_memory,
    make_plan,
)
from lyot.pipeline.record import Record, record_library, summary_of
from lyot.progress import Progress, no_progress
from lyot.references.acquisition import star_by_acquisitions
from lyot.references.background import Background, background_of, subtract_background
from lyot.references.library import select
from lyot.references.prepare import (
    PreparedRefs,
    flag_across,
    flag_outliers,
    outlier_dq,
    prepare_refs,
)
from lyot.references.vet import ReferenceWarning
from lyot.steps.align_refs import psfalign_model
from lyot.steps.base import LyotStep, spec_of, values_of
from lyot.steps.stack_refs import psfstack_model
from lyot.subtraction.methods import method_of
from lyot.subtraction.result import Subtracted

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.7
"""Share of the computer's memory that a run takes where the user sets no limit."""
CACHED_SHARE = 0.2
"""Share of it that Linux lets wait for the disk (vm.dirty_ratio)."""


class Coron3Pipeline(Pipeline, LyotStep):
    """Reduce an association of coronagraphic exposures.

    Attributes
    ----------
    keep_fits : bool
        Whether the subtractions stay in memory after the run, for an analysis that follows.
    subtracted : dict of str to Subtracted
        These, by the names of the flagged exposures (crfints).
    analyze : callable or None
        Called once all exposures are subtracted and their products written, while another thread
        combines them.
    saved : callable or None
        Called with the path of each product once it is written, on any thread.
    digests : dict of str to Future
        Checksums of members that another thread has begun with, by their names.
    needed_later : tuple of str
        Modules that another thread imports once the first exposure is open.

    Examples
    --------
    >>> pipeline = Coron3Pipeline(strategy="rdi")
    >>> pipeline.klip.truncate = (5, 20)
    >>> pipeline.parameters().recipe.subtract.n_modes
    (5, 20)
    """

    class_alias = "calwebb_coron3"

    spec = spec_of(*STEPS[PIPELINE], suffix="i2d", save_results=True)

    step_defs: ClassVar[dict[str, type]] = {
        "background": steps.BackgroundStep,
        "outlier_detection": steps.OutlierDetectionStep,
        "stack_refs": steps.StackRefsStep,
        "align_refs": steps.AlignRefsStep,
        "klip": steps.KlipStep,
        "resample": steps.ResampleStep,
        "hlsp": steps.HlspStep,
    }

    prefetch_references = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.progress: Progress = no_progress
        self.products: list[str] = []
        self.summary: list[dict[str, Any]] = []
        self.checksums: dict[str, str] = {}
        self.digests: Mapping[str, Future[str]] = {}
        self.keep_fits = False
        self.analyze: Callable[[], None] | None = None
        self.saved: Callable[[str], None] | None = None
        self.needed_later: tuple[str, ...] = ()
        self._combined_backgrounds: dict[tuple[Path, ...], Background] = {}
        self.subtracted: dict[str, Subtracted] = {}

    def process(self, source: Any) -> Any:
        """Return the combined image, a list for several numbers of modes; None without resample."""
        plan = self.plan(source)
        members = plan.association.members + plan.association.acquisitions

        def _digest(path: Path) -> str:
            begun = self.digests.get(path.name)
            return checksum(path) if begun is None else begun.result()

        self.products, self.summary, self.subtracted = [], [], {}
        self._combined_backgrounds = {}
        digests = threads.map_ordered(_digest, members)
        self.checksums = {p.name: digest for p, digest in zip(members, digests, strict=True)}
        _check_copies(self.checksums)
        for name, kind in plan.unused:
            log.info("Member %s is not used (%s).", name, kind)
        for warning in plan.warnings:
            log.warning(warning)
        record = Record(plan, self.checksums)
        given = values_of(self, MemoryParameters).n_bytes
        limit = given or int(MEMORY_SHARE * memory.of_computer())
        # While one thread computes, another opens files as models and writes products.
        with (
            memory.limited(limit, self._path("")),
            process.calm_libraries(),
            threads.SecondThread() as self._files,
        ):
            return self._reduce(record)

    def _reduce(self, record: Record) -> Any:
        plan = record.plan
        stacked: _Stack | None = None
        subtracted = []
        for number, exposure in enumerate(plan.exposures):
            acquired = None
            if own := plan.acquisitions.get(exposure.science):
                self._files.wait()  # models are not thread-safe
                acquired = star_by_acquisitions(exposure.science, own)
            opened = self._files.submit(self._opened, number, exposure.science)
            if stacked is None or stacked.name != exposure.psfstack:
                stacked = None  # so that one stack is held, not two
                stacked = self._stack(plan, exposure)
            models, stacked = self._subtract(record, number, stacked, (opened, acquired))
            subtracted.append(models)
        stacked = None  # what follows needs no references
        self._files.wait()
        memory.let_go()
        if not plan.images:
            log.info("resample is skipped: no combined image is made.")
        by_modes = zip(*subtracted, strict=True) if plan.images else ()
        combined = [
            self._files.submit(self._combine, record, names, list(models))
            for names, models in zip(plan.images, by_modes, strict=True)
        ]
        try:
            if self.analyze is not None:
                self.analyze()
        finally:
            images = [image.result() for image in combined]
            self._files.wait()
        return images[0] if len(images) == 1 else images or None

    def save_model(self, *_: Any, **__: Any) -> None:
        """Save nothing: `process` has saved each product under its planned name."""

    def plan(self, source: Any) -> Plan:
        """Plan the run of an association; no pixel is read."""
        for step in ("stack_refs", "align_refs", "klip"):
            if getattr(self, step).skip:
                raise LyotError(
                    f"{step} is skipped; only background, outlier_detection, resample and hlsp "
                    "can be."
                )
        parameters = self.parameters()
        method_of(parameters.recipe.subtract)
        asn = read_association(source, folder=self._members_folder(source))
        infos = {path: read_info(path) for path in asn.members + asn.acquisitions}
        recipe = parameters.recipe
        for part in (recipe.background, recipe.align, recipe.subtract, recipe.combine):
            infos[asn.science[0]].instrument_value.flag_value(part.bad_bits)
        library = parameters.references.library
        n_library = len(Library(library)) if library else 0
        plan = make_plan(asn, infos, parameters, n_library=n_library)
        check_memory(plan, values_of(self, MemoryParameters).n_bytes)
        members = {path.resolve() for path in infos}
        for name in plan.products:
            if self._path(name).resolve() in members:
                raise LyotError(
                    f"The product {name} would replace the member of that name in "
                    f"{self.output_dir or '.'}; name another output folder.",
                    parameter="output_dir",
                )
        return plan

    def parameters(self) -> RunParameters:
        """Return everything that decides what a run does."""
        return RunParameters(
            recipe=Recipe(
                star_xy=values_of(self.klip, StarParameters).xy,
                background=values_of(self.background, BackgroundRecipe),
                outlier=values_of(self.outlier_detection, OutlierRecipe),
                align=values_of(self.align_refs, AlignRecipe),
                subtract=values_of(self.klip, SubtractRecipe),
                combine=values_of(self.resample, CombineRecipe),
            ),
            references=values_of(self, ReferenceParameters),
            library=values_of(self, LibraryRecipe),
            save=values_of(self, SaveParameters),
            save_results=self.save_results,
            combine=not self.resample.skip,
            contrast=not self.hlsp.skip,
            suffix=self.suffix,
        )

    def _members_folder(self, source: Any) -> str | None:
        """Return the folder of the members where ``input_dir`` names another than the file's."""
        given = self.input_dir
        if not given or isinstance(source, dict):
            return given or None
        return None if Path(given).resolve() == Path(source).resolve().parent else given

    def _opened(self, number: int, path: Path) -> Any:
        if not number:
            hasten_schemas()
        model = as_model(path, "CubeModel")
        process.freeze_imports()
        return model

    def _import_later(self) -> None:
        for name in self.needed_later:
            import_module(name)
        process.freeze_imports()  # now that all are imported

    def _stack(self, plan: Plan, exposure: PlannedExposure) -> _Stack:
        """Stack the references of an exposure, and prepare them for the alignment."""
        self.progress("stack references", 0, 1)
        outliers, paths = plan.parameters.recipe.outlier, exposure.references
        library: dict[str, Any] = {}
        backgrounds: dict[str, Any] = {}
        n_int: list[int] = []

        def _own() -> Iterator[Cube]:
            for path in paths:
                cube = self._without_background(plan, path, backgrounds)
                n_int.append(len(cube.sci))
                yield flag_outliers(cube, outliers)

        cubes: Iterator[Cube] = _own()
        if plan.parameters.references.library:
            cube, library = self._from_library(plan, exposure)
            cubes = chain(cubes, [replace(cube, info=read_info(exposure.science))])
        cube = flag_across(stack(cubes), n_int, outliers)
        if exposure.psfstack in plan.products:
            self._files.submit(self._save_stack, exposure, cube, library)
        refs = prepare_refs(cube, plan.parameters.recipe.align)
        del cube
        memory.let_go()
        self.progress("stack references", 1, 1)
        return _Stack(exposure.psfstack, refs, library, backgrounds)

    def _save_stack(self, exposure: PlannedExposure, cube: Cube, library: dict[str, Any]) -> None:
        """Write the stack, with the metadata of its first exposure."""
        paths = exposure.references
        with as_model(paths[0] if paths else exposure.science, "CubeModel") as like:

            def product() -> Any:
                model = psfstack_model(like, cube, [p.name for p in paths], _single_pixels(3))
                record_library(model, library)
                return model

            with self._in_blocks(exposure.psfstack, product, cube.sci.shape) as write:
                write(0, cube.sci, cube.err, cube.dq)

    def _without_background(self, plan: Plan, path: Path, records: dict[str, Any]) -> Cube:
        """Read a reference and subtract its background; note what was fitted."""
        recipe, background = plan.parameters.recipe.background, self._background(plan, path)
        cube, record = subtract_background(read_cube(path), background, recipe)
        if record:
            record.pop("shared_variance", None)
            records[path.name] = record
        return cube

    def _background(self, plan: Plan, path: Path) -> Background | None:
        """Combine the background exposures of an exposure, once for all that share them."""
        own = plan.backgrounds.get(path, ())
        if own and own not in self._combined_backgrounds:
            recipe = plan.parameters.recipe
            cubes = [flag_outliers(read_cube(each), recipe.outlier) for each in own]
            self._combined_backgrounds[own] = background_of(cubes, recipe.background)
        return self._combined_backgrounds.get(own)

    def _from_library(self, plan: Plan, exposure: PlannedExposure) -> tuple[Cube, dict[str, Any]]:
        """Choose frames of the library for an exposure; return them and their record."""
        parameters = plan.parameters
        library = Library(str(parameters.references.library))
        target = flag_outliers(read_cube(exposure.science), parameters.recipe.outlier)
        rows, correlation = select(
            library,
            target,
            parameters.library,
            align=parameters.recipe.align,
            exclude=[self.checksums[p.name] for p in (exposure.science, *exposure.references)],
        )
        log.info(
            f"{len(rows)} of {len(library)} frames of the library {library.path} serve "
            f"{exposure.science.name}; their correlation with it is {correlation.min():.4f} to "
            f"{correlation.max():.4f}."
        )
        record = {
            "library": str(library.path.resolve()),
            "recipe": to_dict(parameters.library),
            "frames": [f"{r['file']}[{r['integration']}]" for r in rows],
            "sha256": [r["sha256"] for r in rows],
            "correlation": correlation,
        }
        return library.frames([r["number"] for r in rows]), record

    def _subtract(
        self,
        record: Record,
        number: int,
        stacked: _Stack,
        source: tuple[Future[Any], StarPosition | None],
    ) -> tuple[list[Any], _Stack]:
        """Subtract an exposure, a set of references at a time; return the stack vetted."""
        plan, exposure = record.plan, record.plan.exposures[number]
        stage = f"exposure {number + 1} of {len(plan.exposures)}"
        one = (len(stacked.refs), *stacked.refs.cube.frame_shape)
        first = plan.parameters.recipe.align.align_to == FIRST_INTEGRATION
        n_sets = 1 if first else exposure.n_int
        cube, flagged = self._flagged(plan, exposure, *source)
        with ExitStack() as context:
            write: WriteBlock | None = None
            if exposure.psfalign in plan.products:

                def product() -> Any:
                    arrays = _single_pixels(3 if first else 4)
                    return psfalign_model(flagged.result(), aligned, arrays)

                shape = one if first else (n_sets, *one)
                packed = plan.parameters.save.compress_dq
                saved = self._in_blocks(exposure.psfalign, product, shape, compress_dq=packed)
                write = context.enter_context(saved)

            def receive(i: int, frames: AlignedFrames) -> None:
                self.progress(stage, i, n_sets)
                if write is not None:
                    write(i, frames.sci, Errors(frames.variance), frames.dq)

            aligned = self.align_refs.references(
                exposure.science, cube, stacked.refs, receive=receive, warnings=stacked.warnings
            )
            aligned.name = exposure.psfalign
            aligned.inputs = [exposure.crfints, exposure.psfstack]
            aligned.prepare()
            self._files.wait()  # models are not thread-safe: from here on this thread has them
            memory.let_go()
            receive_fits = partial(self.subtracted.__setitem__, exposure.crfints)
            target = flagged.result()
            if not number:
                self._files.submit(self._import_later)
            result = self.klip.run(target, aligned, receive_fits if self.keep_fits else None)
            vetted = stacked._replace(warnings=aligned.warnings)
            aligned.release()  # its product is not finished, and keeps it
            self._files.submit(context.pop_all().close)
        models = result if isinstance(result, list) else [result]
        for model, name in zip(models, exposure.psfsub, strict=True):
            record.exposure(model, library=stacked.library, backgrounds=stacked.backgrounds)
            self.summary.append(summary_of(exposure, model))
            self._files.submit(self._write, plan, model, name)
        self._files.submit(target.close)
        self.progress(stage, n_sets, n_sets)
        return models, vetted

    def _flagged(
        self,
        plan: Plan,
        exposure: PlannedExposure,
        opened: Future[Any],
        acquired: StarPosition | None,
    ) -> tuple[Cube, Future[Any]]:
        """Return the frames of an exposure as they are subtracted; and its model, later."""
        recipe, background = plan.parameters.recipe, self._background(plan, exposure.science)
        steps = (self.background, self.outlier_detection)
        made = subtract_background(read_cube(exposure.science), background, recipe.background)
        cube, _ = made
        found = None if recipe.outlier.skip else outlier_dq(cube, recipe.outlier)

        def _model() -> Any:
            given = opened.result()
            target = self.background.run(given, background, made)
            if found is None:
                target.meta.cal_step.outlier_detection = "SKIPPED"
                flagged = target
            else:
                flagged = self.outlier_detection.run(target, found)
            for each in (given, target):
                if each is not flagged:
                    each.close()
            self._write(plan, flagged, exposure.crfints)
            return flagged

        model = self._files.submit(_model)
        if any(step.pre_hooks or step.post_hooks for step in steps):
            cube = cube_from_model(model.result())
        elif found is not None:
            cube = replace(cube, dq=found.dq)
        return replace(cube, info=replace(cube.info, acquired=acquired)), model

    def _combine(self, record: Record, names: PlannedImage, models: list[Any]) -> Any:
        self.progress("combine", 0, 1)
        image = self.resample.run(models)
        record.image(image, models)
        image.meta.filename = names.image
        for model in models:
            model.close()
        made = [] if self.hlsp.skip else self.hlsp.process(image)
        names_made = (names.image, names.snr, names.contrast)[: 1 + len(made)]
        for product, name in zip([image, *made], names_made, strict=True):
            self._files.submit(self._write, record.plan, product, name)
        self.progress("combine", 1, 1)
        return image

    @contextmanager
    def _in_blocks(
        self,
        name: str,
        product: Callable[[], Any],
        shape: tuple[int, ...],
        *,
        compress_dq: bool = False,
    ) -> Iterator[WriteBlock]:
        """Write a product too large to hold twice; check the disk space first."""
        path, size = self._path(name), CUBE_BYTES * int(np.prod(shape))
        log.info("%s takes %.2f GB.", name, size / 1e9)
        check_free_space(path.parent, int(1.02 * size), name)
        cached = size <= CACHED_SHARE * (memory.of_computer() or np.inf)
        with write_blocks(path, product, shape, compress_dq=compress_dq, cached=cached) as write:
            yield write
        self._note(path)

    def _path(self, name: str) -> Path:
        return Path(self.output_dir or ".").expanduser() / name

    def _write(self, plan: Plan, model: Any, name: str) -> None:
        """Name a product, and write it where that is planned."""
        model.meta.filename = name
        if name in plan.products:
            self._note(save_atomically(model, self._path(name)))

    def _note(self, path: str | Path) -> None:
        self.products.append(str(path))
        if self.saved is not None:
            self.saved(str(path))
        log.info("Saved %s", path)


def _check_copies(checksums: Mapping[str, str]) -> None:
    """Refuse members that are one file: an exposure must not be subtracted from itself."""
    names: dict[str, str] = {}
    for name, digest in checksums.items():
        if (first := names.setdefault(digest, name)) != name:
            raise LyotError(f"{first} and {name} are copies of one exposure; remove one of them.")


class _Stack(NamedTuple):
    """A stack of references, prepared; what the library gave to it; what is wrong with it."""

    name: str
    refs: PreparedRefs
    library: dict[str, Any]
    backgrounds: dict[str, Any]  # what was subtracted from each reference exposure
    warnings: list[ReferenceWarning] | None = None


def _single_pixels(n_axes: int) -> dict[str, Any]:
    """Arrays of one pixel, for a model of which only the headers and the tree are wanted."""
    kinds = {"data": np.float32, "err": np.float32, "dq": np.uint32}
    return {name: np.zeros((1,) * n_axes, kind) for name, kind in kinds.items()}

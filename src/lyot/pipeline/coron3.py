"""The coronagraphic pipeline: from an association to the combined image and its products."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from stpipe import Pipeline

from lyot.files.aligned import AlignedFrames
from lyot.files.association import Association, read_association
from lyot.files.atomic import check_free_space, checksum
from lyot.files.exposure import (
    Cube,
    as_model,
    cube_from_model,
    read_cube,
)
from lyot.files.headers import read_info
from lyot.files.library_store import Library
from lyot.files.products import derived_model, save_atomically
from lyot.files.provenance import provenance_of, set_provenance, stamp
from lyot.files.stream import BlockWriter
from lyot.parameters import (
    PIPELINE,
    STEPS,
    AlignRecipe,
    CombineRecipe,
    LibraryRecipe,
    OutlierRecipe,
    Recipe,
    ReferenceParameters,
    SaveParameters,
    StarParameters,
    SubtractRecipe,
    to_dict,
)
from lyot.pipeline.plan import Plan, RunParameters, make_plan
from lyot.progress import Progress, no_progress
from lyot.references.aligner import Aligner, prepare_refs
from lyot.references.library import select
from lyot.references.stack import flag_outliers
from lyot.references.vet import ReferenceWarning, saturated, with_sources
from lyot.steps import (
    AlignRefsStep,
    HlspStep,
    KlipStep,
    OutlierDetectionStep,
    ResampleStep,
    StackRefsStep,
)
from lyot.steps.align_refs import alignment_details
from lyot.steps.base import LyotStep, root_of
from lyot.steps.spec import spec_of, values_of
from lyot.steps.stack_refs import Addition
from lyot.subtraction.methods import method_of

log = logging.getLogger(__name__)


class Coron3Pipeline(Pipeline, LyotStep):
    """Reduce an association of coronagraphic exposures.

    Parameters
    ----------
    *args, **kwargs : object
        Name, parent and parameters, as for any `stpipe` step.
    """

    class_alias = "calwebb_coron3"

    spec = spec_of(*STEPS[PIPELINE], suffix="i2d", save_results=True)

    step_defs: ClassVar[dict[str, type]] = {
        "outlier_detection": OutlierDetectionStep,
        "stack_refs": StackRefsStep,
        "align_refs": AlignRefsStep,
        "klip": KlipStep,
        "resample": ResampleStep,
        "hlsp": HlspStep,
    }

    prefetch_references = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the pipeline and its steps."""
        super().__init__(*args, **kwargs)
        self.progress: Progress = no_progress
        self.products: list[str] = []
        self.summary: list[dict[str, Any]] = []
        self._asn = Association("", (), ())
        self._library: Library | None = None
        self._doubted: tuple[Any, list[ReferenceWarning]] | None = None
        self.checksums: dict[str, str] = {}

    def process(self, source: Any) -> Any:
        """Run all steps.

        Parameters
        ----------
        source : str or dict
            The association.

        Returns
        -------
        ImageModel, list of ImageModel or None
            The combined image; one for each number of modes; None where ``resample`` is
            skipped.
        """
        self.products, self.summary, self._doubted = [], [], None
        plan = self.plan(source)
        self._library = Library(self.library) if self.library else None
        asn = self._asn = plan.association
        for name, kind in asn.left_out:
            log.info("Member %s of type %r is not used.", name, kind)
        for warning in plan.warnings:
            log.warning(warning)
        references = [exposure.references for exposure in plan.exposures]
        self.checksums = {p.name: checksum(p) for p in asn.science + asn.psf}
        subtracted: list[list[Any]] = []
        made: tuple[tuple[Path, ...], Any, str] | None = None
        for number, path in enumerate(asn.science):
            if made is None or made[0] != references[number] or self._library is not None:
                alone = len(set(references)) > 1 or self._library is not None
                made = None  # so that one stack is held, not two
                root = self._root(path) if alone else asn.product
                made = (references[number], *self._stack(references[number], root, path))
            subtracted.append(self._subtract(path, made[1], made[2], number))
        if self.resample.skip:
            log.info("resample is skipped: no combined image is made.")
            return None
        results = []
        for k in range(len(subtracted[0])):
            results.append(self._combine([models[k] for models in subtracted], len(subtracted[0])))
        return results[0] if len(results) == 1 else results

    def save_model(self, *_: Any, **__: Any) -> None:
        """Do nothing: `process` saves each product under a name of its own.

        Parameters
        ----------
        *_, **__ : object
            What `stpipe` gives; not looked at.
        """

    def recipe(self) -> Recipe:
        """Return the parameters of all steps as one value."""
        return Recipe(
            star_xy=values_of(self.klip, StarParameters).xy,
            outlier=values_of(self.outlier_detection, OutlierRecipe),
            align=values_of(self.align_refs, AlignRecipe),
            subtract=values_of(self.klip, SubtractRecipe),
            combine=values_of(self.resample, CombineRecipe),
        )

    def plan(self, source: Any) -> Plan:
        """Plan the run of an association; no pixel is read."""
        parameters = self.parameters()
        method_of(parameters.recipe.subtract)
        asn = read_association(source, folder=self._members_folder(source))
        infos = {path: read_info(path) for path in asn.science + asn.psf}
        recipe = parameters.recipe
        for part in (recipe.align, recipe.subtract, recipe.combine):
            infos[asn.science[0]].instrument_value.flag_value(part.bad_bits)
        library = parameters.references.library
        n_library = len(Library(library)) if library else 0
        return make_plan(asn, infos, parameters, n_library=n_library)

    def parameters(self) -> RunParameters:
        """Return everything that decides what a run does."""
        return RunParameters(
            recipe=self.recipe(),
            references=values_of(self, ReferenceParameters),
            library=values_of(self, LibraryRecipe),
            save=values_of(self, SaveParameters),
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

    def _root(self, path: Path) -> str:
        """Name of the products of a science exposure, without their suffix."""
        return root_of(path.name) + (f"_{self._asn.asn_id}" if self._asn.asn_id else "")

    def _stack(self, references: tuple[Path, ...], root: str, science: Path) -> tuple[Any, str]:
        self.progress("stack references", 0, 1)
        self.stack_refs.outliers = values_of(self.outlier_detection, OutlierRecipe)
        self.stack_refs.added = None
        if self._library is not None:
            self.stack_refs.added = self._from_library(self._library, references, science)
        stack = self.stack_refs.run([*references] or [science])
        name = f"{root}_psfstack.fits"
        cube = cube_from_model(stack)
        if self.save_results and self.save_psfstack:
            self._write_stack(stack, cube, name)
        stack.close()
        del stack
        refs = prepare_refs(cube, values_of(self.align_refs, AlignRecipe))
        self.progress("stack references", 1, 1)
        return refs, name

    def _from_library(
        self, library: Library, references: tuple[Path, ...], science: Path
    ) -> Addition:
        """Choose frames of the library for a science exposure."""
        target = flag_outliers(read_cube(science), values_of(self.outlier_detection, OutlierRecipe))
        rows, alike = select(
            library,
            target,
            values_of(self, LibraryRecipe),
            align=values_of(self.align_refs, AlignRecipe),
            leave_out=[self.checksums[p.name] for p in (science, *references)],
        )
        log.info(
            "%d of %d frames of the library %s serve %s; their correlation with it is %.4f to "
            "%.4f.",
            len(rows),
            len(library),
            library.path,
            science.name,
            alike.min(),
            alike.max(),
        )
        made = {
            "library": str(library.path.resolve()),
            "recipe": to_dict(values_of(self, LibraryRecipe)),
            "frames": [f"{r['file']}[{r['integration']}]" for r in rows],
            "sha256": [r["sha256"] for r in rows],
            "correlation": alike,
        }
        return Addition(library.frames([r["number"] for r in rows]), made, alone=not references)

    def _write_stack(self, stack: Any, cube: Cube, name: str) -> None:
        """Write the psfstack plane by plane: saving the model would hold it twice more."""

        def _small() -> Any:
            product = derived_model("CubeModel", stack, _single_pixels(3))
            set_provenance(product, provenance_of(stack))
            return product

        path = self._path(name)
        check_free_space(path.parent, BlockWriter.size(cube.sci.shape), name)
        with BlockWriter(path, _small, cube.sci.shape) as writer:
            writer.write(0, cube.sci, cube.err, cube.dq)
        self.products.append(str(path))
        log.info("Saved %s", path)

    def _subtract(self, path: Path, refs: Any, stack_name: str, number: int) -> list[Any]:
        """Take one science exposure from its file to its subtracted cubes."""
        root = self._root(path)
        target = self._flag(as_model(path, "CubeModel"), root)
        self.align_refs.lazy = True
        aligner = self.align_refs.run(target, refs)
        doubts = self._doubts(aligner)
        stage = f"exposure {number + 1} of {len(self._asn.science)}"
        stream = _Stream(aligner, partial_progress(self.progress, stage, aligner.n_sets))
        if self.save_results and self.save_psfalign:
            with self._align_writer(target, aligner, path, stack_name, root) as writer:
                stream.writer = writer
                result = self.klip.run(target, stream)
            log.info("Saved %s", writer.path)
            self.products.append(str(writer.path))
        else:
            result = self.klip.run(target, stream)
        target.close()
        models = result if isinstance(result, list) else [result]
        for model in models:
            self._record(model, aligner, path, stack_name, doubts)
            tag = f"_{_modes_tag(model)}" if len(models) > 1 else ""
            self._save(model, f"{root}{tag}_psfsub.fits", wanted=self.save_psfsub)
        self.progress(stage, aligner.n_sets, aligner.n_sets)
        return models

    def _flag(self, target: Any, root: str) -> Any:
        if self.outlier_detection.skip:
            target.meta.cal_step.outlier_detection = "SKIPPED"
            return target
        flagged = self.outlier_detection.run(target)
        target.close()
        self._save(flagged, f"{root}_crfints.fits", wanted=self.save_crfints)
        return flagged

    def _align_writer(
        self, target: Any, aligner: Aligner, path: Path, stack_name: str, root: str
    ) -> BlockWriter:
        n_ref, shape = len(aligner.refs.cube.sci), aligner.target.frame_shape
        full = (n_ref, *shape) if aligner.shared else (aligner.n_sets, n_ref, *shape)
        final = self._path(f"{root}_psfalign.fits")
        size = BlockWriter.size(full)
        log.info("The aligned references take %.2f GB (%s).", size / 1e9, final.name)
        check_free_space(final.parent, int(1.02 * size), final.name)

        def model() -> Any:
            product = derived_model(
                "CubeModel" if aligner.shared else "QuadModel",
                target,
                _single_pixels(len(full)),
            )
            stamp(
                product,
                "align_psfs",
                recipe=to_dict(aligner.recipe),
                inputs=[path.name, stack_name],
                star=aligner.star,
                details=alignment_details(aligner) if aligner.shifts else {},
            )
            return product

        return BlockWriter(final, model, full)

    def _doubts(self, aligner: Aligner) -> list[ReferenceWarning]:
        """Say which references may spoil the subtraction."""
        if self._doubted is not None and self._doubted[0] is aligner.refs:
            return self._doubted[1]
        frames, star = aligner.frames(0), aligner.star
        doubts = saturated(aligner.refs.cube, star)
        doubts += with_sources(frames, aligner.ref_info, star, aligner.target.info)
        for doubt in doubts:
            log.warning(
                "Reference %d of %s%s: %s.",
                doubt.reference + 1,
                aligner.target.info.name,
                f" ({doubt.target})" if doubt.target else "",
                doubt.reason,
            )
        self._doubted = (aligner.refs, doubts)
        return doubts

    def _record(
        self,
        model: Any,
        aligner: Aligner,
        path: Path,
        stack_name: str,
        doubts: list[ReferenceWarning],
    ) -> None:
        """Complete the provenance of a subtracted cube; note its line of the summary."""
        branch = provenance_of(model)
        steps = branch["steps"]
        details = alignment_details(aligner)
        steps["align_psfs"] = {
            "recipe": to_dict(aligner.recipe),
            "inputs": [path.name, stack_name],
        } | details
        steps["klip"]["inputs"] = [path.name, stack_name]
        steps["align_psfs"]["weight"] = self.align_refs.weight_origin
        steps["align_psfs"]["doubts"] = [asdict(doubt) for doubt in doubts]
        if self.stack_refs.added is not None:
            steps["library"] = self.stack_refs.added.made
        steps["association"] = {
            "table": self._asn.table,
            "product": self._asn.product,
            "science": [p.name for p in self._asn.science],
            "psf": [p.name for p in self._asn.psf],
            "sha256": self.checksums,
        }
        branch["recipe"] = to_dict(self.recipe())
        set_provenance(model, branch)
        for step in ("stack_psfs", "align_psfs"):
            setattr(model.meta.cal_step, step, "COMPLETE")
        model.meta.asn.pool_name = self._asn.pool or None
        model.meta.asn.table_name = self._asn.table or None
        shift = np.hypot(*np.moveaxis(details["shift_yx"], -1, 0))
        klip = steps["klip"]
        self.summary.append(
            {
                "exposure": path.name,
                "integrations": len(aligner.target.sci),
                "references": len(aligner.refs.cube.sci),
                "median_shift_pix": float(np.median(shift)),
                "largest_shift_pix": float(np.max(shift)),
                "n_modes": int(klip["n_modes"]),
                "n_kept": int(klip["n_kept"]),
                "rms_before": float(np.nanmean(klip["rms_before"])),
                "rms_after": float(np.nanmean(klip["rms_after"])),
                "star": aligner.star.to_dict(),
                "doubts": [asdict(doubt) for doubt in doubts],
            }
        )

    def _combine(self, models: list[Any], n_results: int) -> Any:
        self.progress("combine", 0, 1)
        result = self.resample.run(models)
        branch = provenance_of(result)
        first = provenance_of(models[0])["steps"]
        branch["steps"] = {k: first[k] for k in ("association",)} | branch["steps"]
        for model in models:
            made = provenance_of(model)["steps"]["klip"]
            branch.setdefault("exposures", {})[str(model.meta.filename)] = {
                key: made[key] for key in ("n_modes", "n_kept", "rms_before", "rms_after", "recipe")
            }
        branch["recipe"] = to_dict(self.recipe())
        set_provenance(result, branch)
        tag = f"_{_modes_tag(models[0])}" if n_results > 1 else ""
        name = f"{self._asn.product}{tag}_{self.suffix}.fits"
        self._save(result, name, wanted=True)
        result.meta.filename = name
        for model in models:
            model.close()
        if not self.hlsp.skip:
            self.hlsp.save_results = False
            for product, suffix in zip(self.hlsp.run(result), ("snr", "contrast"), strict=True):
                self._save(product, f"{self._asn.product}{tag}_{suffix}.fits", wanted=True)
        self.progress("combine", 1, 1)
        return result

    def _path(self, name: str) -> Path:
        return Path(self.output_dir or ".").expanduser() / name

    def _save(self, model: Any, name: str, *, wanted: bool) -> None:
        model.meta.filename = name
        if not (wanted and self.save_results):
            return
        self.products.append(save_atomically(model, self._path(name)))
        log.info("Saved %s", self.products[-1])


def partial_progress(progress: Progress, stage: str, total: int, /) -> Callable[[int], None]:
    """Return a callback that reports how many sets of one stage are done.

    Parameters
    ----------
    progress : callable
        Takes the stage, the number done and their total.
    stage : str
        The stage.
    total : int
        Number of sets.

    Returns
    -------
    callable
        Takes the number done.
    """

    def _report(done: int) -> None:
        """Pass the number on."""
        progress(stage, done, total)

    return _report


def _single_pixels(n_axes: int) -> dict[str, Any]:
    """Arrays of one pixel, for a model of which only the headers and the tree are wanted."""
    kinds = {"data": np.float32, "err": np.float32, "dq": np.uint32}
    return {name: np.zeros((1,) * n_axes, kind) for name, kind in kinds.items()}


def _modes_tag(model: Any) -> str:
    return f"k{int(provenance_of(model)['steps']['klip']['n_modes']):03d}"


class _Stream:
    """Aligned references that are written to their product as the subtraction takes them."""

    def __init__(self, aligner: Aligner, report: Callable[[int], None]) -> None:
        self._aligner = aligner
        self._report = report
        self.writer: BlockWriter | None = None

    @property
    def shared(self) -> bool:
        return self._aligner.shared

    @property
    def star(self) -> Any:
        return self._aligner.star

    @property
    def ref_info(self) -> Any:
        return self._aligner.ref_info

    def frames(self, integration: int, /) -> AlignedFrames:
        self._report(integration)
        frames = self._aligner.frames(integration)
        if self.writer is not None:
            self.writer.write(integration, frames.sci, frames.err, frames.dq)
        return frames

"""What all steps share: parameters from their classes, whole products, no CRDS unless asked for."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from stpipe import Step
from stpipe.config_parser import ConfigObj
from stpipe.exceptions import StpipeExitException, ValidationError

from lyot.compute import process
from lyot.compute.threads import single_threaded_blas
from lyot.errors import LyotError, last_words
from lyot.files.exposure import as_model, open_model
from lyot.files.headers import read_info
from lyot.files.products import save_atomically
from lyot.parameters import STEPS, P, Parameter, Parameters, from_names, parameters_of

log = logging.getLogger(__name__)

# fmt: off
SUFFIXES = (
    "calints", "crfints", "psfstack", "psfalign", "psfsub", "i2d", "snr", "contrast", "rateints",
    "cal", "c1d",
)
# fmt: on
_CLASS_OF = {2: "ImageModel", 3: "CubeModel", 4: "QuadModel"}


def root_of(name: str, /) -> str:
    """Return a file name without folder, extension and known suffix."""
    stem = Path(name).name.removesuffix(".gz").rsplit(".", 1)[0]
    head, _, tail = stem.rpartition("_")
    return head if head and tail in SUFFIXES else stem


def crds_is_configured() -> bool:
    """Tell whether the user set up CRDS."""
    return bool(os.environ.get("CRDS_PATH") or os.environ.get("CRDS_SERVER_URL"))


class StepRefused(LyotError, StpipeExitException):
    """What a step that runs by itself raises on bad input: strun shows it as one sentence."""

    exit_status = 1  # of strun


def in_strun() -> bool:
    """Whether stpipe's command runs the steps: it shows tracebacks, except of what it knows."""
    return Path(sys.argv[0]).stem == "strun"


class LyotStep(Step):
    """A step that needs no CRDS and writes its product whole or not at all."""

    spec = """
        output_ext = string(default='.fits')  # Type of output
    """

    save_results: bool
    output_file: str | None

    prefetch_references = False
    reference_file_types: ClassVar[list[str]] = []

    def run(self, *args: Any) -> Any:
        """Run the step with the linear algebra held at one thread."""
        if self.parent is None:
            process.freeze_imports(collect=True)
        try:
            with single_threaded_blas():
                return super().run(*args)
        except LyotError as err:
            if self.parent is not None:
                raise
            raise StepRefused(str(err), parameter=err.parameter, function=err.function) from err
        except (Exception, KeyboardInterrupt) as err:
            if self.parent is not None or not in_strun():
                raise
            text, status = last_words(err)
            refused = StepRefused(text)
            refused.exit_status = status
            raise refused from err

    @classmethod
    def load_spec_file(cls, *args: Any, **kwargs: Any) -> Any:
        """Return the parameters; strun reads its options next, and does not say which is wrong."""
        for before, word in pairwise(sys.argv if in_strun() else ()):
            option, is_given, value = (word if "=" in word else f"{before}={word}").partition("=")
            if option.startswith("--") and is_given and not _is_value(value):
                text = (
                    f"{option[2:]} is {value!r}; give one value, or several with a comma between."
                )
                log.error(text)
                raise StepRefused(text)
        return super().load_spec_file(*args, **kwargs)

    @classmethod
    def from_config_section(cls, config: Any, *args: Any, **kwargs: Any) -> Any:
        """Make a step of a configuration; a value that is not allowed ends in one sentence."""
        given = dict(config)
        try:
            return super().from_config_section(config, *args, **kwargs)
        except ValidationError as err:
            text = f"A parameter of {cls.__name__} is not valid: {str(err).rstrip('.')}."
            try:
                for kind in STEPS[str(cls.class_alias)]:
                    from_names(kind, given)
            except LyotError as sentence:
                text = str(sentence)
            log.error(text)  # strun itself shows what `run` raises alone
            raise StepRefused(text) from err

    @classmethod
    def get_config_from_reference(cls, dataset: Any, **_: Any) -> Any:
        """Answer with no parameters: those in CRDS are for the official steps."""
        del dataset
        return ConfigObj()

    @classmethod
    def _get_crds_parameters(cls, dataset: Any) -> tuple[dict[str, Any], str]:
        if hasattr(dataset, "get_crds_parameters"):
            return dataset.get_crds_parameters(), "jwst"
        return {}, "jwst"

    @classmethod
    def _datamodels_open(cls, source: Any, **kwargs: Any) -> Any:
        return open_model(source, **kwargs)

    @staticmethod
    def get_stpipe_loggers() -> tuple[str, ...]:
        """Return the loggers that a run configures."""
        return ("stpipe", "lyot")

    @staticmethod
    def remove_suffix(name: str) -> tuple[str, str]:
        """Return a name without its product suffix, and the separator."""
        head, separator, tail = name.rpartition("_")
        return (head, "_") if separator and tail in SUFFIXES else (name, "_")

    def save_model(
        self, model: Any, *, output_file: str | None = None, force: bool = False, **parts: Any
    ) -> Any:
        """Save a model whole or not at all; `parts` of its name are as in `make_output_path`."""
        output_file = output_file or self.output_file
        if not (force or self.save_results or output_file):
            return None
        path = self.make_output_path(basepath=output_file, **parts)
        saved = save_atomically(model, path)
        log.info("Saved %s", saved)
        return saved


def _is_value(text: str) -> bool:
    try:
        ConfigObj([f"value = {text}"], raise_errors=True, list_values=True)
    except Exception:
        return False
    return True


def name_of(source: Any, /) -> str:
    """Return a name for the provenance of a product."""
    if isinstance(source, str | Path):
        return Path(source).name
    meta = getattr(source, "meta", None)
    return str(getattr(meta, "filename", None) or type(source).__name__)


def is_one(source: Any, /) -> bool:
    """Whether a step was given one exposure, a path or a model, and no collection of them."""
    return isinstance(source, str | Path) or hasattr(source, "getarray_noinit")


@contextmanager
def opened(source: Any, kind: str = "", /) -> Iterator[Any]:
    """Open a file as a stdatamodels class, by default by its axes; pass on what is no path."""
    is_path = isinstance(source, str | Path)
    if is_path and not kind:
        shape = read_info(source).shape
        kind = _CLASS_OF.get(len(shape), "")
        if not kind:
            raise LyotError(f"{source} has {len(shape)} axes; a product has 2 to 4.")
    model = as_model(source, kind)
    try:
        yield model
    finally:
        if is_path:
            model.close()


def spec_of(*kinds: type[Parameters], suffix: str = "", save_results: bool = False) -> str:
    """Write the ``spec`` of a step that takes these classes, in the syntax of configobj."""
    lines = [f"suffix = string(default={suffix!r})  # Suffix of the product"] if suffix else []
    lines += ["save_results = boolean(default=True)  # Save the products"] if save_results else []
    lines += [_line(each) for kind in kinds for each in parameters_of(kind)]
    return "\n".join(["", *lines, ""])


def values_of(step: Any, kind: type[P], /) -> P:
    """Read a class of parameters from the attributes of a step."""
    names = {each.step for each in parameters_of(kind)}
    return from_names(kind, {name: getattr(step, name) for name in names if hasattr(step, name)})


def _line(each: Parameter) -> str:
    default = each.default
    if each.kind == "list":
        items = ", ".join(repr(item) for item in default)
        check = f"force_list(default=list({items}))"
    else:
        limits = {"min": each.minimum, "max": each.maximum}
        options = [repr(choice) for choice in each.choices]
        options += [f"{key}={each.inner(v)}" for key, v in limits.items() if v is not None]
        options.append(f"default={default!r}")
        check = f"{'option' if each.choices else each.kind}({', '.join(options)})"
    return f"{each.step} = {check}  # {each.description}"

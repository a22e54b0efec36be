"""The rules of the house, as tests."""

import ast
import functools
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "lyot"
MODULES = sorted(SOURCE.rglob("*.py"))


def test_imports_go_downward_only():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def dotted(node):
    """Return an attribute chain of names as text, such as ``fits.open``."""
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return node.id if isinstance(node, ast.Name) else ""


@functools.cache
def uses(source):
    """Find what a module imports and which functions of it are used, by their full names.

    Imports within functions count, those by name (`import_module`) too, and aliases are followed.
    """
    tree = ast.parse(source)
    alias, found = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                found.add(name.name)
                top = name.name if name.asname else name.name.partition(".")[0]
                alias[name.asname or top] = top
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for name in node.names:
                full = f"{node.module}.{name.name}"
                found.add(full)
                alias[name.asname or name.name] = full
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(
            ("import_module", "__import__")
        ):
            found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    for node in ast.walk(tree):
        head, _, rest = dotted(node).partition(".")
        if rest and head in alias:
            found.add(f"{alias[head]}.{rest}")
    return found


HOMES = {
    "matplotlib": ("viz/",),
    "jinja2": ("viz/",),
    "click": ("cli",),
    "rich": ("cli", "progress.py"),
    "dask": (),
    "distributed": ("compute/cluster.py",),
    "threadpoolctl": ("compute/threads.py",),
    "torch": ("compute/devices.py",),
    "cupy": ("compute/devices.py",),
    "zarr": ("files/library_store.py",),
    "sqlite3": ("files/library_store.py",),
    "asdf": (),
    "yaml": ("files/trees.py",),
    "poppy": ("instruments/",),
    "stpsf": ("analysis/psf.py", "instruments/"),
    "emcee": ("analysis/",),
    "astroquery": ("files/archive.py",),
    "stpipe": ("steps/", "pipeline/", "survey.py"),
    "drizzle": ("sky.py",),
    "jwst": (),
    "crds": (),
    # Science files and tables are opened in one place, with one message where they are unreadable.
    "stdatamodels.jwst.datamodels": ("files/", "steps/hlsp.py", "simulate/"),
    "stdatamodels.jwst.datamodels.open": ("files/exposure.py",),
    "astropy.io.fits.open": ("files/headers.py",),
    "astropy.io.fits.getdata": (),
    "astropy.io.fits.getheader": (),
    "astropy.table.Table.read": ("files/results.py",),
    "astropy.table.QTable.read": (),
}
"""Where alone a library or function is used: paths below src/lyot begin so."""


def is_used(name, source):
    return any(use == name or use.startswith(f"{name}.") for use in uses(source))


def users_outside(name, homes, folder):
    paths = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*.py"))}
    return {
        where
        for where, path in paths.items()
        if not (homes and where.startswith(homes)) and is_used(name, path.read_text())
    }


@pytest.mark.parametrize("name", HOMES)
def test_libraries_and_opening_of_files_have_one_home(name):
    assert not users_outside(name, HOMES[name], SOURCE)


@pytest.mark.parametrize("name", HOMES)
def test_a_use_outside_its_home_is_seen(name, tmp_path):
    """The contract above can fail, however the use is written."""
    head, _, tail = name.rpartition(".")
    forms = [
        f"import {name}\n{name}" if not head else f"import {head}\n{head}.{tail}()",
        f"def f():\n    from {head or name} import {tail or 'x'} as y\n    return y()",
    ]
    if head:
        outer, _, last = head.rpartition(".")
        forms.append(f"def f():\n    from {outer or head} import {last} as z\n    z.{tail}()")
    else:
        forms.append(f"from importlib import import_module\nimport_module({name!r})")
    for number, form in enumerate(forms):
        (tmp_path / f"m{number}.py").write_text(form)
    assert users_outside(name, HOMES[name], tmp_path) == {f"m{n}.py" for n in range(len(forms))}


def test_kernels_know_no_files_logs_or_threads():
    for path in (SOURCE / "algorithms").rglob("*.py"):
        used = {name.partition(".")[0] for name in uses(path.read_text())}
        assert not used & {"logging", "pathlib", "os", "threading", "concurrent", "stdatamodels"}
        assert "astropy" not in used


def test_public_names_are_all_there():
    import lyot

    for name in lyot.__all__:
        assert getattr(lyot, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lyot.nothing


def test_public_kernels_take_data_by_position_alone():
    for path in (SOURCE / "algorithms").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert not node.args.args, f"{path.name}:{node.name} takes data by keyword"


def test_no_file_names_a_registry_or_a_path_of_a_machine():
    pattern = re.compile(r"https?://[^ ]*/(simple|packages)/|/ro[o]t/|/home/\w+/")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in {".png", ".gz"} or not path.is_file() or path == Path(__file__):
            continue
        assert not pattern.search(path.read_text(errors="ignore")), name


MIRRORS_NOTHING = {
    "test_contracts.py",
    "test_docs.py",
    "test_doctests.py",
    "algorithms/test_torch.py",  # kernels of several modules, on tensors
    "analysis/test_figures.py",  # of lyot.viz.analysis, with the observations of this folder
    "parity",
    "realdata",
    "robustness",
}
"""Tests of no one module: of the house, of real data, and against other software."""


def without_source(tests, source):
    """Return the test files, but for the above, that name no file or package of the source."""
    found = []
    for path in sorted(tests.rglob("test_*.py")):
        where = path.relative_to(tests)
        name = path.stem.removeprefix("test_")
        tested = [f.stem for f in (source / where.parent).glob("*") if f.suffix != ".pyc"]
        if not {where.as_posix(), where.parts[0]} & MIRRORS_NOTHING and name not in tested:
            found.append(where.as_posix())
    return found


def test_tests_mirror_the_source():
    assert not without_source(ROOT / "tests", SOURCE)


def test_a_test_that_mirrors_nothing_is_seen(tmp_path):
    for name in ("steps/test_klip.py", "test_sky.py", "steps/test_clip.py", "test_klip.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert without_source(tmp_path, SOURCE) == ["steps/test_clip.py", "test_klip.py"]


def test_full_docstrings_say_what_is_returned():
    for path in MODULES:
        if path.parent.name in ("cli", "steps"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            returns = ast.unparse(node.returns) if node.returns else "None"
            text = ast.get_docstring(node) or ""
            if "Parameters\n---" not in text:  # an internal name: a line or a few say it
                continue
            if returns == "None" or node.decorator_list:
                continue
            assert "Returns\n-------" in text or "Yields\n------" in text, (path, node.name)


@pytest.mark.parametrize(
    "alias",
    [
        "calwebb_coron3",
        "background",
        "outlier_detection",
        "stack_refs",
        "align_refs",
        "klip",
        "resample",
        "hlsp",
    ],
)
def test_every_parameter_is_on_its_page(alias):
    from importlib import import_module

    from lyot.stpipe_steps import get_steps

    [name] = [n for n, a, _ in get_steps() if a == alias]
    module, _, cls = name.rpartition(".")
    step = getattr(import_module(module), cls)
    page = (ROOT / "docs" / "steps" / f"{alias}.md").read_text()
    assert f"```{{parameters}} {alias}\n```" in page, f"the page of {alias} lists no parameters"
    for line in filter(None, map(str.strip, step.spec.splitlines())):
        assert re.search(r"# \S", line), f"{alias}: {line} says nothing of itself"


def test_the_parameters_of_the_analyses_are_on_their_page():
    page = (ROOT / "docs" / "analysis.md").read_text()
    for command in ("contrast", "companion", "psf"):
        assert f"```{{parameters}} {command}\n```" in page


INSTRUMENT_WORD = re.compile(r"NIRCAM|MIRI|^NRC|4QPM|^LYOT_\d|^MASK[AB]?(\d|.WB|RND|BAR|$)")
KINDS = {"NIRCAM", "MIRI", "RoundMask", "BarMask", "FourQuadrantMask", "LyotSpot"}


def decisions_by_name(source):
    """Return the lines on which a name of an instrument or a kind of mask decides something."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.match_case | ast.Subscript | ast.Dict):
            deciding = node.keys if isinstance(node, ast.Dict) else [node]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            named = node.func.attr in {"startswith", "endswith", "get", "find", "index"}
            deciding = node.args if named else []
        elif isinstance(node, ast.ImportFrom) and "instruments" in (node.module or ""):
            if {alias.name for alias in node.names} & KINDS:
                yield node.lineno
            continue
        else:
            continue
        for part in filter(None, deciding):
            for leaf in ast.walk(part):
                text = leaf.value if isinstance(leaf, ast.Constant) else ""
                if isinstance(text, str) and INSTRUMENT_WORD.search(text.upper()):
                    yield leaf.lineno


def test_only_instruments_knows_the_names_of_instruments():
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in MODULES
        if path.relative_to(SOURCE).parts[0] != "instruments"
        for line in decisions_by_name(path.read_text())
    ]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        'scale = 0.11 if info.instrument == "MIRI" else 0.06',
        'is_phase_mask = info.coronagraph.startswith("4QPM")',
        'width = {"MASK335R": 0.64}[name]',
        'long = info.detector in ("NRCALONG", "NRCBLONG")',
        "from lyot.instruments.coronagraphs import BarMask",
    ],
)
def test_a_test_of_an_instrument_name_is_seen(line):
    assert set(decisions_by_name(line)) == {1}


OPTION_OR_COMMAND = re.compile(
    r"(?<![\w-])--[a-z]|`lyot |"
    r"\blyot (run|asn|contrast|detect|companion|report|library|info|demo)\b"
)


def texts_of(source):
    """Return the line and text of every string but docstrings, and of docstrings with a command."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, documented) and n.body and isinstance(n.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and (id(node) not in docs or "`lyot " in node.value):
            yield node.lineno, node.value


def test_no_message_below_the_command_line_speaks_of_its_options():
    """An error names the parameter or the function; the command line adds the rest."""
    found = [
        f"{path.relative_to(SOURCE)}:{line}: {text[:60]}"
        for path in MODULES
        if path.relative_to(SOURCE).parts[0] != "cli"
        for line, text in texts_of(path.read_text())
        if OPTION_OR_COMMAND.search(text)
    ]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        'raise LyotError("give one of --star-mag and --star-flux.")',
        'raise LyotError(f"{path} is no run; use `lyot run`.")',
        'log.warning("lyot library check tells more")',
        'def f():\n    "Where `lyot run` writes."',
    ],
)
def test_a_message_with_an_option_is_seen(line):
    assert any(OPTION_OR_COMMAND.search(text) for _, text in texts_of(line))


PUBLIC = [
    name.strip()
    for block in re.findall(
        r"autosummary::\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), flags=re.DOTALL
    )
    for name in block.splitlines()
    if name.strip().startswith("lyot.")
]
"""The public names: docs/api.md is their list."""


def missing_sections(name):
    """Return the sections that the docstring of a public name lacks."""
    head, _, tail = name.rpartition(".")
    value = getattr(importlib.import_module(head), tail)
    text = inspect.getdoc(value) or ""
    wanted = ["Examples"]
    if inspect.isfunction(value):
        signature = inspect.signature(value)
        if signature.parameters:
            wanted.append("Parameters")
        if signature.return_annotation not in (None, "None"):
            wanted.append("Yields" if "Iterator" in str(signature.return_annotation) else "Returns")
    elif not inspect.isclass(value):
        return []
    return [section for section in wanted if f"{section}\n---" not in text]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_full_docstring(name):
    lacking = missing_sections(name)
    assert not lacking, f"{name}: write {', '.join(lacking)}"

"""The rules of the house, as tests."""

import ast
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


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


HOMES = {
    "matplotlib": "viz",
    "jinja2": "viz",
    "dask": "compute",
    "poppy": "instruments",
    "jwst": None,
    "crds": None,
}


@pytest.mark.parametrize("library", HOMES)
def test_libraries_stay_in_their_layer(library):
    users = {p.relative_to(SOURCE).parts[0] for p in MODULES if library in imports_of(p)}
    assert users <= {HOMES[library]}


def test_kernels_know_no_files_logs_or_threads():
    for path in (SOURCE / "algorithms").rglob("*.py"):
        used = set(imports_of(path))
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


def test_full_docstrings_say_what_is_returned():
    for path in MODULES:
        if path.name == "cli.py" or path.parent.name == "steps":
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
    ["calwebb_coron3", "outlier_detection", "stack_refs", "align_refs", "klip", "resample", "hlsp"],
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

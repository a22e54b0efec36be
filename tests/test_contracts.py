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

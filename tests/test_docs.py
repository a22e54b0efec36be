"""What the documentation says works: Python is run; commands, options, files and names exist."""

import functools
import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

from lyot.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [p for p in PAGES if "_build" not in p.parts]
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def blocks(path, *kinds):
    return [text for kind, text in FENCE.findall(path.read_text()) if kind in kinds]


def name_of(path):
    return str(path.relative_to(ROOT))


with_python = [p for p in PAGES if blocks(p, "python")]


@pytest.mark.parametrize("page", with_python, ids=name_of)
def test_python_runs(page, demo, simulated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What the page's reader has by then: a reduced run, and one of its products by name.
    text = "\n".join(blocks(page, "python"))
    if "reduced" in text and 'output_dir="reduced"' not in text:
        (tmp_path / "reduced").symlink_to(demo.folder)
    if "jw..._psfsub.fits" in text:
        (tmp_path / "jw..._psfsub.fits").symlink_to(demo.product("_psfsub.fits"))
    names = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def commands():
    for page in PAGES:
        for text in blocks(page, "", "console", "text"):
            for line in text.splitlines():
                found = re.match(r"^\s*(lyot|strun) (.*)$", line)
                if found:
                    yield pytest.param(found[0].strip(), id=f"{name_of(page)}: {found[2][:50]}")


@pytest.mark.parametrize("line", list(commands()))
def test_commands_and_their_options_exist(line):
    words = shlex.split(line, comments=True)
    if words[0] == "strun":
        assert words[1].startswith("lyot::")
        return
    command = main
    rest = words[1:]
    while rest and isinstance(command, click.Group):
        assert rest[0] in command.commands, f"lyot has no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    for word in rest:
        if word.startswith("-"):
            assert word in known, f"{command.name} has no option {word}"


def test_every_page_is_in_the_table_of_contents():
    text = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs")).removesuffix(".md")
        if "_build" in page.parts or "api/" in name or name == "index":
            continue
        assert re.search(rf"^{re.escape(name)}$", text, flags=re.MULTILINE), name


API = re.findall(r"^   (lyot\.[\w.]+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)


def found(name):
    """Import the longest part of a dotted name that is a module, and look up what follows."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[n:], value)
    raise AssertionError(f"no part of {name} is a module")


@pytest.mark.parametrize("name", API)
def test_every_public_name_exists_and_has_a_docstring(name):
    assert inspect.getdoc(found(name)).strip()


def test_the_page_of_the_python_interface_lists_every_top_level_name():
    import lyot

    listed = {id(found(name)) for name in API}
    names = set(lyot.__all__) - {"__version__", "simulate"}
    assert [name for name in names if id(getattr(lyot, name)) not in listed] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_files_and_names_that_a_page_mentions_exist(page):
    text = page.read_text()
    for path in re.findall(r"`((?:tests|benchmarks|src|docs)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(lyot\.[\w.]+\w)(?:\([^`]*\))?`", text):
        assert found(name) is not None, name

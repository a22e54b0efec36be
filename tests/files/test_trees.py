"""Trees that would not end, or lead to other files, are refused before they are loaded."""

import os
import subprocess
import sys
from pathlib import Path

import asdf
import numpy as np
import pytest
from asdf import AsdfFile

from lyot.errors import LyotError
from lyot.files import trees
from lyot.files.trees import check_tree, read_branch


def bomb(n_levels):
    lines = [f"a0: &a0 [{', '.join('x' * 9)}]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, n_levels)]
    return "\n".join(lines).encode()


def test_aliases_that_grow_without_end_are_refused():
    check_tree(bomb(4), "x.fits")
    with pytest.raises(LyotError, match=r"x\.fits has more than"):
        check_tree(bomb(9), "x.fits")


@pytest.mark.parametrize("source", ["http://elsewhere/a.asdf", "/etc/passwd", "other.asdf"])
def test_arrays_of_other_files_are_refused(source):
    with pytest.raises(LyotError, match="only arrays inside the file"):
        check_tree(f"a: !core/ndarray-1.1.0\n  source: {source}\n".encode(), "x.fits")
    with pytest.raises(LyotError, match="only arrays inside the file"):
        check_tree(f"a: !core/ndarray-1.1.0 {{source: '{source}'}}\n".encode(), "x.fits")


@pytest.mark.parametrize("strides", ["[0, 8]", "[8, 0]", "*zero"])
def test_an_array_that_repeats_one_number_without_end_is_refused(strides):
    array = f"{{source: 0, datatype: float64, shape: [9000000, 9000000], strides: {strides}}}"
    with pytest.raises(LyotError, match="has a stride of 0"):
        check_tree(f"z: &zero [0, 0]\na: !core/ndarray-1.1.0 {array}\n".encode(), "x.fits")


def test_compressed_arrays_have_a_limit(tmp_path):
    path = tmp_path / "x.asdf"
    tree = AsdfFile({"a": np.zeros(4000), "b": np.ones((40, 50)).T})
    tree.write_to(path, all_array_compression="zlib")
    check_tree(path.read_bytes(), "x.asdf")
    stored = path.read_bytes()
    # Its header says how much it becomes: the eight bytes before the checksum of 16.
    at = stored.index(b"\xd3BLK") + 6 + 4 + 4 + 8 + 8
    stored = stored[:at] + (2**40).to_bytes(8, "big") + stored[at + 8 :]
    with pytest.raises(LyotError, match="would take 1099512 MB"):
        check_tree(stored, "x.asdf")


def test_trees_of_this_package_pass(tmp_path):
    shared = {"value": 1.0}
    path = tmp_path / "x.asdf"
    AsdfFile({"a": shared, "b": shared, "c": np.ones(3), "source": "a star"}).write_to(path)
    check_tree(path.read_bytes(), "x.asdf")
    check_tree(b"a: !core/ndarray-1.1.0 {source: 'fits:SCI,1'}\nb: [*a, 1]\n", "x.fits")


def test_the_parser_in_c_leaves_tables_of_astropy_readable(tmp_path):
    in_own_process(f"""
from astropy.table import QTable
from astropy import units as u
path = {str(tmp_path / "t.ecsv")!r}
QTable({{"a": [1.0] * u.Jy}}, meta={{"lyot": {{"b": 1}}}}).write(path)
assert QTable.read(path)["a"][0] == 1.0 * u.Jy
assert yaml.safe_load("a: [1, 2]") == {{"a": [1, 2]}}
""")


def test_schemas_that_are_kept_stay_as_they_are(tmp_path):
    in_own_process(f"""
import asdf
from asdf.yamlutil import AsdfLoader
from stdatamodels.jwst import datamodels
resources = asdf.get_config().resource_manager
contents = [resources[uri] for uri in resources if "/schemas/" in uri]
contents = [content for content in contents if content.startswith(b"%YAML")]
before = [yaml.load(content, Loader=AsdfLoader) for content in contents]
for _ in range(2):
    with datamodels.CubeModel((2, 5, 5)) as model:
        model.save({str(tmp_path / "x_calints.fits")!r})
    with datamodels.open({str(tmp_path / "x_calints.fits")!r}) as model:
        model.validate()
assert len(contents) > 100
load = yaml.load
hasten_schemas()
assert yaml.load is load
for content, schema in zip(contents, before):
    assert yaml.load(content, Loader=AsdfLoader) is schema
    assert AsdfLoader(content).get_single_data() == schema
""")


def in_own_process(code):
    """Run code in a process of the package's own, in which schemas are read fast."""
    start = """
import yaml
from lyot.compute import process
from lyot.files.trees import hasten_schemas
process.own()
hasten_schemas()
"""
    env = os.environ | {"PYTHONPATH": str(Path(trees.__file__).parents[2])}
    subprocess.run([sys.executable, "-W", "ignore", "-c", start + code], env=env, check=True)


@pytest.mark.parametrize(
    "how", [{}, {"all_array_compression": "zlib"}, {"all_array_storage": "inline"}]
)
def test_a_branch_is_read_as_asdf_reads_it(tmp_path, how):
    path = tmp_path / "x.asdf"
    numbers = np.arange(24.0).reshape(2, 3, 4)
    views = [numbers, numbers.T, numbers[:, 1:, ::2], np.zeros((0, 2))]
    kinds = [np.float32([1, np.inf]).astype(">f4"), np.array([True, False]), np.array([1 + 2j])]
    values = {"text": "5.0", "none": None, "number": 1e-3, "true": True, "list": [1, "a"]}
    own = {"arrays": views + kinds, "values": values}
    AsdfFile({"other": np.ones(3), "own": own}).write_to(path, **how)
    read = read_branch(path.read_bytes(), "own", path)["own"]
    assert read["values"] == values
    with asdf.open(path) as file:
        for mine, theirs in zip(read["arrays"], file["own"]["arrays"], strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, np.asarray(theirs))


@pytest.mark.parametrize(
    ("node", "error"),
    [
        ("{source: 1, datatype: float64, byteorder: little, shape: [2]}", "block 1 .* is missing"),
        ("{source: 0, datatype: float64, byteorder: little, shape: [9]}", "larger than its block"),
        (
            "{source: 0, datatype: int8, byteorder: little, shape: [60, 60], strides: [1, 1]}",
            "larger than its block",
        ),
        ("{source: 0, datatype: object, byteorder: little, shape: [2]}", "holds no plain numbers"),
        ("{source: 0, datatype: [a], byteorder: little, shape: [2]}", "must be 2- or 3-tuples"),
    ],
)
def test_an_array_that_its_tree_describes_wrongly_is_refused(tmp_path, node, error):
    path = tmp_path / "x.asdf"
    AsdfFile({"own": {"a": np.arange(8.0)}}).write_to(path)
    text, end, blocks = path.read_bytes().partition(b"\n...")
    head, own, _ = text.partition(b"own:")
    stored = head + own + f" {{a: !core/ndarray-1.1.0 {node}}}".encode() + end + blocks
    with pytest.raises((ValueError, TypeError), match=error):
        read_branch(stored, "own", path)


def test_a_tree_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "x.asdf"
    AsdfFile({"own": {"a": 1, "b": 2}}).write_to(path)
    text, _, _ = path.read_bytes().partition(b"\n...")
    with pytest.raises(ValueError, match="its tree is not whole"):
        read_branch(text, "own", path)


def test_reading_a_branch_does_not_import_asdf(tmp_path):
    path = tmp_path / "x.asdf"
    AsdfFile({"own": {"a": np.arange(8.0)}}).write_to(path)
    code = f"""
import sys
from lyot.files.trees import read_branch
assert read_branch(open({str(path)!r}, "rb").read(), "own", "x.asdf")["own"]["a"][7] == 7
assert not {{"asdf", "gwcs"}} & set(sys.modules)
"""
    env = os.environ | {"PYTHONPATH": str(Path(trees.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)

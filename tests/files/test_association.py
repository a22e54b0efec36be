"""Associations are read in all spellings, and bad ones are refused in one sentence."""

import json
import re

import pytest

from lyot.errors import LyotError
from lyot.files.association import read_association

OLD = """{"asn_rule": "CORON", "target": "NGC-3603", "asn_pool": "jw00017_001_01_pool",
 "program": "00017", "products": [{"prodtype": "coroncmb",
 "name": "jw89001-c1001_t001_nircam_f160w",
 "members": [{"exptype": "science", "expname": "test_targ1_calints.fits"},
             {"exptype": "science", "expname": "test_targ2_calints.fits"},
             {"exptype": "psf", "expname": "test_psf1_calints.fits"},
             {"exptype": "psf", "expname": "test_psf2_calints.fits"},
             {"exptype": "psf", "expname": "test_psf3_calints.fits"}]}],
 "asn_type": "coron", "asn_id": "c1001"}"""


@pytest.fixture
def folder(tmp_path):
    for name in ("targ1", "targ2", "psf1", "psf2", "psf3"):
        (tmp_path / f"test_{name}_calints.fits").touch()
    return tmp_path


def write(folder, content):
    path = folder / "asn.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def changed(**product):
    content = json.loads(OLD)
    content["products"][0].update(product)
    return content


def test_the_old_spelling_is_read(folder):
    asn = read_association(write(folder, OLD))
    assert asn.product == "jw89001-c1001_t001_nircam_f160w"
    assert [p.name for p in asn.science] == ["test_targ1_calints.fits", "test_targ2_calints.fits"]
    assert len(asn.psf) == 3
    assert asn.asn_id == "c1001"
    assert all(p.parent == folder for p in asn.science + asn.psf)


def test_acquisitions_are_used_where_they_are(folder):
    content = json.loads(OLD)
    content["products"][0]["members"].append({"exptype": "target_acquisition", "expname": "t.fits"})
    asn = read_association(write(folder, content))
    assert asn.unused == (("t.fits", "target_acquisition"),)
    # One that is there shows the star; one that the archive lists and nobody fetched is no error.
    (folder / "t.fits").touch()
    asn = read_association(write(folder, content))
    assert (asn.unused, asn.acquisitions) == ((), (folder / "t.fits",))
    assert folder / "t.fits" not in asn.members


def test_backgrounds_are_members_and_each_member_may_have_a_folder_of_its_own(folder, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.fits").touch()
    content = json.loads(OLD)
    content["products"][0]["members"].append(
        {"exptype": "background", "expname": "b.fits", "exposure_folder": str(tmp_path / "more")}
    )
    asn = read_association(write(folder, content))
    assert asn.background == (tmp_path / "more" / "b.fits",)
    assert asn.members == asn.science + asn.psf + asn.background
    with pytest.raises(LyotError, match=r"Member b\.fits of asn\.json is not in"):
        read_association(write(folder, content), folder=folder)


def test_the_archives_own_file_is_read_up_to_its_missing_members(data_dir):
    path = data_dir / "asn" / "jw01386-c1027_coron3_00001_asn.json"
    with pytest.raises(LyotError, match=r"Member jw01386022001_04101_00001_mirimage_calints\.fits"):
        read_association(path)


MEMBERS = json.loads(OLD)["products"][0]["members"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{ not json", "is not JSON"),
        ("[1, 2]", "is not a JSON object"),
        ({}, "has no products"),
        ({"products": []}, "has no products"),
        ({"products": [{}, {}]}, "has 2 products"),
        ({"products": [{"name": "a"}]}, "has no members"),
        (changed(name=""), "is not a plain file name"),
        (changed(name="../../etc/x"), "is not a plain file name"),
        (changed(name="a/b"), "is not a plain file name"),
        (changed(members=[m for m in MEMBERS if m["exptype"] == "psf"]), "nothing to subtract"),
        (changed(members=[*MEMBERS, MEMBERS[0]]), "stands twice"),
        (changed(members=[{"exptype": "science", "expname": "../x.fits"}]), "leads outside"),
        (changed(members=[{"exptype": "science", "expname": "/etc/x.fits"}]), "leads outside"),
        (
            changed(members=[{"exptype": "science", "expname": "no.fits"}]),
            "no.fits of asn.json is not",
        ),
        (changed(members=[{"exptype": "science"}]), "has no 'expname'"),
    ],
)
def test_bad_associations_are_refused(folder, content, text):
    with pytest.raises(LyotError, match=re.escape(text)) as caught:
        read_association(write(folder, content))
    assert "\n" not in str(caught.value)


def test_a_missing_association_is_named(tmp_path):
    with pytest.raises(LyotError, match=r"gone\.json does not exist"):
        read_association(tmp_path / "gone.json")


def test_members_are_looked_for_in_the_named_folder(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = write(elsewhere, OLD)
    assert read_association(path, folder=folder).science[0].parent == folder
    content = json.loads(OLD) | {"exposure_folder": str(folder)}
    assert read_association(write(elsewhere, content)).psf[0].parent == folder


@pytest.mark.parametrize("asn_id", ["/../../evil", "a b", "a/b", "é", "\ud800"])
def test_an_asn_id_that_is_no_part_of_a_file_name_is_refused(folder, asn_id):
    with pytest.raises(LyotError, match="becomes a part of file names"):
        read_association(json.loads(OLD) | {"asn_id": asn_id}, folder=folder)


@pytest.mark.parametrize("name", ["\u202eé", "a\tb", ".."])
def test_a_product_name_that_a_header_cannot_hold_is_refused(folder, name):
    with pytest.raises(LyotError, match="is not a plain file name"):
        read_association(changed(name=name), folder=folder)


def test_a_long_name_is_cut_in_the_message(folder):
    with pytest.raises(LyotError) as caught:
        read_association(changed(name="/" * 5000), folder=folder)
    assert len(str(caught.value)) < 300


def test_a_table_nested_without_end_is_refused(folder):
    with pytest.raises(LyotError, match="nested too deeply"):
        read_association(write(folder, "[" * 100_000))


def test_a_name_that_no_file_can_have_is_cut_in_the_message(folder):
    member = {"expname": "x" * 5000, "exptype": "science"}
    content = {"products": [{"name": "p", "members": [member]}]}
    with pytest.raises(LyotError, match="is not in") as refused:
        read_association(content, folder=folder)
    assert len(str(refused.value)) < 600

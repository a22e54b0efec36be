"""Exposures are sorted into associations by what their headers say, wherever they lie."""

import gzip
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits

from lyot.errors import LyotError
from lyot.files.association import read_association
from lyot.files.headers import read_info
from lyot.files.sorting import build_associations, own_backgrounds, sort_exposures

NIRCAM = {
    "INSTRUME": "NIRCAM",
    "DETECTOR": "NRCALONG",
    "FILTER": "F444W",
    "PUPIL": "MASKRND",
    "CORONMSK": "MASKA335R",
    "SUBARRAY": "SUB320A335R",
    "APERNAME": "NRCA5_MASK335R",
    "EXP_TYPE": "NRC_CORON",
    "PROGRAM": "01184",
    "TARGPROP": "V-AU-MIC",
    "IS_PSF": False,
}


def expose(path, shape=(8, 8), **keywords):
    """Write a file with the headers of an exposure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    primary = fits.PrimaryHDU()
    primary.header.update(NIRCAM | keywords)
    sci = fits.ImageHDU(np.ones(shape, np.float32), name="SCI")
    fits.HDUList([primary, sci]).writeto(path)
    return path


def kinds(association):
    members = association["products"][0]["members"]
    return {m["expname"].partition("_")[0]: m["exptype"] for m in members}


def test_the_files_of_hd_106906_as_the_archive_delivers_them(data_dir):
    """One science exposure, nine dithers of the reference, three backgrounds, no science else."""
    made = sort_exposures([data_dir / "hd106906_f1140c"])
    [association] = made.associations
    asn = read_association(association)
    assert [p.name[:13] for p in asn.science] == ["jw01277019001"]
    assert [p.name[:13] for p in asn.psf] == ["jw01194015001"] * 9
    assert sorted(p.name[:13] for p in asn.background) == ["jw01194019001"] + 2 * ["jw01277022001"]
    assert made.unused == []
    backgrounds = {p: read_info(p) for p in asn.background}
    own = own_backgrounds(read_info(asn.science[0]), backgrounds)
    assert [p.name[:13] for p in own] == 2 * ["jw01277022001"]
    own = own_backgrounds(read_info(asn.psf[0]), backgrounds)
    assert [p.name[:13] for p in own] == ["jw01194019001"]


def test_all_real_exposures_at_once_are_two_modes_without_the_maps_between_them(data_dir):
    made = sort_exposures([data_dir, *(data_dir / "aumic_f444w").glob("*.fits")])
    assert [a["target"] for a in made.associations] == ["V-AU-MIC", "HD-106906"]
    assert [len(a["products"][0]["members"]) for a in made.associations] == [8, 13]
    assert {p.name.rpartition("_")[2] for p, _ in made.unused} == {"psfmask.fits"}


def test_what_differs_in_mode_becomes_a_reduction_of_its_own(tmp_path):
    expose(tmp_path / "a_calints.fits")
    expose(tmp_path / "r_calints.fits", IS_PSF=True, TARGPROP="REF")
    changes = [
        {"DETECTOR": "NRCA2", "FILTER": "F210M"},
        {"PUPIL": "MASKBAR"},
        {"APERNAME": "NRCA5_MASK335R_NARROW"},
        {"shape": (9, 8)},
        {"TARGPROP": "HD-1"},
    ]
    for number, change in enumerate(changes):
        expose(tmp_path / f"b{number}_calints.fits", **change)
    made = build_associations([tmp_path])
    assert [kinds(a) for a in made if "a" in kinds(a)] == [{"a": "science", "r": "psf"}]
    assert sorted(name for a in made for name, kind in kinds(a).items() if kind == "science") == [
        "a", "b0", "b1", "b2", "b3", "b4"
    ]  # fmt: skip
    # A reference serves all targets of its mode, and nothing else.
    assert sum("r" in kinds(a) for a in made) == 2
    products = [a["products"][0]["name"] for a in made]
    assert len(set(products)) == len(products) == 6


@pytest.mark.parametrize(
    "keywords",
    [
        {"BKGDTARG": True},
        {"PATTTYPE": "BACKGROUND"},
        {"TARGPROP": "V-AU-MIC-BACKGROUND"},
        {"TARGPROP": "AUMIC-BKG2"},
        {"TARGPROP": "X", "TARGNAME": "AU Mic bkgd"},
        {"BKGDTARG": True, "IS_PSF": True},
    ],
)
def test_backgrounds_are_told_by_their_headers(tmp_path, keywords):
    expose(tmp_path / "a_calints.fits")
    expose(tmp_path / "b_calints.fits", **keywords)
    [made] = build_associations([tmp_path])
    assert kinds(made) == {"a": "science", "b": "background"}


def test_acquisitions_belong_to_their_target_and_are_no_science(tmp_path):
    expose(tmp_path / "a_calints.fits")
    expose(tmp_path / "t_cal.fits", EXP_TYPE="NRC_TACQ", FILTER="F335M", SUBARRAY="SUBNDA335R")
    expose(tmp_path / "c_cal.fits", EXP_TYPE="NRC_TACONFIRM")
    expose(tmp_path / "u_cal.fits", EXP_TYPE="NRC_TACQ", TARGPROP="OTHER")
    made = sort_exposures([tmp_path])
    assert kinds(made.associations[0]) == {
        "a": "science",
        "t": "target_acquisition",
        "c": "confirmation",
    }
    assert [p.name for p, _ in made.unused] == ["u_cal.fits"]


def test_links_folders_and_compressed_files_are_exposures_each_once(tmp_path):
    science = expose(tmp_path / "store" / "a_calints.fits")
    psf = expose(tmp_path / "deep" / "er" / "r_calints.fits", IS_PSF=True)
    with psf.open("rb") as raw, gzip.open(f"{psf}.gz", "wb") as packed:
        shutil.copyfileobj(raw, packed)
    psf.unlink()
    (tmp_path / "links").mkdir()
    os.symlink(science, tmp_path / "links" / "a_calints.fits")
    expose(tmp_path / "deep" / "a_cal.fits")  # the mean of the integrations of a_calints
    (tmp_path / "deep" / "notes.fits").write_text("no exposure")
    [made] = build_associations([tmp_path / "links", tmp_path / "deep"])
    assert kinds(made) == {"a": "science", "r": "psf"}
    asn = read_association(made)
    assert asn.science == (tmp_path / "links" / "a_calints.fits",)
    assert asn.psf == (tmp_path / "deep" / "er" / "r_calints.fits.gz",)
    assert kinds(build_associations([science, science, tmp_path / "links"])[0]) == {"a": "science"}
    expose(tmp_path / "copy" / "a_calints.fits")
    with pytest.raises(LyotError, match="share a name: one exposure is there twice"):
        build_associations([science, tmp_path / "copy"])


def test_backgrounds_without_a_name_are_those_nearest_in_time(tmp_path):
    backgrounds = {}
    for name, program, mjd in (("B1", "01184", 3.0), ("B2", "01184", 9.0), ("B3", "09999", 5.0)):
        keywords = {"TARGPROP": name, "BKGDTARG": True, "PROGRAM": program, "EXPSTART": mjd}
        path = expose(tmp_path / f"{name}_calints.fits", **keywords)
        backgrounds[path] = read_info(path)
    info = read_info(expose(tmp_path / "a_calints.fits", EXPSTART=5.0))
    assert [p.name[:2] for p in own_backgrounds(info, backgrounds)] == ["B1"]
    assert own_backgrounds(info, {}) == ()


def test_references_alone_make_no_association(tmp_path):
    psf = expose(tmp_path / "r_calints.fits", IS_PSF=True)
    with pytest.raises(LyotError, match="No exposure is a science target"):
        build_associations([psf])
    with pytest.raises(LyotError, match="No exposures were given"):
        build_associations([tmp_path / "deep"] if (tmp_path / "deep").mkdir() else [])

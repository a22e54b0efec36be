"""Files of a program are listed and fetched; a stub on this computer stands for the archive."""

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lyot.errors import LyotError
from lyot.files import archive
from scenes import assert_refused, lyot

EXPOSURES = {
    "jw01277019001_04101_00001_mirimage_calints.fits": ("HD-106906", "MIRI/CORON", "CALINTS"),
    "jw01277019001_04101_00001_mirimage_cal.fits": ("HD-106906", "MIRI/CORON", "CAL"),
    "jw01277022001_02101_00001_mirimage_calints.fits": ("HD-106906-BKG", "MIRI/CORON", "CALINTS"),
    "jw01277019001_02101_00001_mirimage_cal.fits": ("HD-106906", "MIRI/TARGACQ", "CAL"),
    "jw01277019001_04101_00001_mirimage_rateints.fits": ("HD-106906", "MIRI/CORON", "RATEINTS"),
    "jw01194015001_04101_00001_mirimage_calints.fits": ("HD-218261", "MIRI/CORON", "CALINTS"),
}
WANTED = sorted(
    name for name in EXPOSURES if "rateints" not in name and "01194" not in name
    and name != "jw01277019001_04101_00001_mirimage_cal.fits"
)  # fmt: skip


class StubArchive:
    """The interface of `astroquery.mast.Observations`, answered from a folder."""

    def __init__(self, folder):
        self.folder, self.downloads, self.broken = folder, [], {}
        for number, name in enumerate(EXPOSURES):
            data = np.full((4 + number, 16), 1.0, np.float32)
            fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]).writeto(
                folder / name
            )

    def query_criteria(self, *, obs_collection, proposal_id, instrument_name):
        assert obs_collection == "JWST"
        assert {"MIRI/CORON", "NIRCAM/CORON", "MIRI/TARGACQ"} <= set(instrument_name)
        rows = [
            {"obsid": str(k), "target_name": target, "instrument_name": mode, "dataRights": right}
            for k, ((target, mode, _), right) in enumerate(
                zip(EXPOSURES.values(), ["PUBLIC"] * 5 + ["EXCLUSIVE_ACCESS"], strict=True)
            )
            if "1277" in proposal_id
        ]
        return Table(rows) if rows else Table(names=["obsid"])

    def get_product_list(self, observations):
        kinds = dict(zip(map(str, range(9)), EXPOSURES.items(), strict=False))
        rows = []
        for row in observations:
            name, (_, _, kind) = kinds[str(row["obsid"])]
            size = (self.folder / name).stat().st_size
            rows.append(
                {
                    "obsID": row["obsid"],
                    "productFilename": name,
                    "productSubGroupDescription": kind,
                    "dataURI": f"mast:JWST/product/{name}",
                    "size": size,
                }
            )
        return Table(rows)

    def download_file(self, uri, *, local_path, cache):
        assert cache is False
        name = uri.rpartition("/")[2]
        self.downloads.append(name)
        how = self.broken.pop(name, "")
        if how == "error":
            return "ERROR", "HTTP 503", uri
        if how == "raise":
            raise ConnectionError("the line is dead")
        shutil.copy(self.folder / name, local_path)
        if how == "truncated":
            with open(local_path, "r+b") as file:
                file.truncate(3000)
        return "COMPLETE", None, None


@pytest.fixture
def stub(tmp_path, monkeypatch):
    (tmp_path / "archive").mkdir()
    made = StubArchive(tmp_path / "archive")
    monkeypatch.setitem(sys.modules, "astroquery", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "astroquery.mast", SimpleNamespace(Observations=made))
    return made


def test_what_a_run_needs_is_listed_and_nothing_else(stub):
    files = archive.list_program(1277)
    assert [f.name for f in files] == WANTED
    assert {f.target for f in files} == {"HD-106906", "HD-106906-BKG"}
    assert all(f.public and f.n_bytes == (stub.folder / f.name).stat().st_size for f in files)
    done = lyot("fetch", "1277", "--list")
    assert done.exit_code == 0, done.output
    assert "MIRI/TARGACQ" in done.stdout
    assert f"{len(WANTED)} files" in done.stdout
    assert json.loads(lyot("fetch", "1277", "--list", "--json").stdout)[0]["name"] == WANTED[0]
    assert not stub.downloads


def test_files_are_fetched_once_and_again_where_they_are_not_whole(stub, tmp_path):
    out = tmp_path / "out"
    done = lyot("fetch", "1277", "-o", out)
    assert done.exit_code == 0, done.output
    assert f"{len(WANTED)} fetched" in done.stdout
    for name in WANTED:
        assert (out / name).read_bytes() == (stub.folder / name).read_bytes()
    stub.downloads.clear()
    assert "3 present" in lyot("fetch", "1277", "-o", out).stdout
    assert not stub.downloads
    # One is gone, one cut off, one changed though its size is the same.
    (out / WANTED[0]).unlink()
    (out / WANTED[1]).write_bytes((out / WANTED[1]).read_bytes()[:-2880])
    content = bytearray((out / WANTED[2]).read_bytes())
    content[-5000] ^= 1
    (out / WANTED[2]).write_bytes(content)
    assert "3 fetched" in lyot("fetch", "1277", "-o", out).stdout
    assert stub.downloads == WANTED
    assert (out / WANTED[2]).read_bytes() == (stub.folder / WANTED[2]).read_bytes()


@pytest.mark.parametrize("how", ["error", "raise", "truncated"])
def test_what_fails_leaves_no_file_and_the_rest_is_fetched(stub, tmp_path, how):
    out = tmp_path / "out"
    stub.broken[WANTED[1]] = how
    done = lyot("fetch", "1277", "-o", out)
    assert_refused(done, "1 files were not fetched; start it again")
    assert sorted(p.name for p in out.glob("*.fits")) == [WANTED[0], WANTED[2]]
    stub.downloads.clear()
    assert lyot("fetch", "1277", "-o", out).exit_code == 0
    assert stub.downloads == [WANTED[1]]


def test_programs_without_coronagraphy_and_a_dead_archive_are_said(stub, monkeypatch):
    with pytest.raises(LyotError, match="no coronagraphic observation of program 99"):
        archive.list_program(99)

    def _dead(**_):
        raise TimeoutError

    monkeypatch.setattr(stub, "query_criteria", _dead, raising=False)
    with pytest.raises(LyotError, match=r"does not answer \(TimeoutError\); check the network"):
        archive.list_program(1277)


def test_a_missing_astroquery_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "astroquery", None)
    monkeypatch.setitem(sys.modules, "astroquery.mast", None)
    assert_refused(lyot("fetch", "1277"), "pip install 'lyot[fetch]'")

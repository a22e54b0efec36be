"""What the tests on real data share: AU Mic as the pipeline reduces it by default."""

import pytest

from lyot.files.association import FOLDER_KEY
from lyot.files.sorting import build_associations
from lyot.pipeline import Coron3Pipeline


@pytest.fixture(scope="session")
def aumic_run(data_dir, tmp_path_factory):
    """Return the folder of the products of AU Mic, both rolls, with six references."""
    folder, files = tmp_path_factory.mktemp("aumic"), data_dir / "aumic_f444w"
    [asn] = build_associations(sorted(files.glob("*_calints.fits")))
    pipeline = Coron3Pipeline()
    pipeline.output_dir = str(folder)
    pipeline.run(asn | {FOLDER_KEY: str(files)})
    return folder

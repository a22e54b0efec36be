"""What the tests of the steps share: a science exposure and the stack of its references."""

import pytest
from stdatamodels.jwst import datamodels

from lyot.steps import StackRefsStep


@pytest.fixture
def files(small):
    science = sorted(small.parent.glob("jw09999001*"))
    psf = sorted(small.parent.glob("jw09999002*"))
    return [str(p) for p in science], [str(p) for p in psf]


@pytest.fixture
def target(files):
    with datamodels.CubeModel(files[0][0]) as model:
        yield model


@pytest.fixture(scope="session")
def psfstack(small):
    return StackRefsStep.call(str(small), save_results=False)

"""What the tests of files share."""

import pytest


@pytest.fixture
def exposure(small):
    """Return the path of a small simulated exposure."""
    return min(small.parent.glob("*_calints.fits"))

"""Reports without the drawing of their figures, which takes longer than a toy's whole run."""

from unittest import mock

import pytest

from sparse_ad.report import figures


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Every figure is made and written, as no picture: for tests that look at none."""
    with mock.patch.object(figures, "render", return_value=b"not drawn"):
        yield

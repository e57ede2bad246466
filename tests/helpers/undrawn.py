"""Reports without the drawing of their figures, which takes longer than a toy's whole run."""

from unittest import mock

import pytest

from sparse_ad.report import figures


def not_drawn():
    """Within it every figure is made and written, as no picture: for tests that look at none."""
    return mock.patch.object(figures, "render", return_value=b"not drawn")


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Draws no figure in any test of a module that imports this."""
    with not_drawn():
        yield

"""Loops over images."""

import numpy as np
import pytest

from sparse_ad.batching import in_groups


@pytest.mark.parametrize("size", [1, 3])
def test_groups_have_one_shape_and_padding_is_cut(size):
    seen = []

    def function(group):
        seen.append(group["x"].shape)
        return {"sum": group["x"].sum(-1) + group["y"], "twice": 2.0 * group["x"]}

    for count in (1, 2, 3, 7):
        x = np.arange(2.0 * count, dtype=np.float32).reshape(count, 2)
        y = np.arange(count, dtype=np.float32)
        found = in_groups(function, {"x": x, "y": y}, size)
        np.testing.assert_array_equal(found["sum"], x.sum(-1) + y)
        np.testing.assert_array_equal(found["twice"], 2.0 * x)
    assert set(seen) == {(size, 2)}

"""Splits: groups stay whole, the order of the input does not matter, seeds do."""

import os

import pytest

from sparse_ad.data.split import (
    draw,
    draw_anomalous,
    draw_order,
    hold_out,
    split_groups,
    split_images,
    split_test,
)
from sparse_ad.errors import UserError
from sparse_ad.types import Example


def make(count: int, per_group: int, label=0) -> list[Example]:
    return [
        Example(b"", label, "good", None, f"group {index // per_group}", f"{label}/{index}")
        for index in range(count)
    ]


@pytest.mark.parametrize("per_group", [1, 3, 7])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_groups_never_straddle_and_nothing_is_lost(per_group, fraction):
    examples = make(60, per_group)
    kept, held = hold_out(examples, fraction, 3, "calibration")
    assert kept and held
    assert not {e.group for e in kept} & {e.group for e in held}
    assert sorted(kept + held) == sorted(examples)
    if 0.1 < fraction < 0.9:
        assert fraction * 60 - 1 <= len(held) < fraction * 60 + per_group


def test_order_does_not_matter_but_seed_and_purpose_do():
    examples = make(40, 2)
    held = [
        {e.path for e in hold_out(e_list, 0.25, seed, purpose)[1]}
        for e_list, seed, purpose in [
            (examples, 0, "test"),
            (examples[::-1], 0, "test"),
            (examples, 1, "test"),
            (examples, 0, "calibration"),
        ]
    ]
    assert held[0] == held[1]
    assert held[0] != held[2]
    assert held[0] != held[3]


def test_one_group_cannot_be_split():
    with pytest.raises(UserError, match=r"6 normal images in 1 group.*calibration"):
        hold_out(make(6, 6), 0.2, 0, "calibration")


def test_anomalous_images_of_training_groups_are_left_out():
    train, test = split_test(make(40, 4) + make(60, 4, label=1), 0.25, 0)
    assert {e.label for e in train} == {0}
    assert not {e.group for e in train} & {e.group for e in test}
    # Groups 10 to 14 have no normal images: all of their anomalous ones are in the test set.
    assert {f"group {index}" for index in range(10, 15)} < {e.group for e in test}
    assert sum(e.label == 0 for e in test) == 12  # whole groups of 4, to reach 10


def test_draw_keeps_order_and_nests():
    examples = make(30, 1)
    few, more = draw(examples, 5, 0), draw(examples, 10, 0)
    assert len(few) == 5 and len(draw(examples, 99, 0)) == 30
    assert set(few) < set(more)
    assert list(few) == sorted(few, key=examples.index)


@pytest.mark.parametrize("split", [split_groups, split_images])
def test_what_is_drawn_depends_on_the_seed_alone(split):
    examples = make(40, 4) + make(60, 4, label=1)
    drawn = [
        {e.path for e in split(given, 7, seed)[0]}
        for given, seed in [(examples, 0), (examples[::-1], 0), (examples, 1)]
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_groups_are_counted_and_their_anomalous_images_unused():
    examples = make(40, 4) + make(60, 4, label=1)
    train, test = split_groups(examples, 7, 0)
    trained = {e.group for e in train}
    assert len(trained) == 7 and len(train) == 28 and {e.label for e in train} == {0}
    assert test == tuple(e for e in examples if e.group not in trained)
    # Groups without normal images are not drawn: they are all in the test set.
    assert len({e.group for e in test}) == 15 - 7


def test_images_are_counted_and_groups_may_straddle():
    examples = make(40, 4) + make(6, 4, label=1)
    train, test = split_images(examples, 10, 0)
    assert sorted(train + test) == sorted(examples)
    assert [e.label for e in test] == [0] * 10 + [1] * 6
    assert {e.group for e in train} & {e.group for e in test}
    with pytest.raises(UserError, match="40 normal images: 40 of them are for the test"):
        split_images(examples, 40, 0)


def test_kinds_are_drawn_apart_and_nest():
    kinds = [e._replace(kind=f"kind {i % 3}") for i, e in enumerate(make(30, 1, label=1)[:-4])]
    examples = make(5, 1) + kinds
    few, more, each = (draw_anomalous(examples, count, 0) for count in (4, 9, 0))
    assert [sum(e.kind == f"kind {k}" for e in few) for k in range(3)] == [4, 4, 4]
    assert [sum(e.kind == f"kind {k}" for e in more) for k in range(3)] == [9, 9, 8]
    assert few[:5] == tuple(examples[:5]) and list(few) == sorted(few, key=examples.index)
    assert set(few) < set(more) == set(each) == set(examples)
    assert set(few) != set(draw_anomalous(examples, 4, 1))


def test_a_name_that_is_not_utf_8_has_its_place():
    names = ["a", os.fsdecode(b"bl\xe4ue.png"), "b"]
    assert sorted(draw_order(names, 0, "x")) == sorted(names)
    assert [each for each in draw_order(names, 0, "x") if each in "ab"] == draw_order("ab", 0, "x")

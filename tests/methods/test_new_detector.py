"""Adding a detector takes its options class and a line in METHODS: a toy passes the contract."""

from functools import cache
from unittest import mock

import pytest
from helpers.contract import Case, Fit, checks_of
from helpers.toy import ToyDetector

from sparse_ad.errors import FieldError
from sparse_ad.methods import METHODS
from sparse_ad.options import describe, read, section

TOY = {"toy": ToyDetector}


@cache
def fitted(case: Case) -> Fit:
    return Fit(case)


def toy_case() -> Case:
    """Through a config and back, as a run builds it."""
    with mock.patch.dict(METHODS, TOY):
        config = section(ToyDetector(rate=0.25), METHODS)
        assert config.name == "toy"
        options = read(METHODS, config, "method")
    return Case(
        options, views=("reconstruct",), grid=True, draws=False, spots="bright", near=2.0, gain=1.0
    )


@pytest.mark.parametrize("check", checks_of(toy_case()), ids=lambda check: check.__name__[6:])
def test_a_new_detector_passes_the_contract(check):
    check(fitted(toy_case()))


def test_its_options_are_checked_as_all_are():
    with mock.patch.dict(METHODS, TOY):
        with pytest.raises(FieldError, match=r"^method\.rate = 0\.0: must be in \(0, 1\]"):
            read(METHODS, {"name": "toy", "rate": 0.0}, "method")
        with pytest.raises(
            FieldError, match=r"^method\.rates = 1: no such field; did you mean rate"
        ):
            read(METHODS, {"name": "toy", "rates": 1}, "method")
        with pytest.raises(FieldError, match=r"^method\.components = 3: is a field of pca"):
            read(METHODS, {"name": "toy", "components": 3}, "method")


def test_its_options_are_described():
    meanings = {option.path: option.meaning for option in describe(ToyDetector())}
    assert meanings["rate"] == "weight of a new batch in the mean image"
    assert all(meanings.values())

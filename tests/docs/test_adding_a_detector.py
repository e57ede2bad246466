"""The example of docs/adding_a_detector.md runs as it stands there, and passes the contract."""

import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from helpers import contract

from sparse_ad import methods
from sparse_ad.errors import FieldError
from sparse_ad.experiment import Experiment, read_experiment
from sparse_ad.options import describe
from sparse_ad.types import Features

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "adding_a_detector.md").read_text("utf-8")
NAME = "value_range"
MODULE = f"sparse_ad.methods.{NAME}"


class Example(NamedTuple):
    """What the blocks of the page make."""

    module: Any
    config: Any
    cases: dict[str, contract.Case]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example, a part of the package while the tests of this module run."""
    module, config, cases = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    folder = tmp_path_factory.mktemp("methods")
    (folder / f"{NAME}.py").write_text(module, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
        module = importlib.import_module(MODULE)
        for name, kind in re.findall(r'`"(\w+)": (\w+),` to `METHODS`', PAGE):
            patch.setitem(methods.METHODS, name, getattr(module, kind))
        names = {**vars(contract), **vars(module), "CASES": {}}
        yield Example(module, run(config)["get_config"](), run(cases, names)["CASES"])
    del sys.modules[MODULE], vars(methods)[NAME]


def run(block: str, names: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Returns what a block of the page defines, which may use the names."""
    defined = dict(names)
    exec(block, defined)
    return defined


def test_the_page_names_its_files():
    for path in (f"sparse_ad/methods/{NAME}.py", f"configs/{NAME}.py"):
        assert f"`{path}`" in PAGE


def test_its_config_chooses_it(example):
    expected = Experiment(NAME, method=example.module.ValueRange())
    assert read_experiment(example.config) == expected
    assert example.config.method.name == NAME
    config = example.config.to_dict()
    config["method"]["margin"] = -1.0
    with pytest.raises(FieldError, match=r"^method\.margin = -1\.0: must be 0 or more"):
        read_experiment(config)
    assert all(option.meaning for option in describe(expected.method))


def test_it_passes_the_contract(example):
    assert example.cases
    for case in example.cases.values():
        assert type(case.options) is methods.METHODS[NAME]
        fit = contract.Fit(case)
        for check in contract.checks_of(case):
            check(fit)


class Cut(NamedTuple):
    """Pixels less their border."""

    def build(self, size) -> Features:
        return Features(lambda images: {"cut": images[:, 4:-4, 4:-4]}, "cut", border=4)


def test_a_border_that_was_cut_is_put_back(example):
    """Else the map would be stretched, and errors would not lie where the image has them."""
    first, *_ = example.cases.values()
    fit = contract.Fit(first._replace(features=Cut()))
    images = fit.images(0)
    images[0, 7, 15] = 2.0
    anomaly_map = fit.score(images).map[0]
    assert anomaly_map[7, 15] > 0.0 and (anomaly_map > 0.0).sum() == 1

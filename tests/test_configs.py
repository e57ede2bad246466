"""Every config and study is made of options that there are, and every detector of them builds."""

import importlib
from dataclasses import replace

import jax
import pytest
from helpers.contract import thin_backbones as thin_backbones  # a fixture

from sparse_ad.experiment import Experiment, read_experiment
from sparse_ad.options import describe, read, section
from sparse_ad.studies.grid import Study, list_cells
from sparse_ad.system.command_line import list_configs, load_config, load_experiment


def variants(pattern: str) -> list[str]:
    """Every config file, with each of its variants."""
    names = []
    for name in list_configs(pattern):
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
        names += [f"{name}:{each}" for each in getattr(module, "VARIANTS", ())] or [name]
    return [name for name in names if "of_workdir" not in name]


CONFIGS, STUDIES = variants("*.py"), variants("studies/*.py")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_builds(name):
    """At a size at which its detector still fits: to the shapes of its state, nothing is fitted."""
    experiment = load_experiment(name)
    exact = experiment.at(experiment.data.exact or experiment.data.size * 2)
    setup = exact.setup(exact.build())
    assert jax.tree.leaves(setup.state_like())
    assert read_experiment(section(experiment)) == experiment
    assert name.partition(":")[0].rpartition("/")[2].removesuffix(".py") in experiment.name


@pytest.mark.parametrize("name", CONFIGS)
def test_every_option_says_what_it_means(name):
    for option in describe(load_experiment(name)):
        assert option.meaning and not option.meaning.endswith("."), option.path


def test_the_default_config_is_the_default_experiment():
    assert load_experiment("configs/base.py") == replace(Experiment(), name="base")


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_of_every_study_is_an_experiment(name, tmp_path):
    study = read(Study, load_config(name, ["root=/data"]))
    cells = list_cells(study, tmp_path)
    rows, blocks = study.only_rows or study.rows, study.only_blocks or study.blocks
    assert len(cells) == len(rows) * len(blocks) * len(study.seeds)
    assert len({cell.workdir for cell in cells}) == len(cells)

"""Every command of a record runs with today's options."""

import importlib
import re
import shlex

import pytest

from docs import commands, write
from sparse_ad.experiment import Experiment, read_experiment
from sparse_ad.options import read
from sparse_ad.studies.grid import Study
from sparse_ad.system.command_line import load_config

RECORDS = write.records_of(write.RESULTS)
RUNS = [path for path in RECORDS if path.parent.name != "benchmarks"]
REMOVED = [path for path in RECORDS if commands.is_removed(path)]
BENCHMARKS = [path for path in RECORDS if path.parent.name == "benchmarks" and path not in REMOVED]


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", RUNS, ids=name_of)
def test_a_run_has_a_config_of_today(path):
    program, script, *flags = shlex.split(commands.command_of(path))
    assert (program, script) == ("python", "launch.py")
    values = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
    changes = [flag[9:] for flag in flags if flag.startswith("--config.")]
    config = load_config(values.get("config", "configs/quickstart.py"), changes)
    if values.get("mode") == "study":
        assert isinstance(read(Study, config), Study)
    else:
        assert isinstance(read_experiment(config), Experiment)


@pytest.mark.parametrize("path", BENCHMARKS, ids=name_of)
def test_a_benchmark_is_a_module_of_today(path):
    program, flag, module = commands.command_of(path).split()[:3]
    assert (program, flag) == ("python", "-m")
    assert importlib.util.find_spec(module)


@pytest.mark.parametrize("path", REMOVED, ids=name_of)
def test_of_a_removed_program_the_commit_is_named_that_has_it(path):
    command = commands.shown(path)
    assert re.fullmatch(r"at commit [0-9a-f]{7}: `python benchmarks/\w+\.py .*`", command)
    assert not (write.ROOT / command.split()[4]).exists()

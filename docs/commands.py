"""The commands that made the records: as they are given today, or of a removed program, as then."""

import shlex
from pathlib import Path
from typing import Any

from sparse_ad.report.tables import markdown as table
from sparse_ad.system.files import read_json

RENAMED = {  # what a record was made with -> its form of today
    "--config.method.solver=lasso": (
        "--config.method.coder.name=lasso --config.method.coder.max_steps=200"
    ),
    "--config.method.solver=exact_l0": "--config.method.coder.name=exact_l0",
    "--config.method.scale=patch": "--config.method.normalise.scale=patch",
}
PATCH_AXIS = "--config.method.dictionary_axis=patch"  # a detector of its own today
VARIANT = "configs/mlf_sc.py:published_code"
PARTS = ("only ", "sets ")  # flags of a record that was made in parts: the command makes all
REMOVED = ("benchmarks/choose_mlf_sc.py",)  # programs whose records stay


def is_removed(path: Path) -> bool:
    """Whether the program that made a record is there no more."""
    return read_json(path, dict[str, Any])["environment"]["command"].startswith(REMOVED)


def command_of(path: Path) -> str:
    """Returns the command that makes a record: paths of data and weights are relative."""
    script, *arguments = read_json(path, dict[str, Any])["environment"]["command"].split(" --")
    flags = [
        RENAMED.get(f"--{argument}", quoted(f"--{argument}"))
        for argument in arguments
        if not argument.startswith(PARTS)
    ]
    if PATCH_AXIS in flags:
        flags.remove(PATCH_AXIS)
        flags = [flag.replace(VARIANT, f"{VARIANT}_2020") for flag in flags]
    folder, _, name = script.removesuffix(".py").rpartition("/")
    package = folder.replace("...", "benchmarks")
    program = f"-m {package}.{name}" if folder else script
    return " ".join(["python", program, *flags]).replace("=.../", "=runs/")


def quoted(flag: str) -> str:
    """Returns a flag with its value quoted for a shell, if it is not yet."""
    name, equals, value = flag.partition("=")
    return flag if "'" in flag or not equals else f"{name}={shlex.quote(value)}"


def commands_table(paths: list[Path], results: Path) -> str:
    """Returns a table of the records below the folder `results` and their commands."""
    rows = [(path.relative_to(results).as_posix(), shown(path)) for path in paths]
    return table(("record", "command"), rows)


def shown(path: Path) -> str:
    """Returns the command of a record as Markdown; of a removed program, with its last commit."""
    if not is_removed(path):
        return f"`{command_of(path)}`"
    environment = read_json(path, dict[str, Any])["environment"]
    return f"at commit {environment['commit']['id'][:7]}: `python {environment['command']}`"

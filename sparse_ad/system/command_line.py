"""The command line: which config is meant, what a wrong flag is told, how the log looks."""

import difflib
import logging
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from sparse_ad.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = "configs/quickstart.py"


def add_config(argv: list[str]) -> list[str]:
    """Returns argv with the config file as its first flag, found from any folder.

    Without --config: evaluate and predict take the one that --workdir was fitted with, everything
    else the quickstart. Raises: UserError where that file or workdir is missing.
    """
    given, rest = take_flag(argv[1:], "config")
    mode, workdir = (take_flag(argv[1:], name)[0] for name in ("mode", "workdir"))
    if given is None and mode in ("evaluate", "predict"):
        from sparse_ad.system.workdir import __file__ as reader
        from sparse_ad.system.workdir import read_config

        folder = workdir or "runs/quickstart"
        read_config(Path(folder))
        return [argv[0], f"--config={reader}:{folder}", *rest]
    return [argv[0], f"--config={find_config(given or QUICKSTART)}", *rest]


def take_flag(arguments: list[str], name: str) -> tuple[str | None, list[str]]:
    """Returns the value of a flag, given as --name=value or --name value, and the other ones."""
    value, rest, left = None, [], iter(arguments)
    for argument in left:
        flag, equals, given = argument.partition("=")
        if flag in (f"-{name}", f"--{name}"):
            value = given if equals else next(left, "")
        else:
            rest.append(argument)
    return value, rest


def find_config(given: str) -> str:
    """Returns the path of a config file: as given, or in the repository's folder."""
    name, colon, variant = given.partition(":")
    for path in (Path(name), ROOT / name):
        if path.is_file():
            return f"{path}{colon}{variant}"
    files = sorted(ROOT.glob("configs/*.py")) + sorted(ROOT.glob("configs/studies/*.py"))
    choices = ", ".join(str(path.relative_to(ROOT)) for path in files)
    raise UserError(f"--config = {given!r}: no such file; choose one of {choices}")


def load_config(given: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """Returns the config that --config=`given` and a --config.`override` for each would make.

    Raises: UserError for a file, field or value that is wrong, as on the command line.
    """
    fields = [f"--config.{override}" for override in overrides]
    argv = ["launch.py", f"--config={find_config(given)}", *fields]
    values = flags.FlagValues()  # apart from those of this process
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    check_fields(argv, values["config"].parser.parse)
    try:
        values(argv)
    except flags.Error as error:
        raise UserError(str(error)) from error
    return values["config"].value


def check_fields(argv: list[str], load: Callable[[str], Any]) -> None:
    """Raises UserError for a --config.field that the config (argv[1]) does not have."""
    try:
        config = load(argv[1].partition("=")[2])
    except UserError as error:  # the loader puts a traceback around what the config file raised
        raise (error.__context__ if isinstance(error.__context__, UserError) else error) from None
    fields = list(_fields(config.to_dict()))
    for argument in argv[2:]:
        found = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if found and found[1] not in fields:
            near = _nearest(found[1], fields)
            remedy = f"did you mean --config.{near}?" if near else "configs/base.py lists them all"
            raise UserError(f"--config.{found[1]}: unknown config field; {remedy}")


def _fields(tree: dict[str, Any], prefix: str = "") -> Iterable[str]:
    """Yields the dotted names of a config's fields and sections."""
    for name, value in tree.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")


def _nearest(name: str, fields: list[str]) -> str | None:
    """Returns the field most like `name`, of all sections if its own has none alike."""
    if near := difflib.get_close_matches(name, fields, 1, 0.8):
        return near[0]
    last = {field.rpartition(".")[2]: field for field in reversed(fields)}
    near = difflib.get_close_matches(name.rpartition(".")[2], last, 1, 0.6)
    return last[near[0]] if near else None


def set_up_log() -> None:
    """Shows what sparse_ad says, above any progress bar, and nothing that libraries say by absl."""
    absl_logging.set_verbosity(absl_logging.FATAL)  # what matters is raised
    log = logging.getLogger("sparse_ad")
    log.handlers = [_BesideBars()]
    log.handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.setLevel(logging.INFO)
    log.propagate = False


class _BesideBars(logging.StreamHandler):
    """Writes a line without tearing the progress bar that is on the screen."""

    def emit(self, record: logging.LogRecord) -> None:
        _clear_bars()
        super().emit(record)


def tell(message: str) -> None:
    """Writes one line to stderr, whatever line breaks the message has."""
    _clear_bars()
    print(" ".join(message.split()), file=sys.stderr)


def _clear_bars() -> None:
    """Wipes the bars off the screen; they come back with their next update."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.clear()

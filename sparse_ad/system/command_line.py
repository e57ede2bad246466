"""The command line: which config is meant, what a wrong flag is answered, how the log looks."""

import difflib
import importlib
import logging
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import config_path
from ml_collections.config_flags.config_flags import ConfigFileFlagParser
from tqdm import tqdm

from sparse_ad.errors import FieldError, UserError
from sparse_ad.experiment import Experiment, read_experiment
from sparse_ad.options import describe, find_kinds, switch
from sparse_ad.system.names import printable

QUICKSTART = "configs/quickstart.py"
OF_WORKDIR = "configs/of_workdir.py"
DEFAULT_WORKDIR = "runs/quickstart"
OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)(?:=(.*))?", re.DOTALL)


class ConfigParser(ConfigFileFlagParser):
    """Loads a config file, with the kinds of its sections as the overrides in argv want them.

    --config.data.name=elpv makes the section `data` one of ELPV: with the fields of that source,
    which keep the values of those fields that both sources have. Other sections begin with the
    defaults of the new kind: 200 atoms of one detector are no good choice for another.
    """

    def __init__(self, argv: Sequence[str]):
        super().__init__("config")
        self.argv = argv

    def parse(self, path: str) -> ConfigDict:
        try:
            config: Any = super().parse(path)
        except (TypeError, ValueError) as error:
            if isinstance(error.__context__, UserError):  # the loader puts a traceback around it
                raise error.__context__ from None
            if path.partition(":")[2] and "get_config() takes 0" in str(error):
                raise UserError(f"--config = {path!r}: this config has no variants") from None
            raise
        except (AttributeError, ImportError, SyntaxError) as error:
            raise UserError(f"--config = {path!r}: {_no_config(path, error)}") from error
        if "method" in config:  # not a study
            switch_kinds(config, self.argv)
        return config


def _no_config(path: str, error: Exception) -> str:
    """Returns why a file could not be loaded as a config."""
    remedy = "give a file of configs/ or the config.json of a workdir"
    if isinstance(error, AttributeError) and "get_config" not in str(error):
        return f"cannot be loaded ({error}); {remedy}"
    if isinstance(error, AttributeError) or not path.partition(":")[0].endswith(".py"):
        return f"is no config; {remedy}"
    return f"cannot be loaded ({type(error).__name__}: {error}); {remedy}"


def switch_kinds(config: ConfigDict, argv: Sequence[str]) -> None:
    """Gives each section the kind that an override --config.SECTION.name=KIND in argv asks for.

    Raises: FieldError for a kind that there is not.
    """
    for field, value in overrides(argv):
        path, _, last = field.rpartition(".")
        kinds = find_kinds(Experiment, config, path) if last == "name" and path else None
        if kinds:
            parent, _, name = path.rpartition(".")
            section: Any = config
            for part in filter(None, parent.split(".")):
                section = section[part]
            if value != section[name].get("name"):
                kept = section[name] if path == "data" else {}
                try:
                    section[name] = switch(kept, kinds, value)
                except FieldError as error:
                    raise FieldError(field, value, error.remedy) from error


def overrides(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields field and value of each --config.FIELD=VALUE, or --config.FIELD VALUE."""
    for index, argument in enumerate(argv):
        match = OVERRIDE.match(argument)
        if match:
            following = argv[index + 1] if index + 1 < len(argv) else ""
            yield match[1], following if match[2] is None else match[2]


def add_config(argv: list[str]) -> list[str]:
    """Returns argv with the config file as its first flag, found from any folder.

    Without --config: evaluate and predict take the one that --workdir was fitted with, everything
    else the quickstart. Raises: UserError where that file or workdir is missing.
    """
    given, rest = take_flag(argv[1:], "config")
    mode, workdir = (take_flag(argv[1:], name)[0] for name in ("mode", "workdir"))
    if given is None and mode in ("evaluate", "predict"):
        if workdir is None and not Path(f"{DEFAULT_WORKDIR}/config.json").exists():
            raise UserError("--workdir: is missing; give the folder of a run that was fitted")
        given = f"{OF_WORKDIR}:{workdir or DEFAULT_WORKDIR}"
    return [argv[0], f"--config={find_config(given or QUICKSTART)}", *rest]


def check_words(argv: Sequence[str], words: Sequence[str], modes: Sequence[str]) -> None:
    """Raises UserError where words in argv belong to no flag, with the command that was meant.

    Words beside --input are more images to predict.
    """
    rest = list(argv[1:])
    folder, mode = (take_flag(rest, name)[0] for name in ("input", "mode"))
    if not words or (folder is not None and mode == "predict"):
        return
    for word in words:
        del rest[len(rest) - 1 - rest[::-1].index(word)]  # the last: one before may be a value
    if folder is not None and not mode:
        problem, rest = "is no flag; the mode is missing", ["--mode=predict", *rest, *words]
    elif not mode and words[0] in modes:
        problem, rest = "a mode is a flag", [f"--mode={words[0]}", *rest]
    else:
        problem = "is no flag (--help lists them)"
    raise UserError(f"{words[0]!r}: {problem}; give: {shlex.join(['launch.py', *rest])}")


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


def config_folder() -> Path:
    """Returns the folder of the configs, which stand beside launch.py."""
    return Path(next(iter(importlib.import_module("configs").__path__)))


def list_configs(pattern: str = "*.py") -> list[str]:
    """Returns the config files that fit a pattern below the folder of the configs."""
    folder = config_folder()
    names = sorted(path.relative_to(folder.parent).as_posix() for path in folder.glob(pattern))
    others = ("__init__.py", "base.py", "of_workdir.py")
    return [name for name in names if not name.endswith(others)]


def find_config(given: str) -> str:
    """Returns the path of a config file: as given, or relative to the folder of launch.py.

    The config.json of a workdir is one, too: `configs/of_workdir.py` reads it.
    """
    if given.endswith(".json") and Path(given).is_file():
        return find_config(f"{OF_WORKDIR}:{given}")
    name, colon, variant = given.partition(":")
    for path in (Path(name), config_folder().parent / name):
        if path.is_file():
            return f"{path}{colon}{variant}"
    choices = ", ".join(list_configs() + list_configs("studies/*.py"))
    raise UserError(f"--config = {given!r}: no such file; choose one of {choices}")


def load_config(given: str, changes: Iterable[str] = ()) -> ConfigDict:
    """Returns the config that --config=`given` and --config.`change` for each change would make.

    Raises: UserError for a file, field or value that is wrong, as on the command line.
    """
    fields = [f"--config.{change}" for change in changes]
    argv = ["launch.py", f"--config={find_config(given)}", *fields]
    values = flags.FlagValues()  # separate from those of this process
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values["config"].parser = ConfigParser(argv)
    check_fields(argv)
    try:
        values(argv)
    except flags.Error as error:
        raise UserError(str(error)) from error
    config: Any = values["config"].value
    return config


def load_experiment(given: str, changes: Iterable[str] = ()) -> Experiment:
    """Returns the experiment of a config file and changes of it. Raises: as `load_config`."""
    return read_experiment(load_config(given, changes))


def check_fields(argv: list[str]) -> None:
    """Raises UserError for a --config.FIELD that the config (argv[1]) does not have."""
    config = ConfigParser(argv).parse(argv[1].partition("=")[2])
    fields = list(_fields(config.to_dict()))
    for field, _ in overrides(argv[2:]):
        if field not in fields:
            remedy = _remedy(field, fields, config)
            raise UserError(f"--config.{field}: unknown config field; {remedy}")


def keep_last(argv: list[str]) -> list[str]:
    """Returns argv with the last --config.FIELD=VALUE alone of each field of a run that is a tuple.

    Their values would add up, as those of a study do, whose fields are lists.
    """
    config = ConfigParser(argv).parse(argv[1].partition("=")[2])
    if "method" not in config:  # a study
        return argv
    kept, seen, right = [], set(), len(argv)
    for index in range(len(argv) - 1, -1, -1):
        match = OVERRIDE.match(argv[index])
        if match and isinstance(config_path.get_value(match[1], config), tuple):
            words = argv[index : right if match[2] is None else index + 1]
            words, rest = words[:2], argv[index + len(words[:2]) : right]
            kept = ([] if match[1] in seen else words) + rest + kept
            seen.add(match[1])
            right = index
    return argv[:right] + kept


def _remedy(field: str, fields: list[str], config: ConfigDict) -> str:
    """Returns what to say of a field that the config does not have."""
    path, _, last = field.rpartition(".")
    while path and "method" in config:
        kinds = find_kinds(Experiment, config, path)
        below = field.removeprefix(f"{path}.")
        owners = [name for name, kind in (kinds or {}).items() if below in _paths(kind)]
        if owners:
            return f"it is a field of {path}.name = {' or '.join(owners)}"
        path = path.rpartition(".")[0]
    if near := difflib.get_close_matches(field, fields, 1, 0.8):
        return f"did you mean --config.{near[0]}?"
    names = {known.rpartition(".")[2]: known for known in reversed(fields)}
    near = difflib.get_close_matches(last, names, 1, 0.6)
    if near:
        return f"did you mean --config.{names[near[0]]}?"
    return "--help lists them all"


def _paths(kind: type) -> set[str]:
    return {option.path for option in describe(kind())}


def _fields(tree: dict[str, Any], prefix: str = "") -> Iterable[str]:
    """Yields the dotted names of a config's fields and sections."""
    for name, value in tree.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _fields(value, f"{prefix}{name}.")


def format_options(options: Any) -> str:
    """Returns every field of an experiment or study, its value and its meaning, for --help."""
    return "\n".join(
        f"  --config.{option.path}={option.default!r}\n      {option.meaning}"
        for option in describe(options)
    )


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
    print(printable(" ".join(message.split())), file=sys.stderr)


def _clear_bars() -> None:
    """Wipes the bars off the screen; they come back with their next update."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.clear()


def require_kind(config: ConfigDict, study: bool) -> None:
    """Raises UserError unless `config` is that of a study, or that of a run, as is wanted."""
    if study and "rows" not in config:
        files = ", ".join(list_configs("studies/*.py"))
        raise UserError(f"--mode=study: {config.name} is no study; give --config= one of {files}")
    if not study and "rows" in config:
        raise UserError(f"--config: {config.name} is a study; run it by --mode=study")

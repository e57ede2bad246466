"""Trains, evaluates and applies image anomaly detectors.

  python launch.py                                     the quickstart
  python launch.py --config=configs/sparse_patches.py --config.data.root=DIR
  python launch.py --mode=predict --workdir=DIR --input=FOLDER
  python launch.py --mode=study --config=configs/studies/zhao_karray.py --config.root=DIR

--mode=run fits, evaluates and reports; fit, evaluate and predict do one part, the last two with
the config that the workdir was fitted with. Every field of a config can be set, for example
--config.method.penalty=0.5; configs/base.py lists fields and defaults. A run that was stopped
goes on when the same command is given again.

--mode=study runs a grid of configs, data and seeds, a cell after the other, and writes one table of
all, beside the published figures: WORKDIR/study.md, study.html and study.json. It goes on in the
same way: finished cells are left alone. configs/studies/base.py lists its fields; a field of the
cells is set by --config.overrides, for example --config.overrides=fit.passes=2.
"""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from sparse_ad.errors import UserError
from sparse_ad.system.command_line import add_config, check_fields, set_up_log, tell
from sparse_ad.system.signals import Stopped, end_cleanly

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: a file of configs/. Default: configs/quickstart.py."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where results go. Default: runs/NAME.")
MODES = ("run", "fit", "evaluate", "predict", "study")
MODE = flags.DEFINE_enum("mode", "run", MODES, "What to do.")
INPUT = flags.DEFINE_string("input", None, "predict: the folder of images to score.")
OUTPUT = flags.DEFINE_string("output", None, "predict: default WORKDIR/predictions.")
RECORD = flags.DEFINE_string(
    "record", None, "A file that is given a copy of results.json or study.json."
)


def main(_) -> None:
    # after the flags: --help need not wait for JAX
    from sparse_ad import stages
    from sparse_ad.studies import run as studies
    from sparse_ad.studies.grid import require_kind
    from sparse_ad.system.files import read_json, write_json

    config = CONFIG.value
    require_kind(config, MODE.value == "study")
    folder = Path(WORKDIR.value or f"runs/{config.name}")
    if MODE.value == "predict":
        images = stages.require_directory("input", INPUT.value)
        stages.predict(config, folder, images, Path(OUTPUT.value or folder / "predictions"))
    else:
        work = {"run": stages.run, "fit": stages.fit, "evaluate": stages.evaluate_fitted}
        (work | {"study": studies.run})[MODE.value](config, folder)
    results = {"run": "results.json", "evaluate": "results.json", "study": "study.json"}
    if RECORD.value and MODE.value in results:
        write_json(RECORD.value, read_json(folder / results[MODE.value]))


def guarded(argv) -> None:
    """Runs main; a mistake of the user's is one line and exit code 2, a signal one line."""
    set_up_log()
    end_cleanly()
    try:
        main(argv)
    except UserError as error:
        fail(error)
    except Stopped as stopped:
        tell(stopped.message)
        raise


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; an unknown config field or a wrong value is one line and exit code 2."""
    if {"--help", "-help", "--helpfull", "--helpshort", "-h", "-?"} & set(argv):
        return flags.FLAGS(argv)
    try:
        argv = add_config(argv)
        check_fields(argv, flags.FLAGS["config"].parser.parse)
        return flags.FLAGS(argv)
    except (flags.Error, UserError) as error:
        fail(error)


def fail(error: Exception) -> None:
    """Tells a user's mistake in one line, and exits."""
    tell(f"error: {error}")
    sys.exit(2)


if __name__ == "__main__":
    app.run(guarded, flags_parser=parse)

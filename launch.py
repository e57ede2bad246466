"""Trains, evaluates and applies image anomaly detectors.

  python launch.py                                     the quickstart
  python launch.py --config=configs/sparse_patches.py --config.data.root=DIR
  python launch.py --config=configs/pca.py --help      every option of that config
  python launch.py --mode=predict --workdir=DIR --input FOLDER_OR_IMAGES
  python launch.py --mode=evaluate --workdir=DIR --input=FOLDER
  python launch.py --mode=study --config=configs/studies/zhao_karray.py --config.root=DIR

--mode=run fits, evaluates and reports; fit, evaluate and predict do one part, the last two with
the config that the workdir was fitted with. Every field of a config can be set, for example
--config.method.coder.penalty=0.5; another data source or detector is chosen by its name, for
example --config.data.name=elpv. The same command resumes a run that was stopped.

--mode=predict scores new images: scores.csv, and what --write names. Their threshold is set by
held-out normal images, for --config.evaluation.false_alarm_rate, or given by --threshold.
--mode=evaluate --input=FOLDER measures the detector on other labelled images: test/<kind>, or
folders of kinds.

--mode=study runs a grid of configs, data and seeds, one cell after the other, and writes tables of
all results beside the published ones: WORKDIR/study.md, study.html and study.json. The same command
resumes it: finished cells are kept. A field of all cells is set by --config.overrides, for example
--config.overrides=fit.epochs=2.
"""

import signal
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from sparse_ad.errors import UserError
from sparse_ad.system.signals import Stopped, end_cleanly, leave

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: a file of configs/. Default: configs/quickstart.py."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where results go. Default: runs/NAME.")
MODES = ("run", "fit", "evaluate", "predict", "study")
MODE = flags.DEFINE_enum("mode", "run", MODES, "What to do.")
INPUT = flags.DEFINE_multi_string(
    "input", [], "predict: images, or folders of them. evaluate: a folder of other labelled images."
)
OUTPUT = flags.DEFINE_string(
    "output", None, "predict: default WORKDIR/predictions. evaluate --input: WORKDIR/evaluation."
)
WRITE = flags.DEFINE_multi_string(
    "write",
    ["overlays"],
    "predict: what is written for each image, beside scores.csv: overlays, maps (float, .npz), "
    "tiff (maps of 16 bits), masks, regions (boxes and contours, .json). --write= for nothing.",
)
THRESHOLD = flags.DEFINE_float("threshold", None, "predict: images of larger scores are flagged.")
PIXEL_THRESHOLD = flags.DEFINE_float(
    "pixel_threshold", None, "predict: pixels of larger values are in masks and regions."
)
RECORD = flags.DEFINE_string(
    "record", None, "A file that is given a copy of results.json or study.json."
)
HELP = {"--help", "-help", "--helpfull", "--helpshort", "-h", "-?"}
USED_BY = {  # flags of some modes alone
    "input": ("predict", "evaluate"),
    "output": ("predict", "evaluate"),
    "write": ("predict",),
    "threshold": ("predict",),
    "pixel_threshold": ("predict",),
}
RESULTS = {"run": "results.json", "evaluate": "results.json", "study": "study.json"}


def main(words: list[str]) -> None:
    from sparse_ad import stages
    from sparse_ad.prediction.run import Request, predict
    from sparse_ad.studies import run as studies
    from sparse_ad.system.command_line import require_kind
    from sparse_ad.system.files import read_json, write_json

    config, mode = CONFIG.value, MODE.value
    require_kind(config, mode == "study")
    require_uses(mode)
    options = options_of(config)
    folder = Path(WORKDIR.value or f"runs/{options.name}")
    if mode == "study":
        studies.run(options, folder)
    elif mode == "predict":
        kinds = dict.fromkeys(kind for each in WRITE.value for kind in each.split(",") if kind)
        request = Request(tuple(kinds), THRESHOLD.value, PIXEL_THRESHOLD.value)
        output = Path(OUTPUT.value or folder / "predictions")
        predict(options, folder, [*INPUT.value, *words[1:]], output, request)
    elif mode == "evaluate" and (INPUT.value or OUTPUT.value):
        output = Path(OUTPUT.value or folder / "evaluation")
        stages.evaluate_on(options, folder, one_folder(INPUT.value), output)
        folder = output
    else:
        work = {"run": stages.run, "fit": stages.fit, "evaluate": stages.evaluate_fitted}
        work[mode](options, folder)
    if RECORD.value and mode in RESULTS:
        write_json(RECORD.value, read_json(folder / RESULTS[mode]))


def require_uses(mode: str) -> None:
    """Raises UserError for a flag that another mode reads."""
    for name, modes in USED_BY.items():
        if flags.FLAGS[name].present and mode not in modes:
            raise UserError(f"--{name}: is for --mode={' or '.join(modes)}, not for --mode={mode}")


def one_folder(given: list[str]) -> Path:
    """Returns the folder that --input gives. Raises: UserError unless there is one."""
    if not given or not given[0]:
        raise UserError("--input: is missing; give a folder of labelled images, or no --output")
    if len(given) > 1:
        raise UserError(f"--input = {', '.join(given)}: evaluate takes one folder; give one")
    return Path(given[0]).expanduser()


def guarded(argv) -> None:
    """Runs main; a mistake of the user's is one line and exit code 2, a signal one line."""
    from sparse_ad.devices import check_platform
    from sparse_ad.system.command_line import set_up_log, tell

    set_up_log()
    try:
        check_platform()
        main(argv)
    except UserError as error:
        fail(error)
    except Stopped as stopped:
        tell(stopped.message)
        leave(stopped)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; an unknown config field or a wrong value is one line and exit code 2."""
    from sparse_ad.system import command_line

    try:
        given = argv
        argv = command_line.add_config([each for each in argv if each not in HELP])
        flags.FLAGS["config"].parser = command_line.ConfigParser(argv)
        command_line.check_fields(argv)
        flags.FLAGS.set_gnu_getopt(True)  # flags may follow words
        rest = flags.FLAGS(command_line.keep_last(argv))
        if HELP & set(sys.argv):
            show_help(command_line.format_options(options_of(CONFIG.value)))
        command_line.check_words(given, rest[1:], MODES)
        return rest
    except (flags.Error, UserError) as error:
        fail(error)
        raise


def options_of(config):
    """Returns the options that a config holds: those of a study or of an experiment."""
    from sparse_ad.experiment import read_experiment
    from sparse_ad.options import read
    from sparse_ad.studies.grid import Study

    return read(Study, config) if "rows" in config else read_experiment(config)


def show_help(options: str) -> None:
    """Prints what this program does, its flags and the options of the config, and exits."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without an error
    print(__doc__)
    print(flags.FLAGS.module_help(sys.modules[__name__]))
    print(f"\nOptions of this config, with their values:\n{options}")
    sys.exit(0)


def fail(error: Exception) -> None:
    """Prints a user's mistake in one line, and exits with code 2."""
    from sparse_ad.system.command_line import tell

    tell(f"error: {error}")
    sys.exit(2)


if __name__ == "__main__":
    end_cleanly()
    try:
        app.run(guarded, flags_parser=parse)
    except Stopped as stop:  # while flags are read
        print(stop.message, file=sys.stderr)
        leave(stop)

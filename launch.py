"""Trains, evaluates and applies image anomaly detectors.

  python launch.py                                     the quickstart
  python launch.py --config=configs/sparse_patches.py --config.data.root=DIR
  python launch.py --mode=predict --workdir=DIR --input=FOLDER

--mode=run fits, evaluates and reports; fit, evaluate and predict do one part. Every field of a
config can be set: --config.method.penalty=0.5. Fields and defaults: configs/base.py.
"""

import logging
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "What to run: a file of configs/. Default: configs/quickstart.py."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Where results go. Default: runs/NAME.")
MODES = ("run", "fit", "evaluate", "predict")
MODE = flags.DEFINE_enum("mode", "run", MODES, "What to do.")
INPUT = flags.DEFINE_string("input", None, "predict: the folder of images to score.")
OUTPUT = flags.DEFINE_string("output", None, "predict: default WORKDIR/predictions.")
RECORD = flags.DEFINE_string("record", None, "A file that is given a copy of results.json.")


def main(_) -> None:
    from sparse_ad import stages, workdir  # after the flags: --help need not wait for JAX
    from sparse_ad.files import read_json, write_json

    given = any(flag.startswith("--config") for flag in sys.argv[1:])
    folder = Path(WORKDIR.value or f"runs/{CONFIG.value.name}")
    fitted = MODE.value in ("evaluate", "predict") and not given
    config = workdir.read_config(folder) if fitted else CONFIG.value
    if MODE.value == "predict":
        images = stages.require_directory("input", INPUT.value or "")
        output = Path(OUTPUT.value or folder / "predictions")
        stages.predict(config, folder, images, output)
        return
    {"run": stages.run, "fit": stages.fit, "evaluate": stages.evaluate_fitted}[MODE.value](
        config, folder
    )
    if RECORD.value and MODE.value != "fit":
        write_json(RECORD.value, read_json(folder / "results.json"))


def guarded(argv) -> None:
    """Runs main; a mistake of the user's is one line and exit code 2."""
    from sparse_ad.errors import UserError

    set_up_log()
    try:
        main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def set_up_log() -> None:
    """Shows what sparse_ad says; of what libraries say through absl, the warnings."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log = logging.getLogger("sparse_ad")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; an unknown config field or a wrong value is one line and exit code 2."""
    if not any(flag.lstrip("-").split("=")[0] == "config" for flag in argv[1:]):
        argv = [*argv[:1], "--config=configs/quickstart.py", *argv[1:]]
    try:
        rest = flags.FLAGS(argv)
        CONFIG.value.lock()
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        cause = error.args[0] if error.args else error
        if unknown := isinstance(error, (AttributeError, KeyError)):
            cause = cause.args[0] if isinstance(cause, Exception) else cause
        message = " ".join(str(cause if unknown else error).split())
        print(f"error: {'unknown config field ' if unknown else ''}{message}", file=sys.stderr)
        sys.exit(2)
    return rest


if __name__ == "__main__":
    app.run(guarded, flags_parser=parse)

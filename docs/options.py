"""The page of all options, from the dataclasses that hold them."""

import dataclasses
from collections.abc import Iterator, Mapping

from sparse_ad.data import SOURCES
from sparse_ad.evaluation.protocol import Evaluation
from sparse_ad.features import FEATURES
from sparse_ad.fitting.setup import Fit
from sparse_ad.methods import METHODS
from sparse_ad.methods.lifts.tiles import Tiles
from sparse_ad.options import describe
from sparse_ad.report.tables import markdown
from sparse_ad.studies.grid import Study

INTRODUCTION = """# All options

Written by `python -m docs.write` from the dataclasses in `sparse_ad/`. Set an option on the command
line by `--config.` and its path, for example `--config.method.coder.penalty=0.5`. A config file may
have other values than these defaults: `python launch.py --config=FILE --help` shows those in force.

`name` is the name of the run, whose results go to `runs/NAME`; `seed` that of splits, initial
values and draws."""
SECTIONS = (  # section, what it is, its kinds or its one dataclass
    ("data", "The images. `data.name` chooses the source.", SOURCES),
    ("features", "What a detector looks at. `features.name` chooses.", FEATURES),
    ("tiles", "Large images, cut into tiles that a detector scores one by one.", Tiles),
    ("method", "The detector. `method.name` chooses.", METHODS),
    ("fit", "The schedule of the fit.", Fit),
    ("evaluation", "Threshold and metrics.", Evaluation),
)


def page() -> str:
    """Returns docs/configs.md."""
    parts = [INTRODUCTION]
    for section, text, kinds in SECTIONS:
        parts += [f"## {section}", text]
        if isinstance(kinds, Mapping):
            for name, kind in kinds.items():
                parts += [f"### {section}.name = {name}", summary(kind), table(kind, section)]
                parts += nested(kind, section)
        else:
            parts.append(table(kinds, section))
    parts += ["## Studies", summary(Study), table(Study, "")]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(kind: type) -> str:
    """Returns the first line of the docstring of a dataclass."""
    return (kind.__doc__ or "").strip().partition("\n")[0]


def table(kind: type, path: str) -> str:
    """Returns the options of a dataclass, those of its sections included, as a table."""
    rows = [
        (f"`{option.path}`", f"`{option.default!r}`", escape(option.meaning))
        for option in describe(kind(), path)
    ]
    return markdown(("option", "default", "meaning"), rows) if rows else "No options."


def escape(text: str) -> str:
    """Returns text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def nested(kind: type, path: str) -> Iterator[str]:
    """Yields the tables of the other kinds that a section within the dataclass may have."""
    for field in dataclasses.fields(kind):
        for name, other in field.metadata.get("kinds", {}).items():
            if other is not type(field.default):
                yield f"With `{path}.{field.name}.name = {name}`:"
                yield table(other, f"{path}.{field.name}")

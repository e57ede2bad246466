"""The grid of a study: which config is run on which data, with which seed, in which folder."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sparse_ad.errors import UserError, require, require_choice
from sparse_ad.experiment import Experiment
from sparse_ad.system.command_line import load_experiment

COLUMNS = ("kinds", "blocks")


class Row(NamedTuple):
    """A detector of the study."""

    key: str  # its folder, and its name in studies/published.json
    title: str
    config: str  # as after --config=
    overrides: tuple[str, ...] = ()  # "field=value", as after --config.
    check: bool = False  # a simple check, which detectors have to beat


class Block(NamedTuple):
    """Data, or a split of them, that all rows are run on."""

    key: str  # its folder, and in studies with `columns` "blocks" its name in published.json
    title: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedTables:
    """Which published tables stand beside ours: "paper.table" in studies/published.json."""

    auroc: str = ""  # table of image AUROC
    r1_r2: str = ""  # table of R1 and R2


@dataclass(frozen=True)
class Study:
    """A grid of detectors, data and seeds."""

    name: str = ""  # of the study; its results go to runs/NAME
    root: str = ""  # folder of the data: what {root} stands for in an override
    seeds: tuple[int, ...] = (0,)  # every cell is run with each
    rows: tuple[Row, ...] = ()  # the detectors
    blocks: tuple[Block, ...] = ()  # the data
    common: tuple[str, ...] = ()  # overrides of every cell, "field=value"
    overrides: tuple[str, ...] = ()  # the same, stronger than all others: for the command line
    only_rows: tuple[str, ...] = ()  # keys of the rows to run; (): all
    only_blocks: tuple[str, ...] = ()  # keys of the blocks to run; (): all
    columns: str = "kinds"  # kinds: a table for each block | blocks: one table of them all
    compare: tuple[tuple[str, str], ...] = ()  # pairs of rows: the first less the second
    published: PublishedTables = field(default_factory=PublishedTables)
    published_of: str = ""  # what the published values are of, where it differs from ours
    bootstrap: int = 1000  # resamples behind the interval of a difference

    def __post_init__(self):
        good = all(seed >= 0 for seed in self.seeds) and len(set(self.seeds)) == len(self.seeds)
        remedy = "give different whole numbers from 0 on, at least one"
        require(good and len(self.seeds) > 0, "seeds", self.seeds, remedy)
        require(self.bootstrap >= 1, "bootstrap", self.bootstrap, "give 1 or more")
        require_choice("columns", self.columns, COLUMNS)
        for key in {key for pair in self.compare for key in pair}:
            require_choice("compare", key, [row.key for row in self.rows])


class Cell(NamedTuple):
    """One run of the grid."""

    block: Block
    row: Row
    seed: int
    path: str  # BLOCK/ROW/seedN: its name, and its folder below the study's
    workdir: Path
    overrides: dict[str, str]  # fields that differ from the config file, as text
    experiment: Experiment


def list_cells(study: Study, workdir: Path) -> list[Cell]:
    """Returns all cells, seeds outermost, so that there are whole tables as early as possible.

    If two overrides set one field, the more specific wins: `common` < block < row < `overrides`.
    Raises: UserError that names the field of the study, or the cell and its field.
    """
    rows = _choose(study.rows, "only_rows", study.only_rows)
    blocks = _choose(study.blocks, "only_blocks", study.only_blocks)
    given = (
        *study.common,
        *study.overrides,
        *(each for part in blocks + rows for each in part.overrides),
    )
    needed = any("{root}" in override for override in given)
    remedy = "set --config.root to the folder of the data"
    require(bool(study.root) or not needed, "root", study.root, remedy)
    return [
        _cell(study, workdir, seed, block, row)
        for seed in study.seeds
        for block in blocks
        for row in rows
    ]


@contextmanager
def named(cell: str) -> Iterator[None]:
    """Puts the name of the cell before the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{cell}: {error}") from error


def _choose(parts: tuple, field: str, keys: Iterable[str]) -> tuple:
    """The rows or blocks that `keys` name, in the order of the study; without keys all."""
    known = [part.key for part in parts]
    require(bool(known), field.removeprefix("only_"), (), "a study needs at least one")
    for key in keys:
        require_choice(field, key, known)
    return tuple(part for part in parts if not keys or part.key in keys)


def _cell(study: Study, workdir: Path, seed: int, block: Block, row: Row) -> Cell:
    path = f"{block.key}/{row.key}/seed{seed}"
    with named(path):
        given = (*study.common, *block.overrides, *row.overrides, *study.overrides)
        overrides = dict(_split(each, study.root) for each in given) | {"seed": str(seed)}
        changes = [f"{name}={text}" for name, text in overrides.items()]
        experiment = load_experiment(row.config, changes)
    return Cell(block, row, seed, path, workdir / path, overrides, experiment)


def _split(override: str, root: str) -> tuple[str, str]:
    """The field and the value of "field=value", with {root} filled in."""
    field, equals, value = override.partition("=")
    require(bool(equals), "overrides", override, 'write "field=value"')
    return field, value.replace("{root}", root)

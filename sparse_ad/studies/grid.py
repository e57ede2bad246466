"""The grid of a study: which config is run on which data, with which seed, in which folder."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from sparse_ad.errors import UserError, require, require_choice
from sparse_ad.system.command_line import ROOT, load_config

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


class Cell(NamedTuple):
    """One run of the grid."""

    block: Block
    row: Row
    seed: int
    path: str  # BLOCK/ROW/seedN: its name, and its folder below the study's
    workdir: Path
    overrides: dict[str, str]  # fields that differ from the config file, as text
    config: ConfigDict


def list_cells(study: ConfigDict, workdir: Path) -> list[Cell]:
    """Returns all cells, seeds outermost, so that there are whole tables as early as possible.

    If two overrides set one field, the more specific wins: `common` < block < row < `overrides`.
    Raises: UserError that names the field of the study, or the cell and its field.
    """
    rows = _choose(study.rows, "only_rows", study.only_rows)
    blocks = _choose(study.blocks, "only_blocks", study.only_blocks)
    seeds = tuple(study.seeds)
    whole = all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    remedy = "give different whole numbers from 0 on, at least one"
    require(whole and bool(seeds) and len(set(seeds)) == len(seeds), "seeds", seeds, remedy)
    require(study.bootstrap >= 1, "bootstrap", study.bootstrap, "give 1 or more")
    require_choice("columns", study.columns, COLUMNS)
    for key in {key for pair in study.compare for key in pair}:
        require_choice("compare", key, [row.key for row in study.rows])
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
        for seed in seeds
        for block in blocks
        for row in rows
    ]


def require_kind(config: ConfigDict, study: bool) -> None:
    """Raises UserError unless `config` is that of a study, or that of a run, as `study` says."""
    if study and "rows" not in config:
        names = {path.name for path in ROOT.glob("configs/studies/*.py")} - {"base.py"}
        files = ", ".join(sorted(names))
        raise UserError(
            f"--mode=study: {config.name} is no study; give --config=configs/studies/FILE: {files}"
        )
    if not study and "rows" in config:
        raise UserError(f"--config: {config.name} is a study; run it by --mode=study")


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


def _cell(study: ConfigDict, workdir: Path, seed: int, block: Block, row: Row) -> Cell:
    path = f"{block.key}/{row.key}/seed{seed}"
    with named(path):
        given = (*study.common, *block.overrides, *row.overrides, *study.overrides)
        overrides = dict(_split(each, study.root) for each in given) | {"seed": str(seed)}
        config = load_config(row.config, [f"{name}={text}" for name, text in overrides.items()])
    return Cell(block, row, seed, path, workdir / path, overrides, config)


def _split(override: str, root: str) -> tuple[str, str]:
    """The field and the value of "field=value", with {root} filled in."""
    field, equals, value = override.partition("=")
    require(bool(equals), "overrides", override, 'write "field=value"')
    return field, value.replace("{root}", root)

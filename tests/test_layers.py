"""Imports run downwards only: a module may import from its own group, and from those above it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sparse_ad"
GROUPS = (  # from the bottom up; the longest name that fits a module counts
    ("errors",),
    ("types", "options", "devices", "batching"),
    ("system",),  # files, downloads, environment, signals
    ("patches", "normalisation"),
    ("data",),
    ("features", "sparse"),
    ("nets",),
    ("methods",),
    ("fitting", "evaluation"),
    ("report",),
    ("experiment",),
    ("system.workdir", "system.command_line"),
    ("stages",),
    ("prediction",),
    ("studies",),
)
RANKS = {name: rank for rank, names in enumerate(GROUPS) for name in names}
FLAT = 9  # modules beside the folders, at most


def modules():
    paths = sorted(PACKAGE.rglob("*.py"))
    return [
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in paths
    ]


def rank_of(module: str) -> int:
    parts = module.removesuffix(".__init__").split(".")
    names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next(RANKS[name] for name in names if name in RANKS)


def imported(module: str):
    """The modules of the package that a module imports, wherever in its text."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    known = set(modules())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparse_ad"):
            base = node.module.removeprefix("sparse_ad").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if {inner, f"{inner}.__init__"} & known else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("sparse_ad."), "import names from modules instead"


@pytest.mark.parametrize("module", [name for name in modules() if name != "__init__"])
def test_imports_run_downwards(module):
    for other in imported(module):
        if other:  # the package itself says its version
            assert rank_of(other) <= rank_of(module), f"{module} imports {other}"


def test_the_program_imports_nothing_that_stands_beside_it():
    """Not what writes README and docs, nor configs and benchmarks, which use it."""
    for module in modules():
        tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8"))
        for node in ast.walk(tree):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                first = (name or "").partition(".")[0]
                assert first not in ("docs", "configs", "benchmarks", "tests", "launch"), module


def test_only_the_vocabulary_lies_flat():
    flat = [path for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    assert len(flat) <= FLAT


def test_no_import_cycle_between_folders():
    """Two folders never import each other, but for the two halves of `system`."""
    arrows = set()
    for module in modules():
        for other in imported(module):
            ends = tuple(name.partition(".")[0] for name in (module, other))
            if "." in module and "." in other and ends[0] != ends[1]:
                arrows.add(ends)
    both = {pair for pair in arrows if pair[::-1] in arrows and "system" not in pair}
    assert not both

"""Published metrics, to stand beside ours: published.json in this folder."""

import json
from functools import cache
from importlib import resources
from typing import Any

from sparse_ad.errors import require
from sparse_ad.studies.grid import Study
from sparse_ad.studies.results import Published
from sparse_ad.system.json_values import from_json

FILE = "published.json"


@cache
def published_tables() -> dict[str, Any]:
    """Returns the content of published.json: paper -> source and tables."""
    text = resources.files("sparse_ad.studies").joinpath(FILE).read_text("utf-8")
    return json.loads(text)


def read_published(study: Study) -> Published:
    """Returns the published table of each metric for which `study.published` names one.

    The name is "paper.table" in published.json. Raises: UserError naming the field where there is
    no such table.
    """
    tables = {}
    for metric, name in vars(study.published).items():
        if name:
            paper, _, table = name.partition(".")
            known = published_tables().get(paper, {})
            require(table in known, f"published.{metric}", name, f"is not in {FILE}")
            tables |= {metric: known[table], "source": known["source"]}
    return from_json(tables, Published)

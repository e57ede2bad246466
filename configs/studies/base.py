"""Every field of a study, with its default. The studies start from here and override."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the defaults."""
    return ConfigDict(
        {
            "name": "",
            "root": "",  # what {root} stands for in an override: the folder of the data
            "seeds": (0,),
            "rows": (),  # of study_grid.Row: the detectors
            "blocks": (),  # of study_grid.Block: the data
            "common": (),  # overrides of every cell, "field=value"
            "overrides": (),  # the same, before all others: for the command line
            "only_rows": (),  # keys of those to run; (): all
            "only_blocks": (),
            "columns": "kinds",  # kinds: a table for each block | blocks: one table of them all
            "compare": (),  # pairs of rows: the first less the second
            "published": {"auroc": "", "r1_r2": ""},  # "paper.table" in results/published.json
            "published_of": "",  # what those figures are of, where it is not what ours are of
            "bootstrap": 1000,  # resamples behind the interval of a difference
        }
    ).lock()

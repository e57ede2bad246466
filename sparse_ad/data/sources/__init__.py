"""The data sources: how their files become labelled examples, split into train and test.

A source is a frozen dataclass of options, derived from `data.images.Images`, with `load(seed)`. Its
module gives each `Example` its label, kind, mask and group. `SOURCES` in
`sparse_ad/data/__init__.py` lists the sources; `load` there holds out the calibration images.

Not sources: `listing.py` reads tables that name images; `textures.py` and `defects.py` are parts of
`generated.py`.
"""

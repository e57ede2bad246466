"""ELPV: electroluminescence images of monocrystalline solar cells, 300x300 grey.

Normal = defect probability 0 (588 cells); anomalous = probability 1 (313). The cells that the
experts were unsure of (1/3, 2/3) are left out. There are no masks.

Source: Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
Electroluminescence Imagery", EU PVSEC 2018; Deitsch et al., "Automatic classification of defective
photovoltaic module cells in electroluminescence images", Solar Energy 2019.
"""

import zipfile
from dataclasses import dataclass

from sparse_ad.data.images import Images, require_fraction
from sparse_ad.data.split import split_test
from sparse_ad.system import assets
from sparse_ad.types import Example, Loaded

ASSET = assets.Asset(
    name="ELPV solar cells",
    wheel="elpv-dataset==1.0.0.post1",
    filename="elpv_dataset-1.0.0.post1-py3-none-any.whl",
    sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
    license="CC BY-NC-SA 4.0 (non-commercial)",
    note="Cite Buerhop-Lutz et al. 2018 (EU PVSEC) and Deitsch et al. 2019 (Solar Energy).",
)

_KINDS = {0.0: "good", 1.0: "defect"}


@dataclass(frozen=True)
class Elpv(Images):
    """Solar cells, fetched on first use (90 MB)."""

    test_fraction: float = 0.25  # of the normal cells: in the test set, with all defects

    def __post_init__(self):
        super().__post_init__()
        require_fraction("test_fraction", self.test_fraction)

    def load(self, seed: int) -> Loaded:
        """Returns (train, test): normal cells; `test_fraction` of them and all defects."""
        return Loaded(*split_test(read(), self.test_fraction, seed))


def read() -> tuple[Example, ...]:
    """Returns all cells used, in order of their number, as PNG bytes (about 30 MB in all)."""
    with zipfile.ZipFile(assets.fetch(ASSET)) as wheel:
        rows = wheel.read("elpv_dataset/data/labels.csv").decode().splitlines()
        cells = [
            (path, float(probability), kind) for path, probability, kind in map(str.split, rows)
        ]
        return tuple(
            Example(
                image=wheel.read(f"elpv_dataset/data/{path}"),
                label=int(probability),
                kind=_KINDS[probability],
                mask=None,
                group=path,
                path=path,
            )
            for path, probability, cell in cells
            if cell == "mono" and probability in _KINDS
        )

"""Folders of images, laid out as MVTec AD or in one of several other ways: see `layouts`."""

from dataclasses import dataclass
from pathlib import Path

from sparse_ad.data.images import Images, require_fraction
from sparse_ad.data.sources import tree
from sparse_ad.data.sources.ignored import add_ignored, ignored_entries, open_ignore
from sparse_ad.data.sources.layouts import NORMAL, Rules, read
from sparse_ad.data.split import split_test
from sparse_ad.errors import require
from sparse_ad.types import Loaded


@dataclass(frozen=True)
class Folder(Images):
    """A folder laid out as MVTec AD; the split into train and test is the folder's own."""

    root: str = ""  # the folder: train/good, test/<kind>, ground_truth/<kind>
    # names of folders of normal images; case and punctuation do not matter
    normal: tuple[str, ...] = NORMAL
    # of the normal images: to test, where folders of kinds are not divided into train and test
    test_fraction: float = 0.25
    # pixels to leave out, white: a mask for all images, or a folder of masks laid out as root
    ignore: str = ""

    def __post_init__(self):
        super().__post_init__()
        require(all(map(tree.simple, self.normal)), "normal", self.normal, "give names of folders")
        require_fraction("test_fraction", self.test_fraction)

    def load(self, seed: int) -> Loaded:
        """Returns the examples of the folder `root`; see `read`.

        The seed draws the normal images to test, where the folder does not say which they are.
        """
        require(bool(self.root), "root", self.root, "set it to the folder of the data set")
        root = Path(self.root).expanduser()
        if self.ignore:
            ignore = open_ignore(self.ignore, root)
            loaded = read(root, Rules(self.normal, self, ignored_entries(ignore)))
            loaded = add_ignored(loaded, ignore, root, self)
        else:
            loaded = read(root, Rules(self.normal, self))
        if loaded.train or not any(example.label == 0 for example in loaded.test):
            return loaded
        train, test = split_test(loaded.test, self.test_fraction, seed)
        return loaded._replace(train=train, test=test)

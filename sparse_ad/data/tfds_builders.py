"""tensorflow-datasets builders for the sets here; TensorFlow is not needed.

    import tensorflow_datasets as tfds
    import sparse_ad.data.tfds_builders  # registers the names

    builder = tfds.builder("elpv", file_format="array_record")
    builder.download_and_prepare()
    test = builder.as_data_source(split="test")

`sparse_ad_folder`, `ham10000` and `driver` read images that are on disk already: pass their
folder as `root=...`. Images come decoded, 8-bit RGB; `decoders={"image":
tfds.decode.SkipDecoding()}` gives the bytes of the file instead, with all their depth.
"""

import dataclasses
import hashlib
import inspect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from sparse_ad import data
from sparse_ad.data import Source
from sparse_ad.data.decode import decode, image_shape
from sparse_ad.errors import require
from sparse_ad.system.names import printable
from sparse_ad.types import Encoded, Example

SEED = 0


class AnyImage(tfds.features.Image):
    """An image that `sparse_ad` decodes: tfds itself wraps 16-bit values around without a word."""

    def decode_example_np(self, example: bytes) -> np.ndarray:
        """Returns uint8 [h w 3] of any file that `decode` reads."""
        return np.round(255 * decode(example, image_shape(example), "rgb")).astype(np.uint8)


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builders share: one example type, splits train (normal images) and test.

    A set without a split of its own has the one of its default options and seed 0. Images are
    stored as the encoded bytes they come as; `mask` holds the encoded bytes of the mask, empty
    where there is none.
    """

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: type[Source]  # the options of the set
    code_path = None  # where tfds looks for URL checksums, by a package it does not require

    def _source(self) -> Source:
        return self.SOURCE()

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": AnyImage(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["normal", "anomalous"]),
            "kind": tfds.features.Text(),
            "mask": tfds.features.Text(),  # bytes: an Image could not be empty
            "group": tfds.features.Text(),
            "path": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=inspect.getmodule(self.SOURCE).__doc__,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # in the order of the source; shuffling 1 GB wants TensorFlow
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        loaded = self._source().load(SEED)
        return {
            "train": self._generate_examples(loaded.train),
            "test": self._generate_examples(loaded.test),
        }

    def _generate_examples(self, examples: Sequence[Example]) -> Iterator[tuple[int, dict]]:
        for key, example in enumerate(examples):
            mask = b"" if example.mask is None else _to_bytes(example.mask)
            fields = {**example._asdict(), "image": _to_bytes(example.image), "mask": mask}
            del fields["ignore"]  # the default options of the sources ignore nothing
            yield key, fields


def _to_bytes(encoded: Encoded) -> bytes:
    """Returns the bytes of a file; the sources here give no pixels."""
    assert not isinstance(encoded, np.ndarray)
    return encoded.read_bytes() if isinstance(encoded, Path) else encoded


@dataclasses.dataclass(eq=False, kw_only=True)
class RootConfig(tfds.core.BuilderConfig):
    """Where the images of a set on disk are."""

    root: str = ""


class RootedBuilder(Builder, skip_registration=True):
    """A builder of images that are on disk already, in the folder `root`.

    The folder's name and a digest of its path name the prepared copy, so that two folders
    prepared in one `data_dir` have copies of their own.
    """

    SOURCE: type[data.Folder] | type[data.Ham10000] | type[data.Driver]

    def __init__(self, *, root: str | Path = "", config: RootConfig | None = None, **options):
        if config is None:
            require(bool(root), "root", root, f"pass tfds.builder({self.name!r}, root=FOLDER)")
            path = Path(root).expanduser().resolve()
            digest = hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()
            config = RootConfig(name=f"{printable(path.name)}-{digest}", root=str(path))
        super().__init__(config=config, **options)

    def _source(self) -> Source:
        assert isinstance(self.builder_config, RootConfig)
        return self.SOURCE(root=self.builder_config.root)


class SparseAdFolder(RootedBuilder):
    """A folder laid out as MVTec AD, with the folder's own split."""

    SOURCE = data.Folder


class Ham10000(RootedBuilder):
    """HAM10000, split by lesion, 100 test images of each anomalous class."""

    VERSION = tfds.core.Version("2.0.0")
    SOURCE = data.Ham10000


class Driver(RootedBuilder):
    """State Farm distracted drivers, 16 of them in train."""

    VERSION = tfds.core.Version("2.0.0")
    SOURCE = data.Driver


class Elpv(Builder):
    """ELPV solar cells, fetched on first use."""

    SOURCE = data.Elpv

"""Grain pipelines: examples to batches of decoded images."""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Float

from sparse_ad.data.decode import decode, decode_mask, image_shape
from sparse_ad.data.ignored import fill, find_ignored
from sparse_ad.data.images import Images
from sparse_ad.errors import UserError, require
from sparse_ad.types import Batch, Example

PREFETCH_BYTES = 64 * 2**20  # decoded images that wait for the next batch
CACHE_BYTES = 512 * 2**20  # sets that fit are decoded once and kept


class _Record(NamedTuple):
    """One decoded example: the fields of Batch without their first axis."""

    image: np.ndarray
    label: int
    mask: np.ndarray
    valid: bool
    index: int
    problem: str
    ignored: np.ndarray


def training_batches(
    examples: Sequence[Example], options: Images, batch_size: int, seed: int, first: int = 0
) -> grain.DatasetIterator[Batch]:
    """Returns an endless iterator over full batches, in `training_order`, from batch `first` on.

    Batches straddle epochs (and repeat images where there are fewer than `batch_size`).

    Raises: UserError, on construction or while iterating, for a file that cannot be read.
    """
    _check(examples, batch_size)
    read = functools.partial(_read_strictly, examples, options)
    if len(examples) * _image_bytes(options) <= CACHE_BYTES:
        read = functools.cache(read)
    order = training_order(len(examples), seed).slice(slice(first * batch_size, None))
    return iter(_batch(order.map(read), options, batch_size))


def training_order(count: int, seed: int) -> grain.MapDataset[int]:
    """Returns the endless order in which `count` images are trained on, shuffled in every epoch.

    order[position] is the index of an image; it depends on `count` and `seed` alone.
    """
    # Grain adds the epoch to the seed, so plain neighbouring seeds would share their epochs.
    shuffle_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return grain.MapDataset.range(count).shuffle(seed=shuffle_seed).repeat()


def decoded_images(
    examples: Sequence[Example], options: Images
) -> Iterator[Float[np.ndarray, "h w c"]]:
    """Yields the images of the examples in order, decoded in threads.

    Raises: UserError for a file that cannot be read.
    """
    _check(examples, 1)
    dataset = grain.MapDataset.range(len(examples))
    records = _read_ahead(
        dataset.map(functools.partial(_read_strictly, examples, options)), options
    )
    return (record.image for record in records)


def scoring_batches(
    examples: Sequence[Example], options: Images, batch_size: int
) -> Iterable[Batch]:
    """Returns the batches of the examples in order, the last one padded (valid False, index -1).

    An image that cannot be read has valid False and says why in `problem`; a mask that cannot be
    used raises UserError, because a data set with wrong masks yields wrong metrics.
    """
    _check(examples, batch_size)
    read = functools.partial(_read_leniently, examples, options)
    return _batch(grain.MapDataset.range(len(examples)).map(read), options, batch_size)


def _check(examples: Sequence[Example], batch_size: int) -> None:
    require(batch_size >= 1, "batch_size", batch_size, "give 1 or more")
    require(len(examples) >= 1, "examples", len(examples), "there are no images to read")


def _image_bytes(options: Images) -> int:
    return 4 * math.prod(options.shape)


def _batch(dataset: grain.MapDataset, options: Images, batch_size: int) -> grain.IterDataset[Batch]:
    collate = functools.partial(_collate, batch_size)
    records = _read_ahead(dataset, options, 2 * batch_size)
    return records.batch(batch_size, batch_fn=collate)


def _read_ahead(
    dataset: grain.MapDataset, options: Images, most: int = 128
) -> grain.IterDataset[_Record]:
    """Decodes in threads, and bounds by bytes how far they run ahead."""
    ahead = min(most, max(PREFETCH_BYTES // _image_bytes(options), options.workers, 1))
    threads = grain.ReadOptions(num_threads=options.workers, prefetch_buffer_size=ahead)
    return dataset.to_iter_dataset(threads)


def _collate(batch_size: int, records: Sequence[_Record]) -> Batch:
    """Stacks records into a batch, and pads it to `batch_size`."""
    missing = batch_size - len(records)
    first = records[0]
    blank, unmarked = np.zeros_like(first.image), np.zeros_like(first.mask)
    # Ignored as the first: a batch of images with masks alone needs no second program.
    padding = _Record(blank, 0, unmarked, False, -1, "", first.ignored)
    columns = zip(*records, *[padding] * missing, strict=True)
    image, label, mask, valid, index, problem, ignored = columns
    return Batch(
        np.stack(image),
        np.array(label, np.int32),
        np.stack(mask),
        np.array(valid, bool),
        np.array(index, np.int32),
        problem,
        np.stack(ignored),
    )


def _read_strictly(examples: Sequence[Example], options: Images, index: int) -> _Record:
    """Decodes one example and fills its ignored pixels in; training needs no masks of defects.

    Raises: UserError when it cannot be read.
    """
    example = examples[index]
    image = decode(example.image, options.pair, options.color, example.path, options)
    unmarked = np.broadcast_to(np.False_, options.pair)  # takes no memory
    record = _Record(image, example.label, unmarked, True, int(index), "", unmarked)
    ignored = find_ignored(example, options.pair, options)
    if ignored is None:
        return record
    return record._replace(image=fill(image, ignored), ignored=ignored.mask)


def _read_leniently(examples: Sequence[Example], options: Images, index: int) -> _Record:
    """Decodes one example and its mask; an unreadable image becomes zeros and a problem."""
    example = examples[index]
    try:
        record = _read_strictly(examples, options, index)
    except UserError as error:
        blank, unmarked = np.zeros(options.shape, np.float32), np.zeros(options.pair, bool)
        return _Record(blank, example.label, unmarked, False, int(index), str(error), unmarked)
    if example.mask is None:
        return record
    shape = image_shape(example.image, example.path, options)
    mask = decode_mask(example.mask, options.pair, shape, f"mask of {example.path}", options)
    return record._replace(mask=mask)

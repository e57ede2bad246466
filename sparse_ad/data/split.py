"""Seeded splits that keep groups (lesion, driver, item) whole, whatever the order of the input."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from sparse_ad.errors import UserError
from sparse_ad.types import Example


def draw_order(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Returns the distinct names in an order drawn by (seed, purpose): each name's keyed hash.

    The hash of a name does not depend on the others, so adding an image moves few of the rest.
    """

    def key(name: str) -> bytes:
        content = f"{seed}/{purpose}/{name}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(content, digest_size=16).digest()

    return sorted(set(names), key=key)


def hold_out(
    examples: Sequence[Example], fraction: float, seed: int, purpose: str
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (kept, held out): whole groups, drawn by seed, until `fraction` of images is held.

    At least one group is held out and one is kept; both parts keep the order of the input.
    `purpose` names the split, so that two splits of one seed are independent.
    Raises: UserError when there are fewer than two groups.
    """
    sizes = Counter(example.group for example in examples)
    if len(sizes) < 2:
        raise UserError(
            f"{len(examples)} normal images in {len(sizes)} group(s): {purpose} cannot be held out "
            "and leave any to train on; add normal images of other groups"
        )
    *candidates, _ = draw_order(sizes, seed, purpose)
    wanted = max(1, round(fraction * len(examples)))
    held, count = set(), 0
    for group in candidates:
        if count >= wanted:
            break
        held.add(group)
        count += sizes[group]
    return (
        tuple(example for example in examples if example.group not in held),
        tuple(example for example in examples if example.group in held),
    )


def split_test(
    examples: Sequence[Example], fraction: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test) of a set without a split of its own.

    Train: normal images. Test: the groups held out (`fraction` of the normal images), and every
    anomalous image whose group is not in train. Anomalous images of training groups are in neither.
    """
    train, _ = hold_out(_normal(examples), fraction, seed, "test")
    return train, _of_other_groups(examples, train)


def split_groups(
    examples: Sequence[Example], count: int, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test): the normal images of `count` groups drawn by seed; all of the others.

    Only groups with normal images are drawn. Anomalous images of training groups are in neither.
    """
    normal = _normal(examples)
    chosen = set(draw_order((example.group for example in normal), seed, "train")[:count])
    train = tuple(example for example in normal if example.group in chosen)
    return train, _of_other_groups(examples, train)


def split_images(
    examples: Sequence[Example], count: int, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Returns (train, test): `count` normal images drawn one by one, and all anomalous, in test.

    Groups may lie on both sides: for published protocols that have it so, and for nothing else.
    Raises: UserError when that leaves no normal image to train on.
    """
    normal = _normal(examples)
    if len(normal) <= count:
        raise UserError(
            f"{len(normal)} normal images: {count} of them are for the test, which leaves none to "
            "train on; complete the data set or choose another split"
        )
    held = {example.path for example in draw(normal, count, seed, "test")}
    return (
        tuple(example for example in normal if example.path not in held),
        tuple(example for example in examples if example.label or example.path in held),
    )


def _normal(examples: Sequence[Example]) -> tuple[Example, ...]:
    return tuple(example for example in examples if example.label == 0)


def _of_other_groups(examples, train: Sequence[Example]) -> tuple[Example, ...]:
    trained = {example.group for example in train}
    return tuple(example for example in examples if example.group not in trained)


def draw_anomalous(examples: Sequence[Example], count: int, seed: int) -> tuple[Example, ...]:
    """Returns all normal examples and at most `count` of each other kind (0: all), in order."""
    if not count:
        return tuple(examples)
    kinds = {example.kind for example in examples if example.label}
    kept = set()
    for kind in kinds:
        of_kind = [example for example in examples if example.kind == kind]
        kept |= {example.path for example in draw(of_kind, count, seed, "anomalous")}
    return tuple(each for each in examples if not each.label or each.path in kept)


def draw(
    examples: Sequence[Example], count: int, seed: int, purpose: str = "limit"
) -> tuple[Example, ...]:
    """Returns `count` of the examples, drawn by seed, in their order; all of them where fewer."""
    chosen = set(draw_order((example.path for example in examples), seed, purpose)[:count])
    return tuple(example for example in examples if example.path in chosen)

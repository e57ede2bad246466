"""Maps of a frozen network, kept on disk: later epochs and runs read them."""

import atexit
import contextlib
import hashlib
import io
import logging
from functools import cache, partial
from pathlib import Path

import jax
import jax.core
import numpy as np
from jaxtyping import Array, Float

from sparse_ad.devices import mesh
from sparse_ad.errors import UserError
from sparse_ad.system.files import write_bytes
from sparse_ad.types import Extracted, Features

FORMAT = 1  # of entries, and of what the networks compute; raise it, and old entries are unknown
PARTS = (4, 2, 1)  # of a batch: what is missing is computed in one call of such a size
MEASURED = 32  # times, until the limit is reached, that the size of the folder is measured

Entry = dict[str, Float[np.ndarray, "_ _ _"]]  # the maps of one image, by layer

log = logging.getLogger(__name__)


def cached(features: Features, folder: Path, limit_bytes: float) -> Features:
    """Returns the same features, which compute no image's maps twice while `folder` has room.

    The bits are those of `features`, whatever part is read: an entry belongs to one text of
    identity, one image, one kind of device and one version of JAX. Results lie in host memory.

    `limit_bytes` bounds all that the folder above `folder` holds, over all features. Beyond it
    nothing more is stored, and nothing is dropped to make room: training goes round and round, so
    that the least recently used entry is the one that is needed next. A full or read-only disk
    ends the storing, too. Each is reported once, and the run goes on. Processes may share the
    folder; each may overshoot the limit by a 32nd part.

    Reading is faster than computing: the speed that such a run measures on images that it has seen
    before is not that on new ones.
    """
    store = Store(folder, limit_bytes)
    atexit.register(store.report)
    return features._replace(extract=partial(read_or_compute, features, store))


def read_or_compute(
    features: Features, store: "Store", images: Float[Array | np.ndarray, "n h w c"]
) -> Extracted:
    """Returns the maps of images: those in the store are read, the others computed and stored."""
    if isinstance(images, jax.core.Tracer):  # only shapes are asked for
        return features.extract(images)
    images = np.asarray(images)
    names = [name_of(features.identity, image) for image in images]
    stored = {name: store.read(name) for name in dict.fromkeys(names)}
    entries = {name: entry for name, entry in stored.items() if entry is not None}
    missing = [name for name in stored if name not in entries]
    if missing:
        computed = compute(features, images, [names.index(name) for name in missing])
        for name, entry in zip(missing, computed, strict=True):
            store.write(name, entry)
            entries[name] = entry
    rows = [entries[name] for name in names]
    return {layer: np.stack([row[layer] for row in rows]) for layer in rows[0]}


def compute(
    features: Features, images: Float[np.ndarray, "n h w c"], rows: list[int]
) -> list[Entry]:
    """Returns the maps of some rows, from one call of few possible sizes: each is compiled once.

    No call is larger than that for all rows, and all divide among the devices.
    """
    devices = mesh().size
    sizes = (-(-len(images) // (part * devices)) * devices for part in PARTS)
    size = next(size for size in sizes if size >= len(rows))
    padded = [*rows, *rows[:1] * (size - len(rows))]
    maps = {layer: np.asarray(leaf) for layer, leaf in features.extract(images[padded]).items()}
    return [{layer: leaf[row] for layer, leaf in maps.items()} for row in range(len(rows))]


def name_of(identity: str, image: Float[np.ndarray, "h w c"]) -> str:
    """Returns the name of an image's entry: a hash of all that its maps depend on."""
    device = jax.local_devices()[0].device_kind
    header = f"{FORMAT} {jax.__version__} {device} {identity} {image.shape} {image.dtype}\0"
    digest = hashlib.sha256(header.encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


class Store:
    """Entries in a folder, one file each."""

    def __init__(self, folder: Path, limit: float):
        self.folder, self.limit = folder, limit
        self.room = 0.0  # bytes that may be written before the folder is measured again
        self.open = True  # to new entries
        self.reads = self.misses = 0

    def read(self, name: str) -> Entry | None:
        """Returns an entry; None where there is none, or one that is damaged, which is removed."""
        path = self.folder / name
        try:
            entry = decode(name, path.read_bytes())
        except OSError:
            entry = None
        except ValueError as error:
            entry = None
            log.info("%s: %s; it is computed again", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
        self.reads += entry is not None
        self.misses += entry is None
        return entry

    def write(self, name: str, entry: Entry) -> None:
        """Stores an entry, if there is room for it."""
        if not self.open:
            return
        content = encode(name, entry)
        if self.room < len(content):
            free = self.limit - folder_size(self.folder.parent)
            self.room = min(free, max(len(content), self.limit / MEASURED))
        if self.room < len(content):
            remedy = "raise features.cache_gb, or delete the folder"
            self._close(f"{self.folder.parent} has reached {self.limit / 1e9:g} GB: {remedy}")
            return
        try:
            write_bytes(self.folder / name, content)
        except UserError as error:
            reason = getattr(error.__cause__, "strerror", error)
            self._close(f"{self.folder.parent} cannot be written: {reason}")
        self.room -= len(content)

    def report(self) -> None:
        """Logs how many entries were read, and how many there were to compute."""
        if self.reads + self.misses:
            log.info("features: %d read, %d computed", self.reads, self.misses)

    def _close(self, reason: str) -> None:
        self.open = False
        warn(f"features are no longer stored: {reason}")


@cache
def warn(message: str) -> None:
    """Logs a warning, once in a process."""
    log.warning(message)


def encode(name: str, entry: Entry) -> bytes:
    """Returns the content of a file: a checksum over name and maps, and the maps as .npz."""
    file = io.BytesIO()
    np.savez(file, **entry)  # pyright: ignore[reportArgumentType]
    content = file.getvalue()
    return checksum(name, content) + content


def decode(name: str, content: bytes) -> Entry:
    """Returns the maps in a file.

    Raises: ValueError where it is not as it was written.
    """
    size = hashlib.sha256().digest_size
    if checksum(name, content[size:]) != content[:size]:
        raise ValueError("is damaged")
    with np.load(io.BytesIO(content[size:]), allow_pickle=False) as file:
        return dict(file)


def checksum(name: str, content: bytes) -> bytes:
    """Returns the SHA-256 of name and content."""
    digest = hashlib.sha256(name.encode())
    digest.update(content)
    return digest.digest()


def folder_size(folder: Path) -> int:
    """Returns the bytes of all files below a folder, which others may be changing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total

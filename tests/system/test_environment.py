"""Records tell what made them, and nothing personal."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax

from sparse_ad.system import environment


def test_environment_tells_versions_and_no_paths():
    found = environment.describe()
    assert found["versions"]["jax"] == jax.__version__
    assert found["device"]["count"] >= 1
    assert json.loads(json.dumps(found))
    line = [
        "/home/me/x/launch.py",
        "--workdir=/home/me/runs/a",
        "--config=configs/a.py:b",
        "../d/e",
    ]
    assert environment.shorten_command(line) == (
        ".../launch.py --workdir=.../a --config=configs/a.py:b ../d/e"
    )
    values = ["launch.py", "--config.data.size=(256, 4096)", "--only", "two words"]
    assert shlex.split(environment.shorten_command(values)) == values


def test_a_program_of_the_checkout_has_its_path_there(monkeypatch):
    root = Path(__file__).resolve().parents[2]
    assert environment.program_of(str(root / "benchmarks" / "memory.py")) == "benchmarks/memory.py"
    assert environment.program_of("/usr/bin/pytest") == "/usr/bin/pytest"
    monkeypatch.chdir(root)
    assert environment.program_of("launch.py") == "launch.py"


def _describe_in(folder):
    """Runs the file as it would run from another place."""
    code = "import environment, json; print(json.dumps(environment.describe()['commit']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def _git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_commit_is_that_of_the_code_or_none(tmp_path):
    shutil.copy(Path(environment.__file__), tmp_path)
    assert _describe_in(tmp_path) is None
    _git(tmp_path, "init")
    _git(tmp_path, "commit", "--allow-empty", "-m", "zero")
    assert _describe_in(tmp_path) is None  # a repository around it that does not track it
    _git(tmp_path, "add", "environment.py")
    _git(tmp_path, "commit", "-m", "one")
    assert _describe_in(tmp_path)["dirty"] is False
    with (tmp_path / "environment.py").open("a") as file:
        file.write("# changed\n")
    found = _describe_in(tmp_path)
    assert found["dirty"] is True and len(found["id"]) == 40

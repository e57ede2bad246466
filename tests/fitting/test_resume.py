"""A run that was stopped anywhere, given again, ends with the bits of one that never was."""

import random
import signal
import subprocess
import sys
import time
from signal import SIGINT, SIGKILL, SIGTERM

import pytest
from helpers.folders import leftovers
from helpers.launching import (
    ROOT,
    assert_same_outcome,
    assert_user_error,
    environment,
    launch,
    tiny,
)
from helpers.made_up import make_folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A folder of images, and the workdir of a run on it that was never stopped."""
    base = tmp_path_factory.mktemp("resume")
    root = make_folder(base / "images")
    process = launch(*tiny(root), f"--workdir={base / 'straight'}")
    assert process.returncode == 0, process.stderr
    return root, base / "straight"


PLACES = (
    ("sparse_ad.fitting.checkpoint.write_checksums", 3),  # a checkpoint is there, not its checksums
    ("sparse_ad.fitting.metrics_log.append_lines", 2),
    ("sparse_ad.stages.calibrate", 1),
    ("sparse_ad.evaluation.pixel_metrics.count_pixels", 2),
    ("sparse_ad.report.figures.render", 3),
    ("os.fsync", 12),
)


@pytest.mark.slow  # test_launch has a kill in a checkpoint
def test_killed_in_stage_after_stage(straight, tmp_path):
    root, expected = straight
    flags = [*tiny(root), f"--workdir={tmp_path}"]
    for place in PLACES:
        assert launch(*flags, strike=(*place, SIGKILL)).returncode == -SIGKILL, place
        assert not (tmp_path / "results.json").exists()
    process = launch(*flags)
    assert process.returncode == 0, process.stderr
    assert_same_outcome(tmp_path, expected)


@pytest.mark.slow
def test_a_signal_saves_and_says_so(straight, tmp_path):
    root, expected = straight
    flags = [*tiny(root), f"--workdir={tmp_path}", "--config.fit.checkpoint_seconds=1000"]
    # The first call of batch_indices is for the beginning; calls take one step until one ended.
    process = launch(
        *flags, "--mode=fit", strike=("sparse_ad.fitting.steps.batch_indices", 3, SIGTERM)
    )
    assert process.returncode == 128 + SIGTERM
    assert "SIGTERM: stopped at step 2 of 8, checkpoint saved" in process.stderr
    assert "Traceback" not in process.stderr
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
    # Going on with other checkpoints, and one stage after the other, makes no difference.
    assert launch(*tiny(root), f"--workdir={tmp_path}", "--mode=fit").returncode == 0
    assert not (tmp_path / "results.json").exists()
    process = launch("--mode=evaluate", f"--workdir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert_same_outcome(tmp_path, expected)


@pytest.mark.slow
def test_a_signal_outside_the_fit_ends_cleanly(straight, tmp_path):
    flags = [*tiny(straight[0]), f"--workdir={tmp_path}"]
    process = launch(*flags, strike=("sparse_ad.report.figures.render", 2, SIGINT))
    assert process.returncode == 128 + SIGINT and "Traceback" not in process.stderr
    assert process.stderr.strip().splitlines()[-1].startswith("SIGINT: stopped")
    assert not leftovers(tmp_path) and not (tmp_path / "results.json").exists()


@pytest.mark.slow
def test_a_workdir_of_another_config_is_named_field_by_field(straight):
    root, workdir = straight
    changed = ["--config.method.coder.penalty=2", "--config.method.atoms=5"]
    process = launch(*tiny(root), *changed, f"--workdir={workdir}")
    assert_user_error(process, "method.coder.penalty: 1.0 there, 2.0 here", "method.atoms: 4 there")


NETWORK = (  # four epochs of four steps
    "--config.data.name=folder",
    "--config.data.size=(32, 32)",
    "--config.fit.batch_size=1",
    "--config.fit.epochs=4",
    "--config.fit.checkpoint_seconds=0.0",
    "--config.evaluation.bootstrap=10",
)
NET = (
    "--config.method.net.widths=(4, 4, 4)",
    "--config.method.net.latent=4",
    "--config.method.net.kernels=(4, 4, 4)",
    "--config.method.net.strides=(2, 2, 2)",
)
GAN = ("--config.method.widths=(4, 4, 4)", "--config.method.latent=4")
NETWORKS = {
    "cae_sparse": NET,
    "vae": NET,
    "anogan": (*GAN, "--config.method.search_steps=2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_killed_in_an_epoch_and_in_a_checkpoint(straight, tmp_path, name):
    """Weights, moments of Adam, running averages and noise all go on as they would have."""
    shared = (f"--config=configs/{name}.py", f"--config.data.root={straight[0]}", *NETWORK)
    flags = (*shared, *NETWORKS[name])
    for place in (None, ("sparse_ad.fitting.steps.batch_indices", 6), PLACES[0]):
        ends = tmp_path / ("killed" if place else "straight")
        process = launch(*flags, f"--workdir={ends}", strike=place and (*place, SIGKILL))
        assert process.returncode == (-SIGKILL if place else 0), process.stderr
    assert launch(*flags, f"--workdir={tmp_path / 'killed'}").returncode == 0
    assert_same_outcome(tmp_path / "killed", tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_again_and_again(straight, tmp_path, seed):
    """Each run may go on for a little longer than the last, so that one comes to the end."""
    root, expected = straight
    draw, kills, longest = random.Random(seed), 0, 1.0
    command = [sys.executable, ROOT / "launch.py", *tiny(root), f"--workdir={tmp_path}"]
    while True:
        process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            assert process.wait(timeout=draw.uniform(0.3, longest)) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills, longest = kills + 1, longest * 1.15
    assert kills > 3
    assert_same_outcome(tmp_path, expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_while_a_checkpoint_is_written(straight, tmp_path, seed):
    """Kills as soon as a new folder shows in checkpoints/: it is not yet complete."""
    root, expected = straight
    draw, folder = random.Random(seed), tmp_path / "checkpoints"
    command = [sys.executable, ROOT / "launch.py", *tiny(root), f"--workdir={tmp_path}"]
    for _ in range(3):
        process = subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        old = set(folder.iterdir()) if folder.exists() else set()
        while process.poll() is None:
            if folder.exists() and set(folder.iterdir()) - old:
                time.sleep(draw.uniform(0, 0.03))
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    assert launch(*tiny(root), f"--workdir={tmp_path}").returncode == 0
    assert_same_outcome(tmp_path, expected)


@pytest.mark.slow
def test_what_several_devices_fitted_predicts_on_one(straight, tmp_path, monkeypatch):
    root, _ = straight
    flags = [*tiny(root), f"--workdir={tmp_path}", "--config.fit.batch_size=4", "--mode=fit"]
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
        process = launch(*flags, "--config.evaluation.batch_size=4")
    assert process.returncode == 0 and "4 cpu device(s)" in process.stderr, process.stderr
    process = launch("--mode=predict", f"--workdir={tmp_path}", f"--input={root / 'test'}")
    assert process.returncode == 0, process.stderr

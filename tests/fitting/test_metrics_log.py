"""The log of a fit: whole lines, no step twice, the same numbers for TensorBoard."""

import json
import struct
from contextlib import ExitStack, closing

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_ad.errors import UserError
from sparse_ad.fitting.metrics_log import MetricsLog, read_metrics


@pytest.fixture
def open_log():
    """Opens logs, and closes them after the test."""
    with ExitStack() as stack:
        yield lambda path, done: stack.enter_context(closing(MetricsLog(path, done)))


@pytest.mark.parametrize("damage", ['{"step": 3, "lo', "not json\n", "[1]\n", '{"step": "x"}\n'])
def test_a_log_cut_in_mid_line_is_mended(tmp_path, damage, open_log):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1, "loss": 0.1}\n', '{"step": 2, "loss": 0.30000000000000004}\n']
    path.write_text("".join(lines) + damage)
    log = open_log(path, 2)
    assert path.read_text() == "".join(lines) and log.last == {"loss": 0.30000000000000004}
    log.add(3, {"loss": np.float32(0.5)})
    log.flush()
    assert path.read_text() == "".join(lines) + '{"step": 3, "loss": 0.5}\n'


def test_a_log_that_misses_steps_is_told_of(tmp_path, caplog, open_log):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.1}\n{"st')
    open_log(path, 3)
    assert "2 of 3 steps are missing" in caplog.text


def events(folder):
    """Reads event files by the definition of their format; the oracle is their own checksums."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    found = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            length, check = struct.unpack("<QI", content[:12])
            record = content[12 : 12 + length]
            assert check == masked_crc32c(content[:8])
            assert struct.unpack("<I", content[12 + length : 16 + length]) == (
                masked_crc32c(record),
            )
            found.append(Event.FromString(record))
            content = content[16 + length :]
    return found


def shown(folder):
    """What TensorBoard shows: a start at step s replaces all from s on. {step: {name: value}}"""
    steps = {}
    for event in events(folder):
        if event.HasField("session_log"):
            steps = {step: values for step, values in steps.items() if step < event.step}
        elif event.HasField("summary"):
            assert event.step not in steps
            steps[event.step] = {value.tag: value.simple_value for value in event.summary.value}
    return steps


def test_steps_of_a_call_are_lines_and_events(tmp_path, open_log):
    path = tmp_path / "metrics.jsonl"
    log = open_log(path, 0)
    loss, share = np.float32([0.5, 0.25, 0.1, 9.0]), jnp.arange(4.0)
    assert log.add(1, {"loss": loss, "share": share}, 3) == 0  # not written yet
    assert not path.exists()
    assert log.add(4, {"loss": np.full(2, 0.05, np.float32), "share": np.ones(2)}, 2) == 3
    log.sync()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == read_metrics(path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [np.float32(line["loss"]) for line in lines] == [*loss[:3], *[np.float32(0.05)] * 2]
    assert log.last == {"loss": lines[4]["loss"], "share": 1.0}
    found = shown(tmp_path / "tensorboard")
    for line in lines:  # single precision in both
        assert found[line["step"]] == {name: line[name] for name in ("loss", "share")}
    assert len(found) == 5


def test_a_resumed_log_shows_no_step_twice(tmp_path, open_log):
    for done, last in ((0, 5), (3, 4), (3, 8)):  # the second is killed before it gets further
        log = open_log(tmp_path / "metrics.jsonl", done)
        for step in range(done + 1, last + 1):
            log.add(step, {"loss": np.float32(step)})
        log.sync()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 9))
    found = shown(tmp_path / "tensorboard")
    assert found == {step: {"loss": step} for step in range(1, 9)}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_step_that_went_wrong_is_named_and_not_written(tmp_path, value, open_log):
    log = open_log(tmp_path / "metrics.jsonl", 10)
    log.add(11, {"fine": np.ones(4), "loss": np.array([1.0, 2.0, value, value])}, 4)
    with pytest.raises(
        UserError, match=r"step 13: loss is (nan|inf); lower method.optimizer.learning_rate"
    ):
        log.sync()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [11, 12]


def test_what_is_beyond_the_steps_of_a_call_may_be_anything(tmp_path, open_log):
    log = open_log(tmp_path / "metrics.jsonl", 0)
    log.add(1, {"loss": np.array([1.0, np.nan])}, 1)
    assert log.flush() == 1

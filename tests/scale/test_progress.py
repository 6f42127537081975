import importlib.util
import itertools
import logging
import signal
import subprocess
import sys
import time

import pytest

from protojax.scale import progress


@pytest.fixture
def without_tqdm(monkeypatch):
    usual = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "tqdm" else usual(name),
    )


@pytest.fixture
def told(without_tqdm, monkeypatch, caplog):
    """What is told of steps at given times: `(total, done, [(seconds, count)])`."""
    del without_tqdm

    def lines(total, done, steps):
        now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: now)
        with (
            caplog.at_level(logging.INFO, "protojax"),
            progress.bar(total, done) as step,
        ):
            for at, count in steps:
                now = at
                step(count)
        return [record.getMessage() for record in caplog.records]

    return lines


def test_without_tqdm_progress_is_a_line_with_rate_and_time_left(told):
    steps = [(4.0, 10), (20.0, 8), (21.0, 42)]  # the first too early for a line
    assert told(100, 40, steps) == [
        "58 of 100, 0.5 rows/s, 84 s left",
        "100 of 100, 2.94 rows/s, 0 s left",
    ]


def test_the_time_left_is_not_told_from_the_step_that_was_compiled(told):
    assert told(1000, 0, [(60.0, 1), (80.0, 99)]) == [
        "1 of 1000; the time left is not known yet",
        "100 of 1000, 4.95 rows/s, 3 min left",
    ]


def test_lines_of_a_long_run_become_rare(without_tqdm, monkeypatch, caplog):
    """Ten hours are 45 growing steps, and then one every ten minutes."""
    del without_tqdm
    now = itertools.chain([0.0], range(36_000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with caplog.at_level(logging.INFO, "protojax"), progress.bar(36_001, 0) as step:
        for _ in range(36_000):
            step(1)
    assert 60 < len(caplog.records) < 110


def test_a_file_gets_lines_and_no_bar(monkeypatch, capsys, caplog):
    monkeypatch.delattr(sys, "ps1", raising=False)
    with caplog.at_level(logging.INFO, "protojax"), progress.bar(10, 4) as step:
        step(6)
    assert capsys.readouterr().err == "" and "10 of 10" in caplog.text


def test_with_tqdm_the_bar_starts_where_the_last_run_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.bar(10, 4, unit="image") as step:
        step(6)
    text = capsys.readouterr().err
    assert "4/10" in text and "10/10" in text and "image/s" in text


def test_a_second_signal_acts_at_once(tmp_path):
    # A shell has what it starts in the background ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt) as stop, progress.finishing(tmp_path) as ask:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the usual handler, without a message
        ask()
    signal.signal(signal.SIGINT, before)
    assert "left after" not in str(stop.value)


BUSY = """
import hashlib, pathlib, signal
from protojax.scale import progress
# A background shell ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with progress.finishing(pathlib.Path("here")):
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # no handler runs before it returns
"""


def test_a_signal_is_heard_while_python_waits_for_a_compiler():
    command = [sys.executable, "-c", BUSY]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == "\n"
            said = process.stderr.readline()
            assert "finishing the part in flight, or its comp" in said
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 128 + signal.SIGINT
        finally:
            process.kill()
    assert time.monotonic() - begin < 30  # of minutes that it would take


def test_nothing_is_raised_without_a_signal(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with progress.finishing(tmp_path) as ask:
        assert signal.getsignal(signal.SIGTERM) is not before
        ask()
    assert signal.getsignal(signal.SIGTERM) is before

import importlib.util
import logging
import signal

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


def test_without_tqdm_progress_is_a_line_with_rate_and_time_left(
    without_tqdm, monkeypatch, caplog
):
    del without_tqdm
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with (
        caplog.at_level(logging.INFO, "protojax"),
        progress.bar(100, 40) as step,
    ):
        now = 4.0
        step(10)  # too early for a line
        now = 20.0
        step(10)
        now = 21.0
        step(40)
    assert [record.getMessage() for record in caplog.records] == [
        "60 of 100, 1 rows/s, 40 s left",
        "100 of 100, 2.86 rows/s, 0 s left",
    ]


def test_with_tqdm_the_bar_starts_where_the_last_run_left(capsys):
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


def test_nothing_is_raised_without_a_signal(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with progress.finishing(tmp_path) as ask:
        assert signal.getsignal(signal.SIGTERM) is not before
        ask()
    assert signal.getsignal(signal.SIGTERM) is before

import fcntl
import logging
import signal
import subprocess
import sys
import threading

import pytest

from protojax.scale import storage

HOLDER = """
import pathlib, sys, time
from protojax.scale import storage
with storage.alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_of_a_killed_process_ends_with_it(tmp_path):
    folder = tmp_path / "weights"
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            open(tmp_path / ".weights.lock", "wb") as file,
            pytest.raises(BlockingIOError),
        ):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.send_signal(signal.SIGKILL)
    with storage.alone(folder):
        folder.mkdir()


def test_who_comes_second_waits_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, "protojax")
    order, inside = [], threading.Event()

    def second():
        inside.wait()
        with storage.alone(tmp_path / "weights"):
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with pytest.raises(ZeroDivisionError), storage.alone(tmp_path / "weights"):
        inside.set()
        while other.is_alive() and "waiting for who else" not in caplog.text:
            other.join(0.01)
        order.append("first")
        raise ZeroDivisionError
    other.join()
    assert order == ["first", "second"]

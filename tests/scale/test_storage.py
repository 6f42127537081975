import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading

import fsspec
import jax
import jax.numpy as jnp
import pytest
from etils import epath
from fsspec.implementations import memory
from fsspec.registry import _registry

from protojax.scale import pages, report, storage, sweeps

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


def test_who_writes_the_same_file_at_once_leaves_a_whole_one(tmp_path, monkeypatch):
    """The same command twice: one is amid a file when the other writes all of it."""
    path, ours = tmp_path / "part", os.getpid()

    def first(file):
        file.write(b"half")
        monkeypatch.setattr(os, "getpid", lambda: ours + 1)
        storage.write_bytes(path, b"whole")
        assert path.read_bytes() == b"whole"
        file.write(b" and half")

    storage.write(path, first)
    assert path.read_bytes() == b"half and half"
    assert os.listdir(tmp_path) == ["part"]


class Bucket(memory.MemoryFileSystem):
    """A bucket in memory: names begin with that of the bucket."""

    protocol = ("gs", "gcs")
    store = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gs://"))

    def glob(self, path, **kwargs):
        return [found.lstrip("/") for found in super().glob(path, **kwargs)]


@pytest.fixture
def bucket():
    known = epath.backend.fsspec_backend._get_filesystem
    for name in Bucket.protocol:
        fsspec.register_implementation(name, Bucket, clobber=True)
    known.cache_clear()
    yield "gs://mine"
    for name in Bucket.protocol:
        _registry.pop(name)
    known.cache_clear()


def test_a_bucket_holds_a_sweep_as_a_folder_does(bucket):
    one = lambda weights, x, key, *, power: {"y": x**power, "map": x * jnp.ones(2)}  # noqa: ARG005
    knobs = {"key": jax.random.key(0), "chunk": 2, "keep": [1]}
    for powers in ([1.0], [1.0, 2.0]):  # the second time only what is missing
        settings = sweeps.grid(power=powers)
        sweeps.run(one, (), settings, jnp.arange(3.0), f"{bucket}/runs/a", **knobs)
    with pytest.raises(ValueError, match="gs://mine/runs/a/config.json is of another"):
        sweeps.run(*(one, (), settings, jnp.arange(4.0), f"{bucket}/runs/a"), **knobs)
    rows = report.read(f"{bucket}/runs/*")
    assert [row["y"] for row in rows] == [0, 1, 2, 0, 1, 4]
    assert report.arrays(f"{bucket}/runs/a")[1]["map"].tolist() == [1, 1]
    made = report.provenance(f"{bucket}/runs/a")
    assert made["parts"] == 4
    page = pages.write(
        f"{bucket}/runs/a", title="A", sections=[], numbers=[], provenance=made
    )
    assert "<h1>A</h1>" in page.read_text()
    summary = json.loads((page.parent / "summary.json").read_text())
    assert summary["provenance"]["rows"] == 6


def test_what_fails_while_it_is_written_leaves_nothing_in_a_bucket(bucket):
    def half(file):
        file.write(b"half")
        raise ZeroDivisionError

    path = storage.place(f"{bucket}/a/part")
    with pytest.raises(ZeroDivisionError):
        storage.write(path, half)
    assert not path.exists()
    with storage.alone(path):  # there are no locks
        storage.write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole"

"""Files that are whole or absent, folders that hold one configuration.

What a killed, full or shared machine may do to results is dealt with here, once: a
file is written under a name that no other process has and renamed when it is complete,
a folder says what it was made with and refuses anything else, and one that must be
filled by one process at a time is locked.
"""

import contextlib
import functools
import importlib.metadata
import io
import json
import logging
import os
import pathlib
import socket
import subprocess
import typing
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from etils import epath

import protojax

_log = logging.getLogger(__name__)

DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
"""What NumPy raises for a file of arrays that was damaged after it was written."""

_PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "matfree", "pyarrow")


def place(folder: str | os.PathLike[str]) -> pathlib.Path:
    """A folder, on a disk or in a bucket.

    Args:
      folder: a path, or an address such as `gs://bucket/folder` or `s3://...`.

    Returns:
      A `pathlib.Path`, or for a bucket the `epath.Path` that has the same methods.

    >>> place("runs/one")
    PosixPath('runs/one')
    >>> place("gs://bucket") / "runs"
    PosixGPath('gs://bucket/runs')
    """
    path = epath.Path(folder)
    if is_bucket(path):
        return typing.cast(pathlib.Path, path)
    return pathlib.Path(folder).expanduser()


def is_bucket(path: os.PathLike[str]) -> bool:
    """Whether a path is an address in a bucket, where files are whole by themselves.

    Args:
      path: from `place`.

    Returns:
      False on a disk.
    """
    return "://" in os.fspath(path)


def listed(folder: pathlib.Path, pattern: str) -> set[pathlib.Path]:
    """What is in a folder now, whoever put it there.

    Args:
      folder: from `place`, or in one.
      pattern: of the names.

    Returns:
      The paths.
    """
    if not is_bucket(folder):
        return set(folder.glob(pattern))
    bucket, root = _bucket(folder)
    found = bucket.glob(f"{root}/{pattern}")
    return {folder / pathlib.PurePosixPath(path).name for path in found}


def is_there(path: pathlib.Path) -> bool:
    """Whether a file is there now, whoever put it there.

    Args:
      path: from `place`, or in one.

    Returns:
      True if it is.
    """
    if not is_bucket(path):
        return path.exists()
    bucket, name = _bucket(path)
    return bool(bucket.exists(name))


def _bucket(path: pathlib.Path) -> tuple[Any, str]:
    """What speaks with a bucket, which keeps lists of it unless it is told not to."""
    import fsspec

    return fsspec.url_to_fs(os.fspath(path), use_listings_cache=False)


def write(path: pathlib.Path, save: Callable[[BinaryIO], Any]) -> None:
    """Write a file so that readers see all of it or nothing, even after a crash.

    Args:
      path: where the file shall lie; its folder is made if need be.
      save: writes the contents to the open binary file it is given.

    Raises:
      OSError: a full disk, a folder that may not be written to; names the file and the
        remedy.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a", "note.txt")
    ...     write(path, lambda file: file.write(b"whole"))
    ...     path.read_text()
    'whole'
    """
    try:
        if is_bucket(path):  # an object is there when all of it is
            contents = io.BytesIO()
            save(contents)
            path.write_bytes(contents.getvalue())
        else:
            _make(path.parent)
            _write_and_rename(path, save)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} cannot be written ({error.strerror or error}): what is finished is"
            " kept. Make room, or the folder writable, and run the same command again",
        ) from error


def _write_and_rename(path: pathlib.Path, save: Callable[[BinaryIO], Any]) -> None:
    # A name that nobody else writes to, even if the same command runs twice. The dot
    # hides it from pandas, polars and DuckDB.
    partial = path.with_name(f".{path.name}~{_host()}~{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def tidy(folder: pathlib.Path) -> None:
    """Remove the unfinished files of processes of this machine that are gone.

    Args:
      folder: whose files, not those of folders in it; it need not be there.

    >>> import subprocess, sys, tempfile
    >>> gone = subprocess.Popen([sys.executable, "-c", ""])
    >>> with tempfile.TemporaryDirectory() as home:
    ...     for pid in (gone.pid, os.getpid()):
    ...         name = f".part.parquet~{_host()}~{pid}.tmp"
    ...         _ = pathlib.Path(home, name).write_bytes(b"half")
    ...     _ = gone.wait()
    ...     tidy(pathlib.Path(home))
    ...     [str(os.getpid()) in name for name in os.listdir(home)]
    [True]
    """
    if is_bucket(folder):
        return
    for partial in folder.glob(f".*~{_host()}~*.tmp"):
        if not _is_running(int(partial.stem.rpartition("~")[2])):
            partial.unlink(missing_ok=True)


def _host() -> str:
    return socket.gethostname()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    return True


def _make(folder: pathlib.Path) -> None:
    """Make a folder and those above it, so that a power failure leaves them there."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: pathlib.Path) -> None:
    if os.name != "posix":  # a folder cannot be opened elsewhere
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone(folder: pathlib.Path) -> Iterator[None]:
    """Let one process or thread at a time fill a folder, while others wait.

    The lock is the operating system's, on a hidden file beside the folder: it ends with
    whoever holds it, however that was stopped. In a bucket, and without POSIX, there
    are no locks, and nobody waits.

    Args:
      folder: what is to be filled; it need not be there.

    Yields:
      Nothing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     with alone(pathlib.Path(home, "weights")):
    ...         print(os.listdir(home))
    ['.weights.lock']
    """
    if is_bucket(folder) or os.name != "posix":
        yield
        return
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for who else is filling %s", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Write a file of known contents, see `write`.

    Args:
      path: where the file shall lie.
      data: its contents.
    """
    write(path, lambda file: file.write(data))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a value as readable JSON; what JSON does not know is written as text.

    Args:
      path: where the file shall lie.
      value: dicts, lists, numbers, text; paths and the like become text.
    """
    text = json.dumps(value, indent=2, default=str, allow_nan=False)
    write_bytes(path, text.encode() + b"\n")


def claim(
    folder: pathlib.Path, section: str, values: Mapping[str, Any], **notes: Any
) -> dict[str, Any]:
    """Say in `config.json` what a folder is made with, or check that it is the same.

    A folder with nothing but its `config.json` may be claimed anew.

    Args:
      folder: the folder of results; made if need be.
      section: the entry of `config.json` that `values` are, such as `"config"`.
      values: what may not change as long as the folder is used.
      **notes: further entries, written with the section, never compared.

    Returns:
      All of `config.json`.

    Raises:
      ValueError: the folder holds other values; names them and the remedy.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     claimed = claim(pathlib.Path(folder), "config", {"steps": 100})
    ...     claim(pathlib.Path(folder), "config", {"steps": 100}) == claimed
    True
    """
    path = folder / "config.json"
    there = config(folder)
    here = json.loads(json.dumps(values, default=str))
    used = folder.is_dir() and any(p.name != path.name for p in folder.iterdir())
    if used and section in there:
        refuse(path, there[section], here)
        return there
    there |= {section: here} | json.loads(json.dumps(notes, default=str))
    write_json(path, there)
    return there


def config(folder: pathlib.Path) -> dict[str, Any]:
    """What a folder says it is made with.

    Args:
      folder: a folder of results.

    Returns:
      Its `config.json`, empty if there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = folder / "config.json"
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        return {**found}
    except (ValueError, TypeError) as error:  # cut short, of bytes, or no object
        raise ValueError(
            f"{path} is not JSON ({error}): delete it if its folder's rows may be "
            "added to, or choose another folder"
        ) from error


def refuse(
    path: pathlib.Path, there: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
    """Raise if results were made with something else.

    Args:
      path: the file that says what they were made with.
      there: what it says.
      here: what is to be made.

    Raises:
      ValueError: they differ; names what differs and the remedy.
    """
    absent = object()
    differing = [
        f"`{name}` ({_shown(there, name)} there, {_shown(here, name)} here)"
        for name in dict.fromkeys((*there, *here))
        if there.get(name, absent) != here.get(name, absent)
    ]
    if differing:
        raise ValueError(
            f"{path} is of another configuration; differing: "
            f"{', '.join(differing)}. Choose another folder, or set them back to resume"
        )


def _shown(values: Mapping[str, Any], name: str) -> str:
    text = repr(values[name]) if name in values else "nothing"
    return text if len(text) <= 60 else f"{text[:57]}..."


@functools.cache
def versions() -> dict[str, Any]:
    """The code that runs: protojax, its commit where it has one, its packages.

    Returns:
      `{"protojax": ..., "commit": ... or None, "packages": {...}}`.
    """
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "protojax": protojax.__version__,
        "commit": _commit(pathlib.Path(__file__).parents[2]),
        "packages": packages,
    }


def _commit(root: pathlib.Path) -> str | None:
    if not (root / ".git").exists():
        return None  # installed, not cloned
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None  # a clone on a machine without git
    return done.stdout.strip() or None

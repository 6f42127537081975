"""Files of weights, read as arrays; whatever else they hold is never run."""

import importlib
import os
import pathlib
import zipfile
import zlib
from types import ModuleType

import numpy as np

from protojax.models import torchfile

Path = str | os.PathLike[str]


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a weight file; whatever else it holds is never run.

    Args:
      path: a file `.npz`, `.safetensors` or `.pth` (also `.pt`, `.bin`), or
        `hf:OWNER/REPOSITORY/FILE` on the Hugging Face hub.

    Returns:
      Name -> array, as in the file. Text in an `.npz` is left out, and so are the
      counters of batches that PyTorch's batch norm keeps for training.

    Raises:
      FileNotFoundError: if there is no such file, or no network to fetch it by.
      ImportError: if the file needs a package that is not installed.
      ValueError: if the file cannot be read.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.npz")
    >>> np.savez(path, scale=np.ones(3), note="mine")
    >>> {name: array.shape for name, array in read(path).items()}
    {'scale': (3,)}
    """
    if str(path).startswith("hf:"):
        path = _fetch(str(path))
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no weight file {path}")
    readers = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        **dict.fromkeys((".pth", ".pt", ".bin"), torchfile.read),
    }
    if path.suffix not in readers:
        raise ValueError(
            f"{path.name} ends in {path.suffix!r}; take one of {', '.join(readers)}"
        )
    arrays = readers[path.suffix](path)
    return {
        name: array
        for name, array in arrays.items()
        if not name.endswith("num_batches_tracked")
    }


# What NumPy can raise where the bytes make no sense: a place before the beginning of
# the file is an OSError, a flag that says "encrypted" a RuntimeError.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(ValueError, TypeError, RuntimeError),
)


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except _DAMAGE as error:
            raise ValueError(
                f"{path.name} is cut off, no .npz, or holds Python objects, which are"
                f" never loaded ({error}): fetch it again, or save plain arrays"
            ) from error
    return {name: a for name, a in arrays.items() if a.dtype.kind not in "US"}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    safetensors = _extra("safetensors", "read .safetensors files")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = file.keys()  # the file itself cannot be iterated over
            return {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path.name} is cut off or no .safetensors ({error}): fetch it again"
        ) from error


def _fetch(address: str) -> str:
    """The local copy of a file on the hub: `hf:OWNER/REPOSITORY/FILE`."""
    parts = address.removeprefix("hf:").split("/", 2)
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"`path` is {address!r}; write hf:OWNER/REPOSITORY/FILE")
    purpose = "fetch weights from the Hugging Face hub"
    hub = _extra("huggingface_hub", purpose)
    errors = _extra("huggingface_hub.errors", purpose)
    try:
        return hub.hf_hub_download("/".join(parts[:2]), parts[2])
    except errors.LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{address} is not in the local cache and the hub cannot be reached: fetch"
            " the file where there is a network, and pass its path"
        ) from error
    except (errors.EntryNotFoundError, errors.RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"{address} is not on the hub, or not open to you: look at its page for"
            " owner, repository and file, and log in where it asks for that"
        ) from error


def _extra(package: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"to {purpose}, install {package.split('.')[0]}:"
            " pip install 'protojax[experiments]'"
        ) from error

"""PyTorch's zip files, read without PyTorch and without running what they contain.

A `.pth` file is a zip archive: a pickle (`data.pkl`) that says which tensors there are,
and one raw buffer for each storage (`data/0`, ...). A pickle may name any function to
be called, so the one used here admits exactly what a state dict needs - ordered dicts,
storages, and the rebuilding of tensors, which is done by our own code - and raises at
the first other name.
"""

import collections
import pathlib
import pickle
import zipfile
import zlib
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that `torch.save` wrote.

    A training checkpoint that holds the state dict under `state_dict` or `model` is
    opened, and the `module.` that data-parallel training puts before names is dropped.

    Args:
      path: a file in the zip format (the default since PyTorch 1.6).

    Returns:
      Name -> array, of the shape and type in the file, read-only.

    Raises:
      ValueError: if the file is not of this format, is damaged, holds anything else
        than tensors, or asks for code to be run: the message names what.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "weights.pth"
    >>> _ = path.write_bytes(b"not a zip archive")
    >>> read(path)
    Traceback (most recent call last):
    ...
    ValueError: weights.pth is no PyTorch zip file, or is cut off: fetch it again, ...
    """
    with path.open("rb") as stream:
        content = _read(stream, path.name)
    return _state_dict(content, path.name)


def _read(stream: IO[bytes], file: str) -> Any:
    try:
        with zipfile.ZipFile(stream) as archive:
            return _load(archive)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{file} is no PyTorch zip file, or is cut off: fetch it again, or, if"
            " it is older than PyTorch 1.6, write it again with torch.save"
        ) from error
    except _Forbidden as error:
        raise ValueError(
            f"{file} asks for {error} to be run, which no weights need: nothing"
            " was run; do not use this file, or save its state_dict() alone"
        ) from error
    except _DAMAGE as error:
        raise ValueError(
            f"{file} is damaged or no state dict ({error}): fetch it again, or"
            " save a state_dict() alone"
        ) from error


class _Forbidden(pickle.UnpicklingError):
    """A name that a state dict does not need."""


# What unzipping and unpickling can raise where the bytes make no sense.
_DAMAGE = (
    *(zlib.error, pickle.UnpicklingError, EOFError, OSError, AttributeError),
    *(LookupError, TypeError, ValueError, OverflowError, RuntimeError),
)


class _Storage(NamedTuple):
    data: bytes
    dtype: np.dtype


def _load(archive: zipfile.ZipFile) -> Any:
    files = archive.namelist()
    pickles = [name for name in files if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError("there is no data.pkl in it")
    folder = pickles[0].split("/")[0]
    order = f"{folder}/byteorder"
    big = order in files and archive.read(order) == b"big"

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in _ADMITTED:
                raise _Forbidden(f"{module}.{name}")
            return _ADMITTED[module, name]

        def persistent_load(self, pid: Any) -> _Storage:
            _, kind, key, _, count = pid
            dtype = np.dtype(_STORAGES[kind])
            data = archive.read(f"{folder}/data/{key}")
            if len(data) < count * dtype.itemsize:
                raise ValueError(f"storage {key} is shorter than it should be")
            return _Storage(data, dtype.newbyteorder(">") if big else dtype)

    with archive.open(pickles[0]) as file:
        return Unpickler(file).load()


class _Tensor:
    """Rebuilds a tensor; a function would do, but a pickle could set its attributes."""

    __slots__ = ()

    def __call__(
        self, storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any
    ) -> np.ndarray:
        data, dtype = storage
        size = dtype.itemsize
        steps = [size * stride for stride in strides]
        # A view into the storage; NumPy refuses one that would leave it.
        return np.ndarray(shape, dtype, data, size * offset, steps)


class _Parameter:
    """Rebuilds a parameter: the tensor in it."""

    __slots__ = ()

    def __call__(self, data: np.ndarray, *_: Any) -> np.ndarray:
        return data


_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    **{("torch", name): name for name in _STORAGES},
}


def _state_dict(content: Any, file: str) -> dict[str, np.ndarray]:
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ValueError(
            f"{file} holds a {type(content).__name__}, not a dict of tensors: save the"
            " model's state_dict()"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise ValueError(
                f"{file} holds a {type(value).__name__} named {name!r}, not a tensor:"
                " save the model's state_dict()"
            )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): v for name, v in content.items()}
    return dict(content)

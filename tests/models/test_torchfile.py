import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from protojax.models import torchfile


def archive(path, data_pkl, **storages):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data_pkl)
        for key, data in storages.items():
            file.writestr(f"archive/data/{key.removeprefix('_')}", data)
    return path


class Fake:
    """Pickles as the call of a function by that name, whatever there is here."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Global:
    """Pickles as the bare name `module.name`."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Writer(pickle._Pickler):
    """Writes `Global`s by name and `Storage`s by reference, as torch.save does."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None


class Storage:
    def __init__(self, *pid):
        self.pid = pid


class Tensor:
    """Pickles as torch's tensors do, with numbers of our choice."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, None)


def reduce_tensor(writer, tensor):
    writer.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
    writer.save(tensor.arguments)
    writer.write(pickle.REDUCE)


Writer.dispatch = {**pickle._Pickler.dispatch, Tensor: reduce_tensor}


def pickled(content):
    buffer = io.BytesIO()
    Writer(buffer, protocol=2).dump(content)
    return buffer.getvalue()


FLOATS = Global("torch", "FloatStorage")


def floats(count=6, key="0"):
    return Storage("storage", FLOATS, key, "cpu", count)


def test_a_hand_made_file_gives_its_tensors(tmp_path):
    content = {
        "a": Tensor(floats(), 0, (2, 3), (3, 1)),
        "transposed": Tensor(floats(), 0, (3, 2), (1, 3)),
        "tail": Tensor(floats(), 4, (2,), (1,)),
        "scalar": Tensor(floats(), 5, (), ()),
    }
    numbers = np.arange(6, dtype="<f4")
    path = archive(tmp_path / "a.pth", pickled(content), _0=numbers.tobytes())
    found = torchfile.read(path)
    np.testing.assert_array_equal(found["a"], numbers.reshape(2, 3))
    np.testing.assert_array_equal(found["transposed"], numbers.reshape(2, 3).T)
    np.testing.assert_array_equal(found["tail"], [4, 5])
    assert found["scalar"] == 5
    assert not found["a"].flags.writeable


@pytest.mark.parametrize(
    "function, name",
    [(os.mkdir, "posix.mkdir"), (os.system, "posix.system"), (eval, "builtins.eval")],
)
def test_a_pickle_that_calls_a_function_is_refused_by_name(function, name, tmp_path):
    path = archive(tmp_path / "a.pth", pickle.dumps({"a": Fake(function, "1")}))
    with pytest.raises(ValueError, match=f"asks for {name} to be run.*nothing was run"):
        torchfile.read(path)


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    ran = tmp_path / "ran"
    data = pickle.dumps({"a": Fake(os.mkdir, str(ran))})
    with pytest.raises(ValueError, match="nothing was run"):
        torchfile.read(archive(tmp_path / "a.pth", data))
    assert not ran.exists()
    pickle.loads(data)
    assert ran.exists()  # so the trap was a real one


@pytest.mark.parametrize("name", ["torch.load", "torch.nn.Linear", "collections.deque"])
def test_even_an_innocent_name_is_refused_if_weights_do_not_need_it(name, tmp_path):
    path = archive(tmp_path / "a.pth", pickled({"a": Global(*name.rsplit(".", 1))}))
    with pytest.raises(ValueError, match=f"asks for {name} "):
        torchfile.read(path)


@pytest.mark.parametrize(
    "offset, shape, strides",
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (0, (2,), (6,)),
        (-1, (1,), (1,)),
        (2, (2,), (-3,)),
        (0, (-1,), (1,)),
        (0, (2**62, 2**62), (1, 1)),
        (0, (2,), ()),
        ("0", (2,), (1,)),
    ],
)
def test_a_tensor_cannot_reach_outside_its_storage(offset, shape, strides, tmp_path):
    tensor = Tensor(floats(), offset, shape, strides)
    path = archive(tmp_path / "a.pth", pickled({"a": tensor}), _0=bytes(24))
    with pytest.raises(ValueError, match="a.pth is damaged"):
        torchfile.read(path)


def test_what_rebuilds_tensors_cannot_be_changed_by_a_pickle(tmp_path):
    # BUILD with (None, {"__call__": None}) would set that attribute
    attributes = b"N}X\x08\x00\x00\x00__call__Ns\x86b."
    data = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + attributes
    with pytest.raises(ValueError, match="'__call__' is read-only"):
        torchfile.read(archive(tmp_path / "a.pth", data))


@pytest.mark.parametrize(
    "storage",
    [
        floats(count=7),
        floats(key="1"),
        Storage("storage", "object", "0", "cpu", 1),
        Storage("module", FLOATS),
    ],
    ids=["short", "absent", "of objects", "of another kind"],
)
def test_a_storage_that_is_not_there_or_no_numbers_is_refused(storage, tmp_path):
    tensor = Tensor(storage, 0, (1,), (1,))
    path = archive(tmp_path / "a.pth", pickled({"a": tensor}), _0=bytes(24))
    with pytest.raises(ValueError, match="a.pth is damaged"):
        torchfile.read(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "a.pth holds a list, not a dict"),
        ({"epoch": 3}, "a.pth holds a int named 'epoch', not a tensor"),
        ({3: 4}, "a.pth holds a int named 3, not a tensor"),
    ],
)
def test_what_is_no_dict_of_tensors_is_named(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        torchfile.read(archive(tmp_path / "a.pth", pickled(content)))


def test_a_zip_without_tensors_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as file:
        file.writestr("archive/readme", "nothing")
    with pytest.raises(ValueError, match="no data.pkl"):
        torchfile.read(tmp_path / "a.pth")


def test_every_type_that_pytorch_saves_is_read_back(tmp_path):
    torch = pytest.importorskip("torch")
    kinds = ["float64", "float32", "float16", "bfloat16", "bool"]
    kinds += ["int64", "int32", "int16", "int8", "uint8"]
    saved = {kind: torch.arange(6).to(getattr(torch, kind)) for kind in kinds}
    saved["empty"] = torch.zeros(0, 3)
    saved["view"] = torch.arange(24.0).reshape(4, 6)[1:3, ::2].T
    saved["expanded"] = torch.ones(1, 3).expand(4, 3)
    saved["parameter"] = torch.nn.Parameter(torch.ones(2))
    torch.save(saved, tmp_path / "a.pth")
    found = torchfile.read(tmp_path / "a.pth")
    assert set(found) == set(saved)
    for name, tensor in saved.items():
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        wanted = tensor.detach().to(torch.float64).numpy()
        np.testing.assert_array_equal(found[name].astype("float64"), wanted)


def test_a_big_endian_file_is_read_with_its_order(tmp_path):
    path = tmp_path / "a.pth"
    content = {"a": Tensor(floats(2), 0, (2,), (1,))}
    numbers = np.array([1.5, -2.0], ">f4")
    archive(path, pickled(content), _0=numbers.tobytes())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(torchfile.read(path)["a"], [1.5, -2.0])


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_training_checkpoint_of_many_devices_is_opened(key, tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 3))
    state = torch.nn.DataParallel(net).state_dict()
    torch.save({key: state, "epoch": 3, "best": 0.9}, tmp_path / "a.pth")
    found = torchfile.read(tmp_path / "a.pth")
    assert sorted(found) == ["0.bias", "0.weight"]
    np.testing.assert_array_equal(found["0.weight"], net[0].weight.detach().numpy())


def test_the_old_format_is_refused_with_what_to_do(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="older than PyTorch 1.6, write it again"):
        torchfile.read(path)


def test_a_whole_saved_module_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 3), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="asks for torch.nn.modules.linear.Linear"):
        torchfile.read(tmp_path / "a.pth")

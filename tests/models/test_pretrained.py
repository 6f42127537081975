import itertools
import os
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from protojax.models import convnet, pretrained, vit

REAL = {
    "squeezenet1_1": pretrained.squeezenet1_1,
    "mobilenet_v2": pretrained.mobilenet_v2,
    "mobilenet_v1_025": pretrained.mobilenet_v1_025,
    "cifar10_resnet20": lambda path: pretrained.cifar10_resnet(path, depth=20),
    "cifar10_resnet56": lambda path: pretrained.cifar10_resnet(path, depth=56),
}


def check_real(name, count, folder):
    cifar = name.startswith("cifar10")
    prefix = "" if cifar else "imagenet_"
    model, variables = REAL[name](folder / f"{prefix}{name}.npz")
    wanted = np.load(folder / "reference_logits.npz")[name][:count]
    file, key = ("cifar10", "x_test") if cifar else ("imagenet_samples_224", "images")
    images = np.load(folder / f"{file}.npz")[key][: len(wanted)] / np.float32(255)

    def logits(x):
        if name == "mobilenet_v1_025":
            x = jax.image.resize(x, (128, 128, 3), "bilinear", antialias=True)
        return model.apply(variables, x)

    found = jax.jit(lambda xs: jax.lax.map(logits, xs, batch_size=5))(images)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)
    assert np.array_equal(np.argmax(found, 1), np.argmax(wanted, 1))
    assert name != "squeezenet1_1" or np.min(found) >= 0


@pytest.mark.realdata
@pytest.mark.parametrize("name", sorted(set(REAL) - {"cifar10_resnet56"}))
def test_pretrained_networks_give_the_reference_logits(name, data_folder):
    check_real(name, 5, data_folder)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_pretrained_networks_give_all_the_reference_logits(name, data_folder):
    check_real(name, None, data_folder)


MODEL = convnet.ConvNet(classes=2, widths=(8,), groups=4)


@pytest.fixture
def weights():
    draw = np.random.default_rng(0)
    shapes = {
        "conv1.weight": (8, 3, 3, 3),
        "conv1.bias": (8,),
        "norm1.weight": (8,),
        "norm1.bias": (8,),
        "head.weight": (2, 8),
        "head.bias": (2,),
    }
    return {k: draw.normal(size=s).astype("float32") for k, s in shapes.items()}


def save(path, weights):
    if path.suffix == ".npz":
        np.savez(path, **weights)
    elif path.suffix == ".safetensors":
        pytest.importorskip("safetensors.numpy").save_file(weights, path)
    else:
        torch = pytest.importorskip("torch")
        torch.save({k: torch.tensor(v) for k, v in weights.items()}, path)
    return path


FORMATS = ["npz", "safetensors", "pth", "pt", "bin"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_fills_the_same_variables_in_our_layout(suffix, tmp_path, weights):
    path = save(tmp_path / f"weights.{suffix}", weights)
    params = pretrained.load(path, MODEL, image_size=16)["params"]
    like = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((16, 16, 3)))
    assert jax.tree.structure(params) == jax.tree.structure(like["params"])
    kernel = np.asarray(params["conv1"]["kernel"])
    out, into, row, column = 5, 1, 0, 2
    assert kernel.shape == (3, 3, 3, 8)
    assert kernel[row, column, into, out] == weights["conv1.weight"][5, 1, 0, 2]
    np.testing.assert_array_equal(params["head"]["kernel"], weights["head.weight"].T)
    np.testing.assert_array_equal(params["norm1"]["scale"], weights["norm1.weight"])


def test_half_precision_becomes_float32_and_counters_and_notes_are_left_out(
    tmp_path, weights
):
    weights = {name: array.astype("float16") for name, array in weights.items()}
    extra = {"norm1.num_batches_tracked": np.asarray(7), "note": np.asarray("mine")}
    path = save(tmp_path / "weights.npz", weights | extra)
    variables = pretrained.load(path, MODEL, image_size=16)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_names_map_the_outermost_module(tmp_path, weights):
    renamed = {k.replace("conv1", "features.0"): v for k, v in weights.items()}
    path = save(tmp_path / "weights.npz", renamed)
    names = {"conv1": "features.0"}
    params = pretrained.load(path, MODEL, image_size=16, names=names)["params"]
    np.testing.assert_array_equal(params["conv1"]["bias"], weights["conv1.bias"])


def test_what_is_missing_left_over_or_of_another_shape_is_named(tmp_path, weights):
    weights["head.weight"] = np.zeros((3, 8), "float32")
    weights["fc.weight"] = weights.pop("norm1.bias")
    path = save(tmp_path / "weights.npz", weights)
    with pytest.raises(ValueError) as caught:
        pretrained.load(path, MODEL, image_size=16)
    assert str(caught.value).splitlines() == [
        "weights.npz does not fit ConvNet:",
        "  missing: norm1.bias",
        "  left over: fc.weight",
        "  other shape (in our layout): head.weight is (8, 3), not (8, 2)",
    ]


def test_two_arrays_of_one_name_are_refused(tmp_path, weights):
    path = save(tmp_path / "weights.npz", weights | {"conv1_bias": np.zeros(8)})
    with pytest.raises(ValueError, match=r"two arrays .*calls conv1\.bias, conv1_bias"):
        pretrained.load(
            path, MODEL, image_size=16, rename=lambda name: name.replace("_", ".")
        )


def test_position_embeddings_depend_on_the_image_size(tmp_path):
    model = vit.VisionTransformer(classes=2, width=8, depth=0, heads=1)
    weights = {
        "cls_token": np.zeros((1, 1, 8)),
        "pos_embed": np.zeros((1, 17, 8)),
        "patch_embed.proj.weight": np.zeros((8, 3, 8, 8)),
        "patch_embed.proj.bias": np.zeros(8),
        "norm.weight": np.zeros(8),
        "norm.bias": np.zeros(8),
        "head.weight": np.zeros((2, 8)),
        "head.bias": np.zeros(2),
    }
    path = save(tmp_path / "weights.npz", weights)
    variables = pretrained.load(path, model, image_size=32)
    assert variables["params"]["pos_embed"].shape == (1, 17, 8)
    with pytest.raises(
        ValueError, match=r"pos_embed is \(1, 17, 8\), not \(1, 37, 8\)"
    ):
        pretrained.load(path, model, image_size=48)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_cut_off_at_any_place_is_refused_by_name(suffix, tmp_path, weights):
    path = save(tmp_path / f"weights.{suffix}", weights)
    whole = path.read_bytes()
    for part in (0.0, 0.01, 0.4, 0.9, 0.99):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ValueError, match=f"weights.{suffix} is"):
            pretrained.read(path)


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "pth"])
def test_a_file_of_noise_is_refused_by_name(suffix, tmp_path):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(ValueError, match=f"weights.{suffix} is"):
        pretrained.read(path)


def test_a_file_damaged_in_the_middle_is_refused_by_name(tmp_path, weights):
    np.savez_compressed(tmp_path / "weights.npz", **weights)
    damaged = bytearray((tmp_path / "weights.npz").read_bytes())
    damaged[200:240] = bytes(40)
    (tmp_path / "weights.npz").write_bytes(damaged)
    with pytest.raises(ValueError, match="weights.npz is cut off"):
        pretrained.read(tmp_path / "weights.npz")


@pytest.mark.parametrize(
    "suffix", ["npz", "safetensors", pytest.param("pth", marks=pytest.mark.slow)]
)
def test_a_file_with_any_byte_changed_is_read_or_refused_by_name(suffix, tmp_path):
    path = save(tmp_path / f"weights.{suffix}", {"a": np.ones(3, "float32")})
    whole, refused = path.read_bytes(), 0
    for place, change in itertools.product(range(len(whole)), (1, 0xFF)):
        changed = bytearray(whole)
        changed[place] ^= change
        path.write_bytes(changed)
        try:
            pretrained.read(path)
        except ValueError as error:
            refused += 1
            assert path.name in str(error)
    assert refused > len(whole) / 4


def test_a_single_array_is_no_weight_file(tmp_path):
    np.save(tmp_path / "weights.npy", np.ones(3))
    path = (tmp_path / "weights.npy").rename(tmp_path / "weights.npz")
    with pytest.raises(ValueError, match="weights.npz is cut off, no .npz"):
        pretrained.read(path)


def test_a_missing_file_or_an_unknown_ending_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weight file .*nothing.npz"):
        pretrained.read(tmp_path / "nothing.npz")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in '\.h5'; take one of \.npz"):
        pretrained.read(tmp_path / "weights.h5")


class Trap:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_an_npz_that_would_run_code_is_refused_and_not_run(tmp_path):
    ran = tmp_path / "ran"
    np.savez(tmp_path / "weights.npz", trap=np.array([Trap(ran)], dtype=object))
    with pytest.raises(ValueError, match="Python objects, which are never loaded"):
        pretrained.read(tmp_path / "weights.npz")
    assert not ran.exists()
    with np.load(tmp_path / "weights.npz", allow_pickle=True) as file:
        file["trap"]
    assert ran.exists()  # so the trap was a real one


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"install safetensors: pip install 'protojax"
    ):
        pretrained.read(path)
    with pytest.raises(ImportError, match=r"install huggingface_hub: pip install"):
        pretrained.read("hf:owner/repository/weights.npz")


@pytest.fixture
def hub(monkeypatch):
    """A hub that nobody can reach, with one file in its cache."""
    hub = types.ModuleType("huggingface_hub")
    hub.errors = types.ModuleType("huggingface_hub.errors")
    for name in ("EntryNotFoundError", "RepositoryNotFoundError"):
        setattr(hub.errors, name, type(name, (OSError,), {}))
    absent = (FileNotFoundError, hub.errors.EntryNotFoundError)
    hub.errors.LocalEntryNotFoundError = type("NotFound", absent, {})
    hub.cache = {}

    def download(repository, file):
        if (repository, file) not in hub.cache:
            raise hub.errors.LocalEntryNotFoundError
        return str(hub.cache[repository, file])

    hub.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", hub.errors)
    return hub


def test_a_file_on_the_hub_is_read_from_its_local_copy(hub, tmp_path, weights):
    hub.cache["owner/repository", "sub/a.npz"] = save(tmp_path / "a.npz", weights)
    found = pretrained.read("hf:owner/repository/sub/a.npz")
    np.testing.assert_array_equal(found["head.bias"], weights["head.bias"])
    assert pretrained.load("hf:owner/repository/sub/a.npz", MODEL, image_size=16)


def test_a_file_on_a_hub_out_of_reach_is_named(hub):
    with pytest.raises(
        FileNotFoundError, match="hf:o/r/a.npz is not in the local cache"
    ):
        pretrained.read("hf:o/r/a.npz")
    assert not hub.cache


@pytest.mark.parametrize("kind", ["EntryNotFoundError", "RepositoryNotFoundError"])
def test_a_file_that_the_hub_does_not_have_is_named(hub, monkeypatch, kind):
    def download(repository, file):
        raise getattr(hub.errors, kind)(repository, file)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(FileNotFoundError, match="hf:o/r/a.npz is not on the hub, or"):
        pretrained.read("hf:o/r/a.npz")


def test_the_real_hub_says_so_when_it_is_offline(monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="the hub cannot be reached"):
        pretrained.read("hf:owner/no-such-repository/weights.npz")


@pytest.mark.parametrize("address", ["hf:", "hf:owner/repository", "hf:owner//a.npz"])
def test_an_incomplete_address_is_refused(address):
    with pytest.raises(ValueError, match="write hf:OWNER/REPOSITORY/FILE"):
        pretrained.read(address)

import itertools
import pathlib
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from protojax.scale import checkpoints, data, training

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))


def loss(params, extra, batch, key):
    x = batch["image"].mean((1, 2)) + 0.01 * jax.random.normal(key, (1, 3))
    each = optax.softmax_cross_entropy_with_integer_labels(
        x @ params["kernel"], batch["label"]
    )
    return each.mean(), ({"seen": extra["seen"] + 1}, {})


def start(width=8):
    params = {"kernel": jnp.ones((3, width))}
    extra = {"seen": jnp.zeros((), jnp.int32)}
    return training.init(params, OPTIMIZER, key=jax.random.key(5), extra=extra)


def run(state, count):
    batches = data.batches(
        "parts:12", "train", size=4, image_size=16, seed=0, start=int(state.step)
    )
    few = itertools.islice(batches, count)
    *_, (state, _) = training.train(loss, state, few, OPTIMIZER)
    return state


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    state = run(start(), 4)
    checkpoints.save(folder, state, {"rate": 0.01})
    return folder, state


@pytest.fixture
def saved(written, tmp_path):
    folder, state = written
    return pathlib.Path(shutil.copytree(folder, tmp_path / "saved")), state


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_training_goes_on_to_the_bit_as_if_never_stopped(saved):
    folder, _ = saved
    restored = checkpoints.restore(folder, start())
    assert_same(run(restored, 5), run(start(), 9))


def test_a_state_comes_back_from_its_shapes_alone(saved):
    folder, state = saved
    assert_same(checkpoints.restore(folder, jax.eval_shape(start)), state)
    assert checkpoints.config(folder) == {"rate": 0.01}


def test_the_newest_stay_and_each_can_be_asked_for(tmp_path):
    states = [start()._replace(step=jnp.asarray(i)) for i in range(5)]
    for state in states:
        assert checkpoints.save(tmp_path, state, {"at": int(state.step)}, keep=2)
    assert checkpoints.steps(tmp_path) == [3, 4]
    assert int(checkpoints.restore(tmp_path, start()).step) == 4
    assert int(checkpoints.restore(tmp_path, start(), step=3).step) == 3
    assert checkpoints.config(tmp_path, step=3) == {"at": 3}


def test_a_step_that_is_there_is_left_and_an_earlier_one_refused(saved):
    folder, state = saved
    assert not checkpoints.save(folder, state, {})
    assert checkpoints.config(folder) == {"rate": 0.01}
    with pytest.raises(ValueError, match="holds step 4, later than 0"):
        checkpoints.save(folder, start(), {})
    with pytest.raises(ValueError, match="`keep` must be 1"):
        checkpoints.save(folder, state, {}, keep=0)


def test_checkpoints_are_written_while_training_goes_on(tmp_path):
    with checkpoints.saving(tmp_path) as save:
        batches = data.batches("parts:12", "train", size=4, image_size=16, seed=0)
        few = itertools.islice(batches, 3)
        states = []
        for state, _ in training.train(loss, start(), few, OPTIMIZER):
            assert save(state, {"at": int(state.step)})
            states.append(jax.device_get(state))  # the next step takes its memory
            assert not save(state, {})
    assert checkpoints.steps(tmp_path) == [1, 2, 3]
    for state in states:
        found = checkpoints.restore(tmp_path, start(), step=int(state.step))
        assert_same(found, state)


@pytest.fixture
def full():
    """A disk that holds no file of more than a few thousand bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Orbax writes concurrently: what was still under way complains later.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_is_told_and_the_training_goes_on_later(tmp_path, full):
    noise = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    state = training.init({"w": noise}, optax.sgd(0.1), key=jax.random.key(0))
    with (
        pytest.raises(checkpoints.UnwrittenCheckpoint, match=r"there are \[\]. Make"),
        checkpoints.saving(tmp_path) as save,
    ):
        save(state, {})
    full()
    assert checkpoints.steps(tmp_path) == []
    assert checkpoints.save(tmp_path, state, {})
    assert_same(checkpoints.restore(tmp_path, state), state)
    assert not list(tmp_path.glob("*tmp*"))


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    message = r"inside could not be written .*there are \[\]. Make room, or the folder"
    with pytest.raises(checkpoints.UnwrittenCheckpoint, match=message):
        checkpoints.save(tmp_path / "file" / "inside", start(), {})


def test_a_bucket_that_orbax_cannot_write_to_is_told_before_anything_is_trained():
    for call in (lambda f: checkpoints.save(f, start(), {}), checkpoints.steps):
        with pytest.raises(ValueError, match="s3://mine/a: .* in gs:// alone, pass"):
            call("s3://mine/a")


def test_a_missing_checkpoint_is_named(saved):
    folder, _ = saved
    with pytest.raises(checkpoints.MissingCheckpoint, match="no checkpoint in"):
        checkpoints.restore(folder / "none", start())
    with pytest.raises(checkpoints.MissingCheckpoint, match=r"step 7 in .* are \[4\]"):
        checkpoints.restore(folder, start(), step=7)
    assert not (folder / "none").exists()
    assert checkpoints.steps(folder / "none") == []


def test_a_checkpoint_of_another_network_is_told(saved):
    folder, _ = saved
    with pytest.raises(ValueError, match=r"float32 \[3, 8\], not float32 \[3, 9\]"):
        checkpoints.restore(folder, start(width=9))
    other = start()._replace(params={"weight": jnp.ones((3, 8))})
    with pytest.raises(ValueError, match=r"params\['weight'\] is missing.*left over"):
        checkpoints.restore(folder, other)


# Orbax reads arrays concurrently: those that were still under way complain later.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "damage", ["cut", "flip", "lost", "metadata", "arrays", "empty"]
)
def test_a_damaged_checkpoint_is_told(saved, damage):
    folder, _ = saved
    inside = folder / "4"
    files = [f for f in inside.rglob("*") if f.is_file()]
    if damage == "metadata":
        files = [f for f in files if f.name == "_METADATA"]
    elif damage == "arrays":
        shutil.rmtree(inside / "arrays")
        files = []
    elif damage != "empty":
        files = [f for f in files if f.parent.name == "d"]
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(_damaged(whole, damage))
    with pytest.raises(checkpoints.BrokenCheckpoint, match=r"checkpoint 4 in"):
        checkpoints.restore(folder, start())


def _damaged(whole, damage):
    half = len(whole) // 2
    if damage == "flip":
        return whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
    return whole[:half] if damage in ("cut", "metadata") else b""


def test_arrays_that_are_not_what_was_written_are_told(tmp_path):
    params = {"kernel": jax.random.normal(jax.random.key(0), (64, 64))}
    state = training.init(params, optax.sgd(0.1), key=jax.random.key(0))
    checkpoints.save(tmp_path, state, {})
    inventory = tmp_path / "0" / "arrays" / "metadata"
    text = inventory.read_text()
    check = checkpoints._inventory(state)[".params['kernel']"][2]
    inventory.write_text(text.replace(str(check), str(check + 1)))
    with pytest.raises(checkpoints.BrokenCheckpoint, match="are not what was written"):
        checkpoints.restore(tmp_path, state)

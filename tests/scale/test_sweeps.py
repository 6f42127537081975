import functools
import json
import os
import pathlib
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protojax.scale import fitting, report, rows, storage, sweeps

KEY = jax.random.key(7)
WEIGHTS = jnp.asarray([1.0, 2.0, 3.0])


def examples(count=7):
    image = np.arange(count * 3, dtype=np.float32).reshape(count, 3) / 10
    return {"image": image, "id": np.arange(count) * 5 + 100}


def one(weights, example, key, *, radius, power=1):
    noise = jax.random.uniform(key, (3,))
    moved = example["image"] + radius * noise
    return {"loss": jnp.sum(weights * moved**power), "moved": moved, "ok": radius > 0}


def expected(setting, example, ident):
    noise = jax.random.uniform(jax.random.fold_in(KEY, ident), (3,))
    moved = example + setting["radius"] * noise
    return float(jnp.sum(WEIGHTS * moved ** setting.get("power", 1)))


def read(folder):
    table = pq.read_table(pathlib.Path(folder, "rows"))
    return sorted(
        table.to_pylist(),
        key=lambda r: (r.get("power", 0), r["id"], r.get("radius", 0)),
    )


def without_times(found):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


def test_a_grid_is_the_product_with_the_last_axis_fastest():
    assert sweeps.grid(a=[1, 2], b=["x", "y"]) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    with pytest.raises(ValueError, match="`attack` is the text 'top_k': pass a list"):
        sweeps.grid(attack="top_k")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One sweep that most tests look at."""
    folder = tmp_path_factory.mktemp("finished")
    settings = sweeps.grid(power=[1, 2], radius=[0.1, 0.4])
    sweeps.run(
        *(one, WEIGHTS, settings, examples(), folder), key=KEY, chunk=3, keep=[105]
    )
    return folder


def test_every_row_is_the_function_at_its_example_setting_and_folded_key(finished):
    found = read(finished)
    assert len(found) == 7 * 4
    data = examples()
    for row in found:
        image = data["image"][list(data["id"]).index(row["id"])]
        value = expected(row, image, row["id"])
        np.testing.assert_allclose(row["loss"], value, rtol=1e-5)


def test_the_same_sweep_on_one_and_on_four_devices_gives_the_same_rows(
    finished, tmp_path
):
    settings = sweeps.grid(power=[1, 2], radius=[0.1, 0.4])
    folder = tmp_path / "one"
    sweeps.run(
        *(one, WEIGHTS, settings, examples(), folder),
        key=KEY,
        chunk=3,
        keep=[105],
        devices=jax.devices()[:1],
    )
    assert len(jax.devices()) == 4
    assert without_times(read(folder)) == without_times(read(finished))


def test_another_chunk_gives_the_same_rows(finished, tmp_path):
    settings = sweeps.grid(power=[1, 2], radius=[0.1, 0.4])
    sweeps.run(one, WEIGHTS, settings, examples(), tmp_path, key=KEY, chunk=7)
    assert without_times(read(tmp_path)) == without_times(read(finished))


def test_columns_are_typed_and_the_metadata_says_how_a_part_was_made(finished):
    parts = sorted((finished / "rows").glob("*.parquet"))
    assert len(parts) == 4 * 3
    schema = pq.read_schema(parts[0])
    assert {field.name: str(field.type) for field in schema} == {
        "id": "int64",
        "power": "int64",
        "radius": "double",
        "loss": "float",
        "ok": "bool",
        "seconds": "double",
    }
    made = rows.metadata(parts[0])
    assert made["packages"]["jax"] == jax.__version__
    assert made["protojax"] == storage.versions()["protojax"]
    assert made["devices"] == "4 x cpu"
    assert made["config"] == storage.config(finished)
    assert made["setting"]["radius"] in (0.1, 0.4)
    assert made["compile_seconds"] > 0 and made["nulls"] == {}
    assert made["config"]["sweep"]["function"] == "one"


def test_arrays_are_kept_for_the_chosen_examples_only(finished):
    files = sorted((finished / "arrays").glob("*.npz"))
    assert len(files) == 4  # one chunk of each setting has the example
    kept = np.load(files[0])
    radius = json.loads(str(kept["setting"]))["radius"]
    noise = jax.random.uniform(jax.random.fold_in(KEY, 105), (3,))
    assert kept["id"].tolist() == [105]
    np.testing.assert_allclose(
        kept["moved"], (examples()["image"][1] + radius * noise)[None], rtol=1e-6
    )


def test_settings_that_differ_in_floats_share_a_program(tmp_path):
    traced = chex.assert_max_traces(one, n=2)
    settings = sweeps.grid(radius=[0.1, 0.2, 0.3], power=[1, 2])
    sweeps.run(traced, WEIGHTS, settings, examples(), tmp_path, key=KEY, chunk=2)
    assert len(read(tmp_path)) == 6 * 7


def test_nan_and_infinity_are_null_and_counted(tmp_path):
    def odd(weights, x, key):
        del weights, key
        return {"log": jnp.log(x), "inverse": 1 / x}

    values = np.asarray([-1.0, 0.0, 1.0], np.float32)
    sweeps.run(odd, (), [{}], values, tmp_path, key=KEY, chunk=3)
    table = pq.read_table(tmp_path / "rows")
    assert table["log"].to_pylist() == [None, None, 0.0]
    assert table["inverse"].to_pylist() == [-1.0, None, 1.0]
    (part,) = (tmp_path / "rows").iterdir()
    assert rows.metadata(part)["nulls"] == {"inverse": 1, "log": 2}


def test_a_sweep_cut_off_by_a_full_disk_goes_on_where_it_was(
    finished, tmp_path, monkeypatch
):
    settings = sweeps.grid(power=[1, 2], radius=[0.1, 0.4])
    arguments = (one, WEIGHTS, settings, examples(), tmp_path)
    sync, count = os.fsync, iter(range(100))

    def full(handle):
        if next(count) == 9:  # two synchronisations a file: amid the fourth part
            raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        sweeps.run(*arguments, key=KEY, chunk=3, keep=[105])
    monkeypatch.setattr(os, "fsync", sync)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "rows").iterdir()}
    assert 0 < len(before) < 12
    assert all(p.suffix == ".parquet" and pq.read_table(p) for p in before)
    traced = chex.assert_max_traces(one, n=2)
    traced.__qualname__ = "one"
    sweeps.run(traced, *arguments[1:], key=KEY, keep=[105])  # the chunk is known
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert without_times(read(tmp_path)) == without_times(read(finished))


def test_a_finished_sweep_compiles_nothing_and_more_settings_only_add(tmp_path):
    settings = sweeps.grid(radius=[0.1])
    sweeps.run(one, WEIGHTS, settings, examples(), tmp_path, key=KEY)
    again = chex.assert_max_traces(one, n=0)
    again.__qualname__ = "one"
    sweeps.run(again, WEIGHTS, settings, examples(), tmp_path, key=KEY)
    more = settings + sweeps.grid(radius=[0.2])
    sweeps.run(one, WEIGHTS, more, examples(), tmp_path, key=KEY)
    assert [row["radius"] for row in read(tmp_path)] == [0.1, 0.2] * 7


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weights": WEIGHTS * 2}, "`weights`"),
        ({"examples": {**examples(), "image": examples()["image"] + 1}}, "`examples`"),
        ({"key": jax.random.key(8)}, "`key`"),
        ({"chunk": 4}, r"`chunk` \(3 there, 4 here\)"),
        ({"keep": [100]}, r"`keep` \(\[105\] there, \[100\] here\)"),
        ({"one": lambda *_, radius, power: {}}, "`function`"),  # noqa: ARG005
    ],
    ids=["weights", "examples", "key", "chunk", "keep", "function"],
)
def test_a_folder_of_another_sweep_is_refused(finished, change, named):
    usual = {
        "one": one,
        "weights": WEIGHTS,
        "settings": sweeps.grid(power=[1, 2], radius=[0.1, 0.4]),
        "examples": examples(),
        "key": KEY,
        "keep": [105],
    }
    with pytest.raises(ValueError, match=f"differing: {named}.*Choose another folder"):
        sweeps.run(**usual | change, folder=finished)


def test_a_folder_without_results_may_be_claimed_anew(tmp_path):
    storage.claim(tmp_path, "config", {"steps": 1})
    assert storage.claim(tmp_path, "config", {"steps": 2})["config"] == {"steps": 2}
    storage.write(tmp_path / "rows" / "part.parquet", lambda file: file.write(b""))
    with pytest.raises(ValueError, match=r"`steps` \(2 there, 3 here\)"):
        storage.claim(tmp_path, "config", {"steps": 3})
    for damaged in (b'{"config"', b"[1]", b"\xff\xfe"):
        (tmp_path / "config.json").write_bytes(damaged)
        with pytest.raises(ValueError, match="config.json is not JSON.*delete it"):
            storage.claim(tmp_path, "config", {"steps": 2})


def test_parts_without_their_config_still_refuse_another_sweep(tmp_path):
    arguments = (one, WEIGHTS, sweeps.grid(radius=[0.1]), examples(), tmp_path)
    sweeps.run(*arguments, key=KEY)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="parquet is of another configuration.*`key`"):
        sweeps.run(*arguments, key=jax.random.key(8))


def test_a_sweep_that_another_one_took_the_folder_from_writes_nothing(
    tmp_path, monkeypatch
):
    """Of two that begin at once, until one has a part, the last has the folder."""
    knobs = {"settings": sweeps.grid(radius=[0.1]), "folder": tmp_path, "key": KEY}
    usual = fitting.fitted

    def fitted(*args):
        storage.claim(tmp_path, "sweep", {**storage.config(tmp_path)["sweep"]} | new)
        return usual(*args)

    new = {"chunk": 4}
    monkeypatch.setattr(fitting, "fitted", fitted)
    with pytest.raises(ValueError, match=r"`chunk` \(4 there, 3 here\)"):
        sweeps.run(one, WEIGHTS, examples=examples(), chunk=3, **knobs)
    assert not (tmp_path / "rows").exists()


def test_a_damaged_part_is_named_with_the_remedy(tmp_path):
    arguments = (one, WEIGHTS, sweeps.grid(radius=[0.1]), examples(), tmp_path)
    sweeps.run(*arguments, key=KEY)
    (part,) = (tmp_path / "rows").iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"{part.name} cannot be read.*Delete it"):
        sweeps.run(*arguments, key=KEY)
    part.unlink()
    sweeps.run(*arguments, key=KEY)
    assert len(read(tmp_path)) == 7


def test_ctrl_c_finishes_the_part_in_flight_and_says_how_to_go_on(
    tmp_path, monkeypatch
):
    usual, handler = rows.write, signal.getsignal(signal.SIGINT)

    def write(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)  # amid the part
        usual(*args, **kwargs)

    monkeypatch.setattr(rows, "write", write)
    arguments = (one, WEIGHTS, sweeps.grid(radius=[0.1]), examples(), tmp_path)
    with pytest.raises(KeyboardInterrupt, match="left after SIGINT.*run the same"):
        sweeps.run(*arguments, key=KEY, chunk=3)
    assert len(read(tmp_path)) == 3
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": []}, r"`settings` is empty: pass \[\{\}\]"),
        ({"settings": [{"radius": np.nan}]}, "setting `radius` is nan"),
        ({"settings": [{"radius": 0.1}] * 2}, "given twice"),
        ({"settings": [{"radius": 0.1}, {"radius": 1}]}, "sometimes double .*1.0 for"),
        ({"settings": [{"radius": np.ones(2)}]}, "`radius` is a ndarray"),
        ({"settings": [{"id": 1}]}, "a setting is named `id`"),
        ({"chunk": 0}, "`chunk` is 0: pass at least 1"),
        ({"key": jnp.zeros(2, jnp.uint32)}, "pass a typed key"),
        ({"keep": [3]}, r"`keep` names \[3\]"),
        ({"devices": []}, "`devices` is empty"),
        ({"examples": np.ones([0, 3])}, "non-zero number of examples"),
        ({"examples": {"image": np.ones([3]), "id": np.arange(2)}}, "the same"),
        ({"examples": {"id": np.asarray([1, 1])}}, "`id` 1 comes twice"),
        ({"examples": {"id": np.asarray([-1, 1])}}, "`id` spans -1 to 1"),
        ({"examples": {"id": np.asarray([0.5, 1])}}, "`id` is float64"),
        ({"one": lambda *_, radius: radius}, "return a dict"),
        ({"one": lambda *_, radius: {"radius": radius}}, "returns `radius`, which"),
        ({"one": lambda *_, radius: {"seconds": radius}}, "returns `seconds`, which"),
        (
            {"one": lambda *_, radius: {"z": 1j * radius}},
            "returns `z`, which is complex",
        ),
    ],
)
def test_bad_input_is_named_with_its_remedy(tmp_path, change, message):
    usual = {
        "one": one,
        "weights": WEIGHTS,
        "settings": sweeps.grid(radius=[0.1]),
        "examples": examples(),
        "key": KEY,
    }
    with pytest.raises(ValueError, match=message):
        sweeps.run(**usual | change, folder=tmp_path)
    assert not (tmp_path / "rows").exists()


def test_numpy_numbers_none_text_and_tuples_are_settings(tmp_path):
    def sizes(weights, x, key, *, scale, name, shape, beta):
        del weights, key
        assert isinstance(shape, tuple) and name in ("a", "b")
        return {"value": x * scale * len(shape) * (1.0 if beta is None else beta)}

    settings = [
        {"scale": np.float32(2), "name": "a", "shape": (1, 2), "beta": None},
        {"scale": 3.0, "name": "b", "shape": (1,), "beta": 10.0},
    ]
    sweeps.run(sizes, (), settings, jnp.ones(1), tmp_path, key=KEY, chunk=1)
    first, second = sorted(read(tmp_path), key=lambda row: row["scale"])
    assert (first["value"], second["value"]) == (4.0, 30.0)
    assert first["shape"] == "[1, 2]" and first["beta"] is None
    table = pq.read_table(tmp_path / "rows")
    assert table.schema.field("beta").type == pa.float64()


def test_a_plan_names_programs_memory_and_time_and_writes_nothing(tmp_path):
    settings = sweeps.grid(power=[1, 2], radius=[0.1, 0.2, 0.3])
    planned = sweeps.plan(one, WEIGHTS, settings, examples(), chunk=4)
    assert [p.static for p in planned] == [{"power": 1}, {"power": 2}]
    assert {(p.settings, p.examples) for p in planned} == {(3, 7)}
    lane = 4 * 3 + 4  # an image and an id on each of the four devices
    assert all(lane < p.bytes < 10_000 for p in planned)
    assert all(p.seconds > p.compile_seconds > 0 for p in planned)
    text = sweeps.outline(planned)
    assert "| power=2 | 3 | 7 |" in text
    assert "2 programs, 42 rows" in text
    assert not list(tmp_path.iterdir())


def test_a_program_takes_as_many_examples_as_there_is_memory_for(
    finished, tmp_path, monkeypatch
):
    settings = sweeps.grid(power=[1, 2], radius=[0.1, 0.4])
    one_device = jax.devices()[:1]
    run = functools.partial(sweeps.plan, one, WEIGHTS, settings, examples())
    (whole, _) = run(devices=one_device)
    assert whole.lanes == 7  # eight would be usual
    limit = whole.bytes - 1
    monkeypatch.setattr(fitting, "room", lambda _: limit)
    fewer = run(devices=one_device)
    assert all(p.lanes < 7 and p.bytes <= limit for p in fewer)
    assert run(devices=one_device, chunk=7)[0].lanes == 7  # as it is given
    sweeps.run(
        *(one, WEIGHTS, settings, examples(), tmp_path),
        key=KEY,
        keep=[105],
        devices=one_device,
    )
    assert without_times(read(tmp_path)) == without_times(read(finished))
    assert {row["id"] for row in report.arrays(tmp_path)} == {105}
    assert storage.config(tmp_path)["sweep"]["chunk"] == 8


def test_where_one_example_is_too_much_it_is_tried_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(fitting, "room", lambda _: 10)
    settings = sweeps.grid(radius=[0.1])
    (planned,) = sweeps.plan(one, WEIGHTS, settings, examples())
    assert planned.lanes == 4  # devices
    assert "one example on each device needs" in caplog.text

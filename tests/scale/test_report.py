import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats

from protojax.scale import report, storage, sweeps


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two attacks, two radii, three images, one of which stalls."""

    def one(weights, example, key, *, attack, radius):
        del weights, key
        return {
            "overlap": example * radius * (2.0 if attack == "top_k" else 1.0),
            "stalled": example == 3.0,
            "odd": jnp.where(example == 2.0, jnp.nan, example),
            "map": jnp.full((2, 2), example),
        }

    folder = tmp_path_factory.mktemp("rows")
    storage.claim(folder, "config", {"steps": 3}, command="python -m this")
    settings = sweeps.grid(attack=["top_k", "center"], radius=[0.2, 0.1])
    images = jnp.asarray([1.0, 2.0, 3.0])
    sweeps.run(
        *(one, (), settings, images, folder), key=jax.random.key(0), chunk=2, keep=[2]
    )
    return folder


def test_rows_come_in_the_order_of_settings_then_chunks(folder):
    rows = report.read(folder)
    places = [(row["attack"], row["radius"], row["id"]) for row in rows]
    assert places == [
        (attack, radius, ident)
        for attack in ("top_k", "center")
        for radius in (0.2, 0.1)
        for ident in range(3)
    ]
    assert report.read(folder.parent / "rows?", folder) == rows  # each once


def test_kept_arrays_come_with_their_setting(folder):
    kept = report.arrays(folder)
    assert [k["attack"] for k in kept] == ["top_k", "top_k", "center", "center"]
    assert {k["id"] for k in kept} == {2}
    np.testing.assert_array_equal(kept[0]["map"], np.full((2, 2), 3.0))


def test_provenance_says_what_made_the_rows(folder):
    made = report.provenance(folder)
    assert made["command"] == ["python -m this"]
    assert made["config"] == [{"steps": 3}]
    assert (made["parts"], made["rows"]) == (8, 12)
    assert made["nulls"] == {"odd": 4}
    assert made["packages"][0]["jax"] == jax.__version__
    assert made["run_seconds"] > 0 and made["compile_seconds"] > 0


def test_folders_without_rows_and_damaged_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match="no folder .*nowhere"):
        report.read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no rows in .*: pass the folder"):
        report.read(tmp_path)
    storage.write_bytes(tmp_path / "rows" / "a.parquet", b"PAR1 no more")
    with pytest.raises(ValueError, match="a.parquet cannot be read.*Delete it"):
        report.read(tmp_path)


def test_a_folder_whose_name_looks_like_a_pattern_is_that_folder(folder, tmp_path):
    """And not the one that the pattern stands for."""
    (tmp_path / "a1").mkdir()
    shutil.copytree(folder, tmp_path / "a[1]")
    assert report.folders(tmp_path / "a[1]") == [tmp_path / "a[1]"]
    assert report.read(tmp_path / "a[1]") == report.read(folder)
    with pytest.raises(ValueError, match="no folder is named: pass"):
        report.read()


@pytest.fixture
def copied(folder, tmp_path):
    return pathlib.Path(shutil.copytree(folder, tmp_path / "copied"))


def test_a_bit_that_turned_in_the_rows_is_told(copied):
    part = min((copied / "rows").iterdir())
    whole, before = part.read_bytes(), report.read(copied)
    data = len(whole) - pq.read_metadata(part).serialized_size - 8
    told = 0
    for place in range(4, data, 31):
        flipped = bytes([whole[place] ^ 1])
        part.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        try:
            assert report.read(copied) == before  # nothing that matters
        except ValueError as error:
            assert f"{part.name} cannot be read" in str(error)
            told += 1
    assert told > data / 31 / 2


def test_arrays_that_are_damaged_or_gone_are_told_with_the_remedy(copied):
    file = min((copied / "arrays").iterdir())
    for damage in (lambda: file.write_bytes(file.read_bytes()[:-30]), file.unlink):
        damage()
        message = f"{file.name} cannot be read.*Delete .*{file.stem}.parquet, too"
        with pytest.raises(ValueError, match=message):
            report.arrays(copied)


def test_rows_of_two_sweeps_in_one_folder_are_refused(copied):
    other = lambda weights, x, key: {"overlap": x}  # noqa: ARG005
    sweeps.run(other, (), [{}], jnp.ones(1), copied / "other", key=jax.random.key(0))
    (part,) = (copied / "other/rows").iterdir()
    part.rename(copied / "rows" / part.name)
    with pytest.raises(ValueError, match="holds rows of two sweeps: .* Move those"):
        report.read(copied)


def test_stalled_rows_and_nulls_are_left_out_and_counted(folder):
    rows = [row for row in report.read(folder) if row["attack"] == "top_k"]
    chosen = [row for row in rows if row["radius"] == 0.1]
    found = report.estimate(chosen, "overlap")
    assert found.mean == pytest.approx(0.3) and found[3:] == (2, 1)
    odd = report.estimate(chosen, "odd")
    assert odd.mean == 1.0 and odd[1:] == (None, None, 1, 2)
    numbers = [np.float32(0.5), np.float64(0.5), np.int32(2), np.bool_(True), 0.0]
    mixed = report.estimate([{"id": i, "x": v} for i, v in enumerate(numbers)], "x")
    assert (mixed.mean, mixed.n, mixed.left_out) == (pytest.approx(0.8), 5, 0)
    infinite = report.estimate([{"id": 0, "x": math.inf}], "x")
    assert infinite == (None, None, None, 0, 1)


def test_stalled_rows_are_counted_among_all_rows():
    rows = [{"id": i, "stalled": i < 3, "found": i == 4} for i in range(5)]
    assert report.estimate(rows, "stalled").mean == pytest.approx(3 / 5)
    found, stalled = report.summary(rows, by=[], values=["found", "stalled"])
    assert (found["mean"], found["n"], found["left_out"]) == (0.5, 2, 3)
    assert (stalled["n"], stalled["left_out"]) == (5, 0)


def test_a_number_that_is_missing_is_none():
    assert report.number(None, ".2f") == report.decimal(None) == "none"
    assert report.number(math.nan, ".0%") == "none" and report.number(0.5) == "0.5"
    assert report.decimal(None, like=10.0) == "none"


def test_the_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(3).exponential(size=40)
    rows = [{"id": i, "x": x} for i, x in enumerate(values)]
    found = report.estimate(rows, "x", resamples=20_000)
    peer = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    np.testing.assert_allclose((found.low, found.high), peer, atol=0.01)
    assert found == report.estimate(rows, "x", resamples=20_000)


def test_examples_are_resampled_and_not_their_seeds():
    once = [{"id": i, "x": float(i)} for i in range(20)]
    often = [row for row in once for _ in range(50)]
    assert report.estimate(often, "x") == report.estimate(once, "x")


@pytest.mark.parametrize(("hits", "count"), [(0, 8), (3, 8), (8, 8), (158, 200)])
def test_the_interval_of_a_share_is_scipys_wilson_interval(hits, count):
    rows = [{"id": i, "found": i < hits, "stalled": False} for i in range(count)]
    rows += [{"id": 900, "found": True, "stalled": True}, {"id": 901, "found": None}]
    share = report.proportion(rows, "found")
    theirs = scipy.stats.binomtest(hits, count).proportion_ci(method="wilson")
    assert share.mean == hits / count
    assert (share.low, share.high) == pytest.approx((theirs.low, theirs.high))
    assert (share.n, share.left_out) == (count, 2)
    seeds = [{**row, "id": i % 8} for i, row in enumerate(rows[:count])]
    assert report.proportion(seeds, "found").n == 8
    (number,) = report.summary(
        rows, by=[], values=["found"], estimator=report.proportion
    )
    assert number["low"] == share.low


def test_a_share_of_something_else_is_refused():
    with pytest.raises(ValueError, match="`loss` is no share: it spans 0.5, 2.0"):
        report.proportion([{"loss": 0.5}, {"loss": 2.0}], "loss")
    assert report.proportion([{"id": 0, "found": None}], "found").mean is None


def test_an_unknown_column_is_named_with_the_known_ones():
    rows, by = [{"id": 0, "x": 1.0}], {"rows_by": "id", "columns_by": "radius"}
    for ask, name in (
        (lambda: report.estimate(rows, "rank"), "rank"),
        (lambda: report.summary(rows, by=["radus"], values=["x"]), "radus"),
        (lambda: report.compare(rows, "x", methods="atack"), "atack"),
        (lambda: report.table(rows, **by, value="x"), "radius"),
        (
            lambda: report.compared(rows, methods="id", columns_by="r", value="x"),
            "r",
        ),
    ):
        with pytest.raises(ValueError, match=f"no row has `{name}`: choose .* `x`"):
            ask()


def test_a_table_sorts_numbers_and_shows_mean_interval_n_and_what_is_left_out(folder):
    text = report.table(
        report.read(folder),
        rows_by="attack",
        columns_by="radius",
        value="overlap",
        chance=0.0194,
        names={"top_k": "top-1000"},
    )
    head, _, top, center = text.splitlines()
    assert head == "| overlap (chance 0.019) | radius 0.1 | radius 0.2 |"
    assert top.startswith("| top-1000 | 0.300 [0.200, 0.400] n=2, 1 left out |")
    assert center.startswith("| center | 0.150 [0.100, 0.200] n=2, 1 left out |")


def test_a_cell_without_rows_is_a_dash():
    rows = [{"id": 0, "a": "x", "b": "u", "v": 1.0}, {"id": 0, "a": "y", "b": "w"}]
    text = report.table(rows, rows_by="a", columns_by="b", value="v")
    assert text.splitlines()[2:] == [
        "| x | 1.00 n=1 | - |",
        "| y | - | none n=0, 1 left out |",
    ]


def test_the_summary_has_every_number_of_the_table(folder):
    rows = report.read(folder)
    numbers = report.summary(
        rows, by=["attack", "radius"], values=["overlap"], chance={"overlap": 0.02}
    )
    assert [(n["attack"], n["radius"]) for n in numbers] == [
        ("top_k", 0.1),
        ("top_k", 0.2),
        ("center", 0.1),
        ("center", 0.2),
    ]
    text = report.table(rows, rows_by="attack", columns_by="radius", value="overlap")
    for number in numbers:
        assert f"{number['mean']:.3f} [{number['low']:.3f}" in text
        assert (number["n"], number["left_out"], number["chance"]) == (2, 1, 0.02)


def test_a_hundred_thousand_examples_are_resampled_in_bounded_memory():
    rows = [{"id": i, "x": float(i % 2)} for i in range(100_000)]
    found = report.estimate(rows, "x", resamples=100)
    assert found.mean == 0.5
    assert found.low == pytest.approx(0.5 - 1.96 * 0.5 / 100_000**0.5, abs=1e-3)

"""Discipline for every test: strict ranks, four CPU devices, the real data by path.

Programs that run for milliseconds are not worth a compiler's efforts: all tests are
compiled in haste, but for those that are marked `optimized`. A jaxlib that has lost one
of the flags says so and ends: then the flag goes.
"""

import os
import pathlib

import hypothesis
import jax
import pytest

FLAGS = ["--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__ < (0, 11):  # later ones have no other way, and die of the flag
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
# In the environment, as it is for the processes that tests start, too.
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", True)  # in fixtures of modules, too

# The same draws everywhere; `--hypothesis-profile=default` makes others.
hypothesis.settings.register_profile("steady", derandomize=True)
hypothesis.settings.load_profile("steady")

ROOT = pathlib.Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
    if data_path() is None:
        skip = pytest.mark.skip(reason="real data not found: set PROTOJAX_DATA")
        for item in items:
            if "realdata" in item.keywords:
                item.add_marker(skip)


def data_path() -> pathlib.Path | None:
    """Where the real images and weights lie, if they are here."""
    path = pathlib.Path(os.environ.get("PROTOJAX_DATA", ROOT.parent / "shared/data"))
    return path if path.is_dir() else None


@pytest.fixture(autouse=True)
def haste(request):
    """Set before every test, so that no test has to put it back."""
    hasty = "optimized" not in request.keywords
    jax.config.update("jax_disable_most_optimizations", hasty)


@pytest.fixture(scope="session")
def data_folder() -> pathlib.Path:
    path = data_path()
    if path is None:
        pytest.skip("real data not found: set PROTOJAX_DATA")
    return path

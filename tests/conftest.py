"""Settings of the whole suite, made before anything touches a JAX backend.

Subprocess tests inherit them through the environment. A test that needs several devices starts its
own process: the device count is part of the cache's keys, so the main suite keeps to one. Processes
that share the suite (`make test`) share the cache: what one compiled the others read, and an entry
that is not written to its end yet is compiled again.
"""

import collections
import ctypes
import gc
import os
import platform
from importlib import metadata
from pathlib import Path


def _cpu() -> str:
  """The CPU's model: cached code holds the instructions of the machine that compiled it."""
  try:
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = next(line.split(":")[1] for line in info.splitlines() if line.startswith("model name"))
  except (OSError, StopIteration):
    name = platform.processor() or platform.machine()
  return "".join(c if c.isalnum() else "-" for c in name.strip())


_CACHE = Path("~/.cache/mtjax/xla").expanduser() / f"{_cpu()}-jax{metadata.version('jax')}"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
# JAX keeps the source lines of each operation in a program. No test reads them, and to collect them
# takes some hundredths of the time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from tests import typed  # noqa: E402

jax.config.update("jax_num_cpu_devices", 1)

if os.environ.get("MTJAX_TYPED"):
  typed.switch_on()

hypothesis.settings.register_profile(
  "mtjax", deadline=None, derandomize=True, max_examples=20, print_blob=True
)
# HYPOTHESIS_PROFILE=explore draws new examples, and more of them.
hypothesis.settings.register_profile("explore", deadline=None, max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "mtjax"))


# Files that take long for their number of tests. Processes that share the suite begin with them,
# and go on with the files of most tests: so none of them is alone for long at the end.
_LONG = (
  "tests/anysubset/test_history.py",
  "tests/anysubset/test_masks.py",
  "tests/anysubset/test_set_diffusion.py",
  "tests/checkpoints/diffusion/test_diffusion_gemma.py",
  "tests/checkpoints/diffusion/test_diffusion_gemma_canvases.py",
  "tests/checkpoints/test_memory.py",
  "tests/constraints/test_stepwise_distribution.py",
  "tests/core/test_lora.py",
  "tests/core/test_prefix.py",
  "tests/core/test_sampled_texts.py",
  "tests/core/test_stacking.py",
  "tests/core/test_trimming.py",
  "tests/diffusion/test_denoised_distribution.py",
  "tests/draft/test_canvas.py",
  "tests/draft/test_greedy_identity.py",
  "tests/draft/test_model_tree_distribution.py",
  "tests/draft/test_speculative.py",
  "tests/hosts/test_two_processes.py",
  "tests/sharding/families/test_canvases.py",
  "tests/sharding/families/test_passes.py",
  "tests/sharding/families/test_training.py",
  "tests/sharding/test_decoding.py",
  "tests/sharding/test_mesh.py",
  "tests/test_fillers.py",
  "tests/test_notebooks.py",
  "tests/test_wheel.py",
  "tests/train/test_resume.py",
  "tests/verify/test_path_bound.py",
  "tests/verify/test_published_acceptance.py",
)


def pytest_addoption(parser):
  parser.addoption(
    "--typed-elsewhere",
    action="append",
    default=[],
    metavar="FOLDER",
    help="runs only the ill_typed tests of that folder: another process has its others",
  )


def pytest_collection_modifyitems(config, items):
  folders = tuple(f"{folder}/" for folder in config.getoption("typed_elsewhere"))
  elsewhere = [
    item
    for item in items
    if item.nodeid.startswith(folders) and not item.get_closest_marker("ill_typed")
  ]
  if elsewhere:
    config.hook.pytest_deselected(items=elsewhere)
    kept = set(items) - set(elsewhere)
    items[:] = [item for item in items if item in kept]
  if hasattr(config, "workerinput"):
    _order_files(items)


def _order_files(items) -> None:
  files = [item.nodeid.partition("::")[0] for item in items]
  count = collections.Counter(files)
  by_file = dict(zip(items, files, strict=True))
  items.sort(key=lambda item: (by_file[item] not in _LONG, -count[by_file[item]]))


def pytest_collection_finish():
  """Tracing makes much garbage, and every module is walked for it: a tenth of the time."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(10_000, 20, 20)


def _mappings() -> int:
  try:
    return Path("/proc/self/maps").read_bytes().count(b"\n")
  except OSError:
    return 0


def _give_back() -> None:
  """Returns freed memory to the system: the GNU allocator keeps it, and uses little of it again."""
  trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
  if trim is not None:
    trim(0)


class _Programs:
  """Counts the programs that were compiled, or read from the cache, since the last look."""

  new = 0


def _count(event: str, seconds: float, **_) -> None:
  _Programs.new += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture(autouse=True)
def _few_mappings():
  """Drops compiled programs before they hold too much: each has some 4 MB in some 15 mappings.

  Linux grants a process 65,530 mappings, and LLVM crashes beyond that; with 40,000 each, two
  processes held 21 GB. A program that is dropped is read from the cache on disk. To count takes
  10 ms, so it is done once per 100 programs.
  """
  yield
  if _Programs.new >= 100:
    _Programs.new = 0
    if _mappings() > 20_000:
      jax.clear_caches()
      gc.collect()
      _give_back()

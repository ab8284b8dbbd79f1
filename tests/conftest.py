"""Settings of the whole suite, made before anything touches a JAX backend.

Subprocess tests inherit them through the environment. A test that needs several devices starts its
own process: the device count is part of the cache's keys, so the main suite keeps to one. Processes
that share the suite (`make test`) share the cache: what one compiled the others read, and an entry
that is not written to its end yet is compiled again.
"""

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
    items[:] = [item for item in items if item not in set(elsewhere)]


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


@pytest.fixture(autouse=True)
def _few_mappings():
  """Every compiled program holds mappings of memory, and Linux grants a process 65,530.

  Past that LLVM crashes. What was compiled is in the cache on disk.
  """
  yield
  if _mappings() > 20_000:
    jax.clear_caches()
    gc.collect()

"""Attention compiled for chips that are not here: `make test-aot`.

What only the real compilers know: whether the cache is copied in front of the kernel, whether its
blocks fit on the chip, whether registers are spilled, how many instructions a cached token costs.
"""

import os
from pathlib import Path

import pytest

from mtjax.bench.compile import (
  CHIPS,
  LAYER,
  MESHES,
  CompileJob,
  compiled,
  missing,
  shapes_of,
  table,
)
from mtjax.report.compilation_tables import COMMAND, document

pytestmark = pytest.mark.aot

TABLE = Path(__file__).resolve().parents[2] / "docs" / "kernel_table.md"
# Limit in CPU seconds per compilation. The longest takes 21, on a shared core of Zen 4.
LONGEST = 60
# VLIW bundles per cached token of 8 key heads on v5e, by slots per page; its keys and
# values take 7.5 cycles to arrive.
TARGETS = {256: 6.0, 512: 4.0}
REFUSED_WIDTH = 72
EVERY = [(name, shape) for name, chip in CHIPS.items() for shape in shapes_of(chip.platform)]
REFUSED = [(c, s) for c, s in EVERY if s.width == REFUSED_WIDTH]
CASES = [case for case in EVERY if case not in REFUSED]


def over(cases):
  return pytest.mark.parametrize(
    ("chip", "shape"), cases, ids=[f"{chip}: {shape}" for chip, shape in cases]
  )


@pytest.fixture(scope="module")
def results():
  for platform in {chip.platform for chip in (CHIPS | MESHES).values()}:
    if (reason := missing(platform)) is not None:
      # Where these tests were selected, a skip would look like success.
      (pytest.fail if os.environ.get("AOT") == "yes" else pytest.skip)(reason)
  return table([*CHIPS, *MESHES])


@pytest.fixture
def found(results, chip, shape):
  (one,) = (r for r in results if (r.chip, r.job.shape) == (chip, shape))
  return one


@over(CASES)
def test_it_compiles_in_time_to_a_kernel(found):
  assert found.refused is None and found.failed is None, (found.refused, found.failed)
  assert found.figures is not None, "no kernel was compiled"
  assert 0 < found.seconds < LONGEST


@over(REFUSED)
def test_what_is_not_supported_is_refused_before_it_is_compiled(found):
  assert found.refused is not None, "it compiles: it can go to the others"


@over(CASES)
def test_the_cache_is_not_copied(found):
  assert not found.copies_cache, f"{found.temporary:,} bytes of temporary memory"


@over(CASES)
def test_it_fits_on_the_chip(found, chip):
  assert 0 < found.figures.memory <= CHIPS[chip].memory
  if CHIPS[chip].platform == "gpu":
    assert found.figures.registers > 0 and found.figures.spilled == 0


@over(
  [("v5e", s) for s in shapes_of("tpu") if s.entries <= 16 and s.page and s.kv_heads == 8 and
   s.width == 128 and s.dtype == "bfloat16"],
)  # fmt: skip
def test_a_step_is_shorter_than_the_arrival_of_its_keys(found, shape):
  assert 0.5 < found.figures.bundles / shape.page <= TARGETS[shape.page]


@pytest.mark.parametrize("name", MESHES)
def test_several_chips_exchange_the_sum_of_their_heads_and_nothing_else(results, name):
  (one,) = (r for r in results if r.chip == name)
  assert one.failed is None and one.refused is None, (one.failed, one.refused)
  rows, width = LAYER.batch // MESHES[name].mesh[0], LAYER.heads * LAYER.width
  assert one.collectives == (f"all-reduce bf16[{rows},{LAYER.entries},{width}]",)
  assert one.figures is not None and not one.copies_cache
  # Every chip has the pages of its own heads, and little besides.
  share = LAYER.cache_bytes / MESHES[name].mesh[1]
  assert share < one.arguments < 1.2 * share


def test_a_copy_of_the_cache_is_seen(results):
  """A cache with slots before heads compiles, and is transposed in every call."""
  (one,) = compiled(CHIPS["v5e"], [CompileJob(LAYER, "slots first")])
  assert one.failed is None and one.refused is None, (one.failed, one.refused)
  assert one.copies_cache and one.temporary >= LAYER.cache_bytes / 2


def test_the_table_in_the_documentation_is_this_one(results):
  assert TABLE.read_text(encoding="utf-8") == document(results), f"make it anew: {COMMAND}"

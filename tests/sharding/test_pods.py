"""Rounds compiled for meshes that are not here: their figures, the page, and one of its rows."""

import dataclasses
import importlib.metadata
import os
from pathlib import Path

import pytest

from mtjax.bench.compile import missing
from mtjax.bench.pods import (
  COMPILED,
  Collective,
  CompiledRound,
  collectives,
  compile_rounds,
  of_vocabulary,
  table,
)
from mtjax.report.pods.page import key_of, page
from mtjax.report.results import read

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "pods.json"
PROGRAM = """
%body.1 (p: (f32[8])) -> (f32[8]) {
  %r.1 = f32[8,15]{1,0} all-reduce(%x), to_apply=%sum, metadata={op_name="jit(f)/forward/layer_0/dot"}
  %g.1 = (bf16[2,4]{1,0}, bf16[8,4]{1,0:T(8,128)}) all-gather-start(%y), dimensions={0}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (f32[8]) while(%t), condition=%c, body=%body.1, backend_config={"known_trip_count":{"n":"8"}}
  %r.2 = (f32[8,3]{1,0}, pred[8]{0}) all-reduce(%x, %y), to_apply=%sum
  %p.1 = bf16[32,125,256]{2,1,0} collective-permute(%y), metadata={op_name="jit(f)/propose"}
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def record():
  return read(RESULTS)


@pytest.fixture(scope="module")
def rounds(record):
  return [CompiledRound.of_row(row) for row in record["rows"]]


def test_exchanges_are_counted_with_their_loops_and_where_they_come_from():
  found = collectives(PROGRAM, {"target layer": r"forward\b.*layer_0\b"})
  assert found == (
    Collective("collective-permute", "bf16[32,125,256]", 2048000, "", 1),
    Collective("all-reduce", "f32[8,15]", 480, "target layer", 8),
    Collective("all-reduce", "f32[8,3]+pred[8]", 104, "", 1),
    Collective("all-gather", "bf16[8,4]", 64, "", 8),
  )


@pytest.mark.parametrize(
  ("shape", "seen"),
  [
    ("f32[8,16,32000]", True),
    ("f32[8,4000]", True),  # a part
    ("f32[8,12000]", True),  # three of them
    ("f32[8,32100]", True),  # padded to blocks
    ("f32[8,125,256]+f32[8]", True),  # in blocks
    ("f32[8,16,4096]", False),
    ("f32[8,6,250]", False),  # a number per block
  ],
)
def test_an_exchange_of_logits_is_seen_in_any_form(shape, seen):
  row = Collective("all-gather", shape, 1, "", 1)
  assert bool(of_vocabulary([row], 32_000, 8)) == seen


def test_a_round_that_gathers_is_refused_by_name(rounds):
  for one in rounds:
    one.check()
  slots = rounds[0].case.context
  by_length = Collective("all-gather", f"bf16[8,1,{slots},128]", 1, "", 1)
  flat = Collective("all-gather", f"bf16[{8 * slots},128]", 2 * 8 * slots * 128, "", 1)
  for cache in (by_length, flat):
    with pytest.raises(ValueError, match="v5e-8 gathers logits or a cache: all-gather bf16"):
      dataclasses.replace(rounds[0], collectives=(cache,)).check()


def test_the_page_is_made_of_the_file(record):
  assert (ROOT / "docs" / "pods.md").read_text(encoding="utf-8") == page(record), (
    "python -m docs.make.pods --results=results/pods.json --page=docs/pods.md --pods=none"
  )


def test_the_file_has_every_round_that_the_command_compiles(record, rounds):
  assert record["complete"] and {key_of(one.pod, one.case) for one in rounds} == set(COMPILED)


def test_the_memory_in_the_file_is_that_of_the_shapes(record, rounds):
  rows = {(str(row.case), row.data, row.model): row.memory for row in table()}
  assert len(rows) == len(record["settings"]["memory"])
  for row in record["settings"]["memory"]:
    entries, slots = row["case"]["entries"], f"{row['case']['context']:,}"
    name = f"{row['case']['model']}, {entries} entries, batch {row['case']['batch']}, {slots} slots"
    kept = {field: row[field] for field in ("params", "cache", "arguments")}
    assert kept == rows[name, row["data"], row["model"]]._asdict()
  for one in rounds:
    memory = rows[str(one.case), one.pod.data, one.pod.model]
    assert (one.params, one.cache, one.arguments) == memory


@pytest.mark.aot
def test_a_row_of_the_page_is_compiled_again(record, rounds):
  if (reason := missing("tpu")) is not None:
    (pytest.fail if os.environ.get("AOT") == "yes" else pytest.skip)(reason)
  pod, case = COMPILED[0]
  (found,) = compile_rounds(pod, [case])
  (known,) = (one for one in rounds if (one.pod, one.case) == (pod, case))
  found.check()
  assert (found.params, found.cache, found.arguments) == (
    known.params, known.cache, known.arguments,
  )  # fmt: skip
  versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
  if versions == record["settings"]["versions"]:
    assert found == known, (
      "python -m docs.make.pods --results=results/pods.json --page=docs/pods.md"
    )

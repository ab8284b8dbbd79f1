"""Targets for decoding one token per forward pass on a pretrained model, against other systems."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtjax.bench.targets import SpeedTarget
from mtjax.bench.workers import median_ratio

# (our system, another that reads as many bits per weight or fewer, the ratio wanted at batch 1).
PAIRS = (
  ("mtjax float32", "transformers eager", 2.5),
  ("mtjax bfloat16", "llama.cpp f16", 1.3),
  ("mtjax int8", "llama.cpp q8_0", 1.5),
  ("mtjax int8", "llama.cpp file", 1.5),
)


def plain_targets(rows: Sequence[Mapping[str, Any]], threads: int) -> list[SpeedTarget]:
  """Returns the targets of `PAIRS` at batch 1 and so many threads, where both systems ran.

  A ratio is the median over rounds. rows: those of experiments/bench/autoregressive.py.
  """
  ran = {
    row["system"]: [1 / rate for rate in row["tokens_per_second"]]
    for row in rows
    if row["batch"] == 1 and row["threads"] == threads
  }
  return [
    SpeedTarget(f"{ours} / {peer}", minimum, median_ratio(ran[ours], ran[peer]), ours)
    for ours, peer, minimum in PAIRS
    if ours in ran and peer in ran
  ]

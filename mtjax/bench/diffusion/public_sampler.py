"""The public sampler of LLaDA in PyTorch beside ours, on the same weights, in as many passes."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mtjax import checkpoints
from mtjax.bench.systems import System, WorkerJob
from mtjax.bench.systems.exported import as_llama
from mtjax.bench.systems.llada_generate import LLAMA
from mtjax.bench.systems.mtjax_denoise import MASKED
from mtjax.bench.workers import interleave, median_ratio, open_workers, same_text
from mtjax.text import TextModel

PUBLIC = "LLaDA generate.py, PyTorch"


def compare_with_public(
  text: TextModel,
  prompts: Sequence[Sequence[int]],
  *,
  script: str,
  length: int,
  block_length: int,
  batches: Sequence[int],
  rounds: int,
  threads: int = 1,
  progress: Callable[[str], None] = lambda what: None,
) -> list[dict[str, Any]]:
  """Returns the figures of LLaDA's loop at temperature 0 with two tokens per pass.

  Every system has a process of its own; in a round each runs once. Raises FileNotFoundError for a
  script that is not there, and ValueError for a batch of more rows than there are prompts, and if
  the public sampler does not run.
  """
  if max(batches) > len(prompts):
    raise ValueError(
      f"a batch of {max(batches)} needs as many prompts, and there are {len(prompts)}"
    )
  if not Path(script).is_file():
    raise FileNotFoundError(f"there is no script {script!r}: it is generate.py of LLaDA's authors")
  plan = dict(steps=length // 2, block_length=block_length)
  systems = {PUBLIC: System("llada_generate", dict(script=script, plan=plan), ("torch",))}
  for cache in ("none", "prefix", "dual"):
    settings = dict(plan, cache=cache)
    systems[f"mtjax, cache {cache}"] = System(
      "mtjax_denoise", dict(method="llada", settings=settings)
    )
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    saved = Path(folder) / MASKED
    checkpoints.save(saved, text.model, text.params, tokenizer=text.tokenizer)
    checkpoints.save(Path(folder) / LLAMA, *as_llama(text))
    with open_workers(folder, systems, threads, progress) as (workers, failed):
      for batch in batches:
        answers = interleave(
          workers,
          failed,
          rounds,
          lambda worker, _, batch=batch: worker.run([prompts[:batch]], WorkerJob(length)),
          lambda what, batch=batch: progress(f"batch {batch}: {what}"),
        )
        if PUBLIC in failed:
          raise ValueError(f"the public sampler did not run: {failed[PUBLIC]}")
        rows += [_row(name, batch, length, answers) for name in answers]
  return rows


def _row(name: str, batch: int, length: int, answers: dict) -> dict[str, Any]:
  (first,), *timed = answers[name]
  seconds = [one["seconds"] for (one,) in timed]
  reference = [one["seconds"] for (one,) in answers[PUBLIC][1:]]
  return dict(
    system=name,
    batch=batch,
    seconds=statistics.median(seconds) / (length * batch),
    speed_up=median_ratio(seconds, reference),
    same_text=same_text(answers[PUBLIC][0][0]["tokens"], first["tokens"]),
  )

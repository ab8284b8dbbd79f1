"""The time from the start of a process to its first tokens, in fresh processes one after another.

    python -m mtjax.bench.systems.start SYSTEM FOLDER TOKENS WEIGHTS PROMPT

is one such process: it prints one line of JSON with the moments (`time.time()`) of its stages.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

STAGES = ("imported", "loaded", "first", "last")
# Name in tables -> (system of the process, whether its caches were filled by a run before).
CASES = {
  "mtjax, first run": ("mtjax", False),
  "mtjax, later runs": ("mtjax", True),
  "transformers": ("transformers", True),
}


@dataclasses.dataclass(frozen=True)
class Start:
  """One process: seconds from its start to the end of each stage, and the ids that it wrote."""

  case: str
  imported: float
  loaded: float  # weights and tokenizer, ready for decoding
  first: float  # the first token was there
  last: float  # all tokens were there
  tokens: tuple[int, ...]


def measure(
  folder: str,
  prompt: Sequence[int],
  *,
  cases: Sequence[str],
  tokens: int,
  rounds: int,
  weights: str = "float32",
  progress: Callable[[str], None] = lambda what: None,
) -> Iterator[Start]:
  """Yields the starts of `rounds` interleaved rounds, each in a process of its own.

  In its first run mtjax has no caches, neither of compiled programs nor of the native product.
  Every round begins with empty ones, so the run after it finds what that run left. Raises
  RuntimeError with the last words of a process that failed.
  """
  for number in range(1, rounds + 1):
    with tempfile.TemporaryDirectory() as home:
      asked = [CASES[case] for case in cases]
      if ("mtjax", True) in asked and ("mtjax", False) not in asked:
        progress(f"round {number} of {rounds}: filling the caches")
        _start("mtjax, later runs", folder, prompt, tokens, weights, home)
      for case in cases:
        progress(f"round {number} of {rounds}: {case}")
        yield _start(case, folder, prompt, tokens, weights, home)


def medians(starts: Sequence[Start]) -> dict[str, dict[str, float]]:
  """Returns the median seconds of every stage, by case."""
  out: dict[str, dict[str, float]] = {}
  for case in dict.fromkeys(start.case for start in starts):
    own = [start for start in starts if start.case == case]
    out[case] = {
      stage: statistics.median(getattr(start, stage) for start in own) for stage in STAGES
    }
  return out


def _start(case, folder, prompt, tokens, weights, home) -> Start:
  command = [
    sys.executable,
    "-m",
    "mtjax.bench.systems.start",
    CASES[case][0],
    folder,
    str(tokens),
    weights,
  ]
  environment = {key: x for key, x in os.environ.items() if key not in _CACHE_SETTINGS}
  begin = time.time()
  run = subprocess.run(
    [*command, json.dumps(list(prompt))],
    capture_output=True,
    text=True,
    env=environment | dict(XDG_CACHE_HOME=home),
  )
  if run.returncode:
    words = (run.stderr.strip().splitlines() or ["no output"])[-1]
    raise RuntimeError(f"{case} ended with code {run.returncode}: {words}")
  said = json.loads(run.stdout.splitlines()[-1])
  return Start(
    case, **{stage: said[stage] - begin for stage in STAGES}, tokens=tuple(said["tokens"])
  )


# They would give a process other caches than those of its round.
_CACHE_SETTINGS = ("JAX_COMPILATION_CACHE_DIR", "MTJAX_PROGRAM_CACHE")


def _mtjax(folder: str, prompt: list[int], tokens: int, weights: str, mark: Callable) -> list[int]:
  from mtjax.pretrained import for_decoding, load_pretrained

  mark("imported")
  text = for_decoding(load_pretrained(folder), weights)
  mark("loaded")
  written = []
  pieces = text.stream(
    [prompt], max_tokens=tokens, eos=(), on_finish=lambda _, run: written.extend(run.tokens[0])
  )
  for number, _ in enumerate(pieces):
    if not number:
      mark("first")
  mark("last")
  return written


def _transformers(
  folder: str, prompt: list[int], tokens: int, weights: str, mark: Callable
) -> list[int]:
  import torch
  from transformers import AutoModelForCausalLM, AutoTokenizer
  from transformers.generation.streamers import BaseStreamer

  mark("imported")
  model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, weights))
  AutoTokenizer.from_pretrained(folder)
  mark("loaded")

  class Marks(BaseStreamer):
    puts = 0

    def put(self, value):
      # The prompt comes first.
      self.puts += 1
      if self.puts == 2:
        mark("first")

    def end(self):
      mark("last")

  ids = torch.tensor([prompt])
  model.generation_config.eos_token_id = None
  with torch.inference_mode():
    out = model.generate(
      ids,
      attention_mask=torch.ones_like(ids),
      max_new_tokens=tokens,
      do_sample=False,
      streamer=Marks(),
    )
  return out[0, ids.shape[1] :].tolist()


_SYSTEMS: Mapping[str, Callable] = dict(mtjax=_mtjax, transformers=_transformers)


def _main(system: str, folder: str, tokens: str, weights: str, prompt: str) -> None:
  moments: dict[str, float] = {}

  def mark(stage):
    moments[stage] = time.time()

  written = _SYSTEMS[system](folder, json.loads(prompt), int(tokens), weights, mark)
  print(json.dumps(dict(moments, tokens=written)), flush=True)


if __name__ == "__main__":
  _main(*sys.argv[1:])

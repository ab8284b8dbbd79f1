"""The runs of the tests of several processes: training, decoding and scoring."""

from pathlib import Path

import jax
import numpy as np

from configs.train.tiny import tiny
from mtjax.decode.generation import stream
from mtjax.decode.speculative import Speculative
from mtjax.draft.model_free.lookup import PromptLookup
from mtjax.evaluate.perplexity import score
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.sampling.logits import Sampling

STEPS = 6


def run_config(folder: Path, mesh: tuple[int, int]):
  """Returns the config of a run on a small text in `folder`, which saves every second step."""
  config = tiny()
  config.model.update(heads=2, kv_heads=2)
  source = f"file:{folder}/text.txt"
  config.data.update(
    sources=(source,), eval_sources=(f"own={source}",), cache_dir=str(folder / "tokens")
  )
  config.optimizer.name = "adamw"
  config.update(steps=STEPS, warmup=1, decay=0, save_every=2, keep=4, mesh=mesh)
  return config


def decoded(mesh=None) -> dict:
  """Returns what a small model with random weights writes after three prompts, and a score."""
  model = Model(TransformerConfig(12, 16, 2, 2, 8, 16, uniform_layers(1), max_position=64))
  params = model.init(jax.random.key(0))
  ends = []
  prompts = [[5, 6, 7, 5, 6], [9], [3, 3, 3]]  # the mesh does not divide their number
  pieces = list(
    stream(
      model, params, prompts, method=Speculative(PromptLookup(length=2)), max_tokens=8, every=2,
      sampling=Sampling(temperature=0.3), key=1, mesh=mesh, on_finish=ends.append,
    )
  )  # fmt: skip
  documents = [(np.arange(20) % 7, 20), (np.arange(9), 9)]
  nats = score(model, params, documents, start=1, length=8, context=4, batch=4, mesh=mesh).nats
  counts = ("tokens", "target_forwards", "entries", "accepted_at_depth")
  return dict(
    tokens=ends[0].tokens,
    streamed=[sum((piece[row] for piece in pieces), []) for row in range(len(prompts))],
    drafted=ends[0].drafted,
    counters={name: ends[0].counters[name] for name in counts},
    nats=float(nats),
  )

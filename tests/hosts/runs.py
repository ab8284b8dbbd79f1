"""The runs of the tests of several processes: training, decoding, filling and scoring."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import jax
import numpy as np

from configs.train.tiny import tiny
from mtjax.anysubset import fill, log_likelihood, make_canvas
from mtjax.cli.denoising.launch import Wanted, denoise
from mtjax.cli.prompts import PromptRow
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.decode.generation import stream
from mtjax.decode.speculative import Speculative
from mtjax.draft.model_free.lookup import PromptLookup
from mtjax.evaluate.perplexity import score
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.planning import PlanRequest
from mtjax.planning.identity import fingerprint
from mtjax.registry import candidates as registry
from mtjax.registry.auto import find_plan
from mtjax.registry.configs import decode_config
from mtjax.registry.denoising.methods import denoise_config, make_denoiser
from mtjax.rounds.history import TreeRecord
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.tuning.plan_file import plan_record

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
  """Returns what a small model with random weights writes after three prompts, and a score.

  Probabilities, of the score and of the trees of the history, are apart from everything else.
  """
  model = Model(TransformerConfig(12, 16, 2, 2, 8, 16, uniform_layers(1), max_position=64))
  params = model.init(jax.random.key(0))
  ends = []
  prompts = [[5, 6, 7, 5, 6], [9], [3, 3, 3]]  # the mesh does not divide their number
  pieces = list(
    stream(
      model, params, prompts, method=Speculative(PromptLookup(length=2)), max_tokens=8, every=2,
      sampling=Sampling(temperature=0.3), key=1, mesh=mesh, on_finish=ends.append, history=True,
    )
  )  # fmt: skip
  documents = [(np.arange(20) % 7, 20), (np.arange(9), 9)]
  nats = score(model, params, documents, start=1, length=8, context=4, batch=4, mesh=mesh).nats
  trees = [row for record in ends[0].history or [] for row in record.rows]
  counts = ("tokens", "target_forwards", "entries", "accepted_at_depth")
  return _as_json(
    tokens=ends[0].tokens,
    streamed=[sum((piece[row] for piece in pieces), []) for row in range(len(prompts))],
    drafted=ends[0].drafted,
    counters={name: ends[0].counters[name] for name in counts},
    trees=[row and (row.tokens, row.parents, row.path, row.bonus) for row in trees],
    close=[
      float(nats),
      *(p for row in trees if isinstance(row, TreeRecord) for p in row.target_probs if p),
    ],
  )


def planned(folder: Path, mesh=None) -> dict:
  """Returns what `auto` plans for a small model and its draft model, and whether it changes text.

  Every process has a clock of its own.
  """
  target, draft = (
    TextModel(model, model.init(jax.random.key(seed)), ByteTokenizer(), f"{seed}").on_mesh(mesh)
    for seed, model in ((0, letters(16)), (1, letters(8)))
  )
  registry.shape_sizes = lambda _: registry.ShapeSizes((2,), (2,), 1)
  settings = dict(context=24, seconds=0.0, folder=str(folder), texts={"a": ["abab"], "b": ["cd"]})
  config = decode_config("draft").to_dict() | dict(draft_model=draft, tree="auto", plan=settings)
  found, again = find_plan(config, target), find_plan(config, target)
  best = next(one for one in found.plan.ranking if one.drafter)
  texts = []
  for method, its in (found.made_alone(found.plan.plain), found.made_alone(best)):
    rows, _ = target.generate(["abcab", "d"], max_tokens=8, method=method, method_params=its)
    texts.append([one.text for one in rows])
  other = dataclasses.replace(target, params=jax.tree.map(last_column_changed, target.params))
  return _as_json(
    own_weights=fingerprint(target) != fingerprint(other),
    plan=plan_record(found.plan),
    measured=[found.measured, again.measured, again.plan == found.plan],
    texts=texts,
    of=PlanRequest().of(target, found.candidates[0]),
  )


def last_column_changed(x: jax.Array) -> jax.Array:
  """Returns an array with another last column, if its columns are split over the devices."""
  if not x.sharding.spec or x.sharding.spec[-1] is None:
    return x
  return jax.jit(lambda x: x.at[:, -1].add(1), out_shardings=x.sharding)(x)


def letters(dim: int) -> Model:
  return Model(TransformerConfig(258, dim, 2, 2, 8, 16, uniform_layers(1), max_position=64))


def filling(mesh=None) -> dict:
  """Returns a small any-subset model, three texts with targets, and where to fill them."""
  names = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  model = Model(TransformerConfig(12, 16, 2, 2, 8, 16, uniform_layers(1), max_position=16, **names))
  rng = np.random.default_rng(0)
  token, is_target = rng.integers(0, 12, (3, 12)), rng.random((3, 12)) < 0.5
  params = jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0)))
  return dict(
    model=model, params=params, canvas=make_canvas(model.config, token, is_target), mesh=mesh
  )


def filled(mesh=None) -> dict:
  """Returns what the model writes into the texts, and the log-likelihoods of their own tokens."""
  inputs = filling(mesh)
  done = fill(**inputs, sampling=Sampling(temperature=[0.0, 1.0, 0.7]), key=3)
  return _as_json(
    token=done.token.tolist(),
    decided_at=done.decided_at.tolist(),
    drafted=done.drafted.tolist(),
    forwards=done.forwards.tolist(),
    close=log_likelihood(**inputs).ravel().tolist(),
  )


def denoised(path: Path, mesh=None) -> dict | None:
  """Returns the record that mtjax-decode writes beside `path`, with a page; None: it wrote none.

  A small masked model continues three prompts.
  """
  masked = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",))
  layers = uniform_layers(1)
  model = Model(TransformerConfig(258, 16, 2, 2, 8, 16, layers, max_position=32, **masked))
  params = jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0)))
  text = TextModel(model, params, ByteTokenizer()).on_mesh(mesh)
  config = denoise_config("llada")
  config.temperature = 0.7
  config.denoise.update(length=8, block_length=4, steps=4)
  prompts = ["a cat", "on the mat", "it"]
  wanted = Wanted(output=str(path.with_suffix(".json")), html=str(path.with_suffix(".html")))
  rows = [PromptRow(prompt, {}, "") for prompt in prompts]
  with contextlib.redirect_stdout(io.StringIO()):
    denoise(config, make_denoiser(config), text, prompts, wanted, rows=rows)
  if not path.with_suffix(".html").exists():
    assert not path.with_suffix(".json").exists()
    return None
  record = json.loads(path.with_suffix(".json").read_text())
  for name in ("seconds", "compile_seconds", "tokens_per_second"):
    del record["counters"][name]
  return record


def _as_json(**record: object) -> dict:
  return json.loads(json.dumps(record))

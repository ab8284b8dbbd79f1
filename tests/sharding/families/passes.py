"""Run by test_passes.py in a process with four CPU devices; prints what it found as JSON.

What devices send each other in a pass, and texts of models on a mesh.
"""

import dataclasses
import json
import re
import sys
import warnings

import jax

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from mtjax import frontier, sharding  # noqa: E402
from mtjax.anysubset import SelfDraft, lattice, make_canvas  # noqa: E402
from mtjax.anysubset.filling.passes import later_pass  # noqa: E402
from mtjax.anysubset.filling.state import Problem  # noqa: E402
from mtjax.anysubset.infill import infill, stream_infill  # noqa: E402
from mtjax.anysubset.orders import targets_in_order  # noqa: E402
from mtjax.cache import KVCache, cache_shardings  # noqa: E402
from mtjax.data.tokenizers import BpeTokenizer  # noqa: E402
from mtjax.diffusion import BlockPlan, DecidingPolicy  # noqa: E402
from mtjax.diffusion.denoising import MaskedNetwork  # noqa: E402
from mtjax.diffusion.denoising.caches import BlockStale  # noqa: E402
from mtjax.diffusion.denoising.guidance import Unguided  # noqa: E402
from mtjax.diffusion.denoising.prepare import prepare  # noqa: E402
from mtjax.diffusion.likelihood.network import network_conditionals  # noqa: E402
from mtjax.models import Model, TransformerConfig, uniform_layers  # noqa: E402
from mtjax.registry.denoising.methods import denoiser  # noqa: E402
from mtjax.sampling.logits import Sampling, row_keys  # noqa: E402
from mtjax.text import TextModel  # noqa: E402

COLLECTIVE = re.compile(
  r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)[-a-z]*\("
)
ROWS, LENGTH = 4, 256
CONFIG = TransformerConfig(
  vocab_size=4096,
  dim=16,
  heads=4,
  kv_heads=4,
  head_dim=16,
  mlp_dim=16,
  layers=uniform_layers(2),
  max_position=512,
)
MASKED = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",))
ANY_SUBSET = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
MESH = "data:2,model:2"


def conditionals(mesh) -> list[list[float]]:
  """Returns rounded log-probabilities of seven masks, three per pass, which data:2 fills up."""
  model = Model(dataclasses.replace(CONFIG, vocab_size=16, **MASKED))
  masks = np.random.default_rng(0).random((7, 6)) < 0.5
  params = jax.device_get(model.init(jax.random.key(0)))
  found = network_conditionals(MaskedNetwork.of(model), params, np.arange(6), batch=3, mesh=mesh)(
    masks
  )
  return np.round(found, 4).tolist()


def largest(compiled) -> int:
  """Returns the number of elements of the largest array that devices send each other."""
  arrays = (shape for kind in COLLECTIVE.findall(compiled.as_text()) for shape in shapes(kind))
  return max((int(np.prod(shape)) for shape in arrays), default=0)


def shapes(text: str) -> list[list[int]]:
  """Returns the shapes of an HLO type: f32[2,6,4]{2,1,0}, or a tuple of such."""
  return [[int(n) for n in one.split(",") if n] for one in re.findall(r"\w+\[([\d,]*)\]", text)]


def batch_shardings(tree, mesh):
  """Returns the shardings of caches, and of all other arrays as of rows."""

  def one(x):
    if isinstance(x, KVCache):
      return cache_shardings(x, mesh)
    return sharding.row_shardings(x, mesh, ROWS)

  return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, KVCache))


def sent_by(function, params, *arguments) -> dict[str, int]:
  """Returns the largest array that devices send: of a pass, and with its logits on each of them.

  Nothing is computed. The second is a mistake that must be seen.
  """
  mesh = sharding.parse_mesh(MESH)
  places = (
    sharding.param_shardings(params, mesh),
    *(batch_shardings(x, mesh) for x in arguments),
  )
  given = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    (params, *arguments),
    places,
  )

  def gathered(*given):
    logits, cache = function(*given)
    return jax.lax.with_sharding_constraint(logits, sharding.P()), cache

  with jax.set_mesh(mesh):
    return {
      kind: largest(jax.jit(one).lower(*given).compile())
      for kind, one in (("pass", function), ("mistake", gathered))
    }


def filling_pass() -> dict[str, int]:
  """A round's second pass of ASSD, which verifies a window, and the commit."""
  model, method = Model(dataclasses.replace(CONFIG, **ANY_SUBSET)), SelfDraft(4)
  is_target = np.arange(LENGTH) % 2 == np.zeros((ROWS, 1))
  canvas = make_canvas(model.config, np.ones((ROWS, LENGTH), int), is_target)
  order, total = targets_in_order(canvas, lattice(canvas))
  problem = Problem(
    canvas, jnp.asarray(order), jnp.asarray(total), Sampling().rules(ROWS, CONFIG.vocab_size),
    row_keys(0, ROWS),
  )  # fmt: skip
  params, phase = model.shapes(), method.round[-1]
  state = jax.eval_shape(lambda *given: method.start(model, *given), params, problem)

  def forward(params, problem, state):
    drafted = jnp.zeros((ROWS, phase.drafts), jnp.int32)
    passed = later_pass(model, params, problem, state, phase, drafted)
    path = jnp.broadcast_to(jnp.arange(phase.drafts), drafted.shape)
    return passed.logits, state.cache.commit(passed.kv, passed.position, path, state.count)

  return sent_by(forward, params, problem, state)


def denoising_pass() -> dict[str, int]:
  """A pass over a block, or the whole canvas, with keys of the rest from an earlier one."""
  model = Model(dataclasses.replace(CONFIG, **MASKED))
  plan = BlockPlan(64, 32, 16)
  program, (params, job) = prepare(
    MaskedNetwork.of(model), model.shapes(), [[1] * LENGTH] * ROWS, plans=[plan] * ROWS,
    policy=DecidingPolicy(), cache=BlockStale(suffix=True), guidance=Unguided(), sampling=None,
    filtered_confidence=False, key=0, eos=(),
  )  # fmt: skip
  state = jax.eval_shape(lambda *given: program.begin(given), params, job)
  return sent_by(program.logits, params, job, state)


def scanned_pass(rows: jax.Array | None = None, **settings) -> dict[str, int]:
  """A pass of stacked layers over two entries per row and a cache, and the commit."""
  model = Model(dataclasses.replace(CONFIG, layer_loop="scanned", **settings))
  token, path = jnp.ones((ROWS, 2), jnp.int32), jnp.tile(jnp.arange(2), (ROWS, 1))
  cache = jax.eval_shape(lambda: model.allocate(ROWS, LENGTH))

  def forward(params, token, path, cache):
    entry = frontier.causal(token)
    out = model.forward(params, entry, cache, rows)
    return out.logits, cache.commit(out.kv, entry.position, path, path[:, 1] + 1)

  return sent_by(forward, model.shapes(), token, path, cache)


def pass_with_a_layer_apart() -> dict[str, int]:
  """The same of a masked model, of which one entry per row is chosen."""
  return scanned_pass(jnp.zeros((ROWS, 1), jnp.int32), **MASKED)


def random_params(model: Model):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: rng.normal(0.1, 0.4, x.shape).astype(np.float32), model.shapes())


def without_log_probs(rounds) -> list:
  """Returns the rows of the rounds of a history, without numbers that are rounded."""
  return [
    [row and [dataclasses.replace(one, log_probs=()) for one in row] for row in rows]
    for rows in rounds
  ]


def events(run, row: int) -> list:
  """Returns what the trace of a run says of a row, without numbers that are rounded."""
  return [dataclasses.replace(event, log_prob=0.0) for event in run.trace.events(row)]


def texts() -> dict[str, float]:
  """Returns 1 for a text that the mesh changes, and for a warning that is missing."""
  tokenizer, out = BpeTokenizer.bundled(), {}
  small = dataclasses.replace(CONFIG, heads=2, kv_heads=1, layers=uniform_layers(1))

  def loaded(fields):
    model = Model(dataclasses.replace(small, **fields))
    return TextModel(model, random_params(model), tokenizer, "tiny")

  text, settings = "The ___ sat on the ___ mat.", dict(lengths=(3, (2, 3)), key=1)
  filler, warm = loaded(ANY_SUBSET), Sampling(temperature=1.0)
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    on_mesh = infill(filler, text, sampling=warm, mesh=MESH, **settings)
  out["infill"] = on_mesh.tokens != infill(filler, text, sampling=warm, **settings).tokens
  out["infill's warning"] = not any(
    "1 key/value heads do not divide" in str(w.message) for w in said
  )
  one = dict(lengths=(3, 2), key=1, sampling=warm, mesh=MESH)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    *_, streamed = stream_infill(filler, text, history=True, **one)
  *_, expected = stream_infill(filler, text, history=True, **one | dict(mesh=None))
  out["history"] = streamed.tokens != expected.tokens
  rounds, expected_rounds = ([one.rows for one in x.history] for x in (streamed, expected))
  out["records of the history"] = without_log_probs(rounds) != without_log_probs(expected_rounds)
  out["likelihoods of more masks than a batch"] = conditionals(MESH) != conditionals(None)
  masked, prompts = loaded(MASKED), ["Once upon", "It was a dark night", "The"]
  method = denoiser("llada", length=4, steps=4, block_length=4)
  there = dataclasses.replace(masked.on_mesh(MESH), mesh=None)
  frames = []
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    shown, run = masked.denoise(prompts, method=method, mesh=MESH, on_pass=frames.append)
    again, traced = masked.on_mesh(MESH).denoise(prompts, method=method, trace=True)
    beside, unnamed = there.denoise(prompts, method=method, trace=True)
  expected_frames = []
  masked.denoise(prompts, method=method, on_pass=expected_frames.append)
  expected, alone = masked.denoise(prompts, method=method, trace=True)
  out["frames"] = frames != expected_frames
  out["events"] = any(events(traced, row) != events(alone, row) for row in range(len(prompts)))
  out["denoise"] = shown != expected or len(frames) != 1 + int(run.passes.max())
  out["a trace"] = again != expected
  out["on the mesh of the parameters"] = beside != expected
  out["programs compiled for it"] = unnamed.counters["compile_seconds"] > 0
  return {name: float(wrong) for name, wrong in out.items()}


def main() -> None:
  passes = dict(
    filling=filling_pass(),
    denoising=denoising_pass(),
    scanned=scanned_pass(),
    apart=pass_with_a_layer_apart(),
  )
  json.dump(passes | dict(texts=texts()), sys.stdout)


if __name__ == "__main__":
  main()

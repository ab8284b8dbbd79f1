"""Run by test_decoding.py in a process with four or eight CPU devices; prints {case: count}.

With the word "others" behind the number of devices it runs the drafters that take long to compile.

A case counts texts, or verdicts, that differ from those of one device, unless its name says what it
counts.
"""

import dataclasses
import json
import sys
import warnings
from unittest import mock

import jax

jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from mtjax import sharding, verify  # noqa: E402
from mtjax.decode.adaptive import Adaptive  # noqa: E402
from mtjax.decode.generation import Generation, generate, stream  # noqa: E402
from mtjax.decode.prefix import Prefix  # noqa: E402
from mtjax.decode.speculative import Speculative  # noqa: E402
from mtjax.draft import (  # noqa: E402
  S2D,
  BestFirst,
  CrossVocabulary,
  GrownTree,
  Jacobi,
  ModelCanvas,
  ModelChain,
  ModelTree,
  PromptLookup,
  Recycling,
  SelfS2D,
  Trie,
)
from mtjax.models import Model, stacking  # noqa: E402
from mtjax.models.stacking import scanned  # noqa: E402
from mtjax.rounds.history import emitted_tokens_of  # noqa: E402
from mtjax.sampling.logits import Sampling  # noqa: E402
from mtjax.trees import encodings  # noqa: E402
from mtjax.types import Draft, DraftScheme  # noqa: E402
from tests.constraints.toys import dfa_of  # noqa: E402
from tests.draft import drafters  # noqa: E402
from tests.draft.drafters import LIMITS, PROMPTS, VOCAB  # noqa: E402

# Two key heads, which a model axis of two divides.
TARGET = Model(dataclasses.replace(drafters.TARGET.config, heads=4, kv_heads=2))
PARAMS = jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, TARGET.init(jax.random.key(0)))
MASKED = Model(dataclasses.replace(TARGET.config, **{
  name: getattr(drafters.MASKED.config, name)
  for name in ("predicts", "extra_embeddings", "extra_names")
}))  # fmt: skip
MASKED_PARAMS = PARAMS | {"extra": {"table": jnp.zeros((1, TARGET.config.dim))}}

PAIRS = encodings.from_paths([[0], [1], [0, 0]])

# A row that is greedy, and two that are sampled, in one program.
SAMPLED = Sampling(temperature=(1.0, 0.0, 0.7), top_k=(5, 0, 0), repetition_penalty=1.1)
SETTINGS = dict(max_tokens=LIMITS, key=3)
MESHES = {4: ("data:2,model:2", "sequence:4"), 8: ("data:2,model:2,sequence:2", "model:8")}
FIRST, SECOND = MESHES[int(sys.argv[1])]

# (drafter, its parameters, verifier), one of each kind. sample_match emits what plain decoding
# does.
METHODS = {
  4: {
    "lookup": (PromptLookup(length=3, branches=3), None, "sample_match"),
    "a trie on the host": (Trie(size=6, depth=4), drafters.EMPTY.handle, "sample_match"),
  },
  8: {
    "a draft model": (ModelChain(TARGET, 3), PARAMS, "sample_match"),
    "recycling": (Recycling(VOCAB, tree=8), None, "sample_match"),
  },
}  # fmt: skip
OTHERS = {
  "the target's own layer": (SelfS2D(TARGET, (1,), (0.0,), length=3), PARAMS, "sample_match"),
  "a fixed tree, judged leaves first": (ModelTree(TARGET, drafters.RAGGED), PARAMS, "traversal"),
  "a draft model, judged as a block": (
    ModelChain(drafters.SMALL, 3), drafters.SMALL_PARAMS, "block",
  ),
  "a sorted model": (
    S2D(drafters.LAYERED, (1, 2, 3), (0.12, 0.12, 0.1), 4),
    drafters.LAYERED_PARAMS, "sample_match",
  ),
  "jacobi": (Jacobi(3, 3, 2, buckets=VOCAB), None, "sample_match"),
  "a masked model": (ModelCanvas(MASKED, 3), MASKED_PARAMS, "sample_match"),
  "a model of other tokens": (
    CrossVocabulary(TARGET, 4),
    (drafters.renamed(PARAMS), drafters.RENAMED.handle), "sample_match",
  ),
  "most probable paths": (BestFirst(TARGET, 2, 3, 9, 0.15), PARAMS, "sample_match"),
  "a grown tree": (GrownTree(TARGET, 8, 3, 2, 2), PARAMS, "sample_match"),
}  # fmt: skip


def run(mesh=None, method=None, params=None, prompts=PROMPTS, sampling=SAMPLED, **more):
  settings = SETTINGS | more
  if method is not None:
    settings |= dict(method=method, method_params=params)
  return generate(TARGET, PARAMS, prompts, sampling=sampling, mesh=mesh, **settings)


def different(found, expected) -> float:
  return float(sum(a != b for a, b in zip(found.tokens, expected.tokens, strict=True)))


def decoding(methods, plain: Generation) -> dict[str, float]:
  assert len({*map(len, plain.tokens)}) == 3, "the rows should end in different rounds"
  on_mesh = run(FIRST)
  out = {"plain": different(on_mesh, plain)}
  counters = ("prompt_tokens", "tokens", "target_forwards", "entries")
  out["counters of plain decoding"] = float(
    sum(on_mesh.counters[name] != plain.counters[name] for name in counters)
  )
  for name, (drafter, params, verifier) in methods.items():
    method = Speculative(drafter, verifier)
    expected = plain if verifier == "sample_match" else run(None, method, params)
    found = run(FIRST, method, params)
    out[name] = different(found, expected)
    out[f"useless: {name}"] = float(sum(map(sum, found.drafted)) == 0)
  return out


def one_text(plain: Generation) -> dict[str, float]:
  """A batch of one, the first text, on an axis of rows of two, and on a mesh of another kind.

  With eight devices the axis of rows is that of four.
  """
  own = Sampling(temperature=1.0, top_k=5, repetition_penalty=1.1)
  one = dict(prompts=PROMPTS[:1], max_tokens=LIMITS[0], sampling=own)
  expected, out = dataclasses.replace(plain, tokens=plain.tokens[:1]), {}
  if sys.argv[1] == "4":
    out["one text"] = different(run(FIRST, **one), expected)
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    out["one text on another mesh"] = different(run(SECOND, **one), expected)
  heads = [str(one.message) for one in said if "key/value heads do not divide" in str(one.message)]
  wanted = int(SECOND.startswith("model"))
  out["warnings about key heads too many or too few"] = float(len(heads) - wanted)
  return out


def where_the_parameters_are(plain: Generation) -> dict[str, float]:
  """Decoding without `mesh`: the program, and so its layout, is that of the mesh given by name."""
  params = sharding.shard_params(PARAMS, sharding.parse_mesh(FIRST))
  found = generate(TARGET, params, PROMPTS, sampling=SAMPLED, **SETTINGS)
  foreign = jax.device_put(PARAMS, jax.NamedSharding(jax.make_mesh((4,), ("x",)), sharding.P()))
  return {
    "on the mesh of the parameters": different(found, plain),
    "programs compiled for it": float(found.counters["compile_seconds"] > 0),
    "other axes that are not refused": float(
      "make it by mtjax.sharding.make_mesh" not in refusal(foreign)
    ),
  }


def refusal(params=PARAMS, **settings) -> str:
  """Returns why no prompt is decoded: before anything is compiled, and after all warnings."""
  try:
    generate(TARGET, params, [], **settings)
  except ValueError as error:
    return str(error)
  return ""


def heads_of_a_draft_model() -> dict[str, float]:
  """The target's two key heads divide over the model axis, and the draft model's one does not."""
  method = Speculative(ModelChain(drafters.SMALL, 3))
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert "there is no prompt" in refusal(method=method, mesh=FIRST)
  texts = [str(one.message) for one in said]
  about = "1 key/value heads do not divide over the 2 devices of the axis 'model'"
  wanted = [text for text in texts if about in text and text.endswith("of the draft model")]
  return {"warnings about a draft model but one": float(len(texts) - 1 or len(wanted) - 1)}


def greedy_with_history() -> dict[str, float]:
  """Lookup that stops where it does not pay, with a constraint and a history, each stage alone."""
  words = dfa_of([dict.fromkeys(range(8), 1), dict.fromkeys(range(4), 2), {5: 1, 9: 0}], {2}, VOCAB)
  method = Adaptive(Speculative(PromptLookup(length=3)))
  settings = dict(
    method=method,
    params=method.params((1.0, 1.05, 1.2, 1.3)),
    sampling=None,
    eos=[11],
    constraint=[words, None, words],
  )
  found, expected = run(FIRST, history=True, **settings), run(**settings)
  out = {"adaptive, with constraints and a history": different(found, expected)}
  history = found.history or []
  out["rows of the history that lack tokens"] = float(
    sum(emitted_tokens_of(history, row) != tokens for row, tokens in enumerate(found.tokens))
  )
  out["records with rows of padding"] = float(sum(len(record.rows) != 3 for record in history))
  return out


def streamed() -> dict[str, float]:
  """One text that goes on: the second prompt begins with what the first one left in a cache."""
  plain = Sampling(temperature=1.0)
  settings = dict(max_tokens=9, key=5, sampling=plain)
  first = generate(TARGET, PARAMS, PROMPTS[:1], **settings).tokens[0]
  longer = [*PROMPTS[0], *first, 3, 1]
  second = generate(TARGET, PARAMS, [longer], **settings).tokens[0]
  prefix, out = Prefix(), {}
  for name, prompt, expected in (("first", PROMPTS[0], first), ("second", longer, second)):
    kept = []
    pieces = stream(
      TARGET,
      PARAMS,
      [prompt],
      mesh=FIRST,
      prefix=prefix,
      on_prefix=kept.append,
      every=4,
      **settings,
    )
    tokens = [token for (piece,) in pieces for token in piece]
    out[f"tokens of the {name} stream"] = float(tokens != expected)
    prefix = kept[0]
    out[f"rows kept of the {name} stream but one"] = float(prefix.cache.length.shape[0] - 1)
  out["tokens read again"] = float(len(longer) + len(second) - 1 - len(prefix.tokens))
  return out


def stacked() -> dict[str, float]:
  """Layers in one scan, whose heads are in another order on a mesh than on one device.

  With heads by layer, texts must differ; and a prefix from one device must not be read on a mesh.
  """
  model = Model(dataclasses.replace(scanned(TARGET.config), layers=TARGET.config.layers * 2))
  params = jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, model.init(jax.random.key(0)))
  settings = SETTINGS | dict(prompts=PROMPTS, sampling=SAMPLED)
  plain = generate(model, params, **settings)
  settings["mesh"] = FIRST
  out = {"stacked layers": different(generate(model, params, **settings), plain)}
  jax.clear_caches()
  with mock.patch.object(stacking, "head_parts", lambda heads: 1):
    out["useless: order of heads"] = float(
      not different(generate(model, params, **settings), plain)
    )
  prompt, alone = [1, 2, 3, 4], Prefix((1, 2, 3), model.allocate(1, 8))
  with sharding.on_mesh(sharding.parse_mesh(FIRST)):
    read = alone.cache_for(model, prompt, 8).length
    own = dataclasses.replace(alone, head_parts=2).cache_for(model, prompt, 8).length
  out["tokens read from a prefix of one device"] = float(read[0])
  out["tokens not read from a prefix of the mesh"] = float(3 - own[0])
  return out


def verdicts() -> dict[str, float]:
  """Every verifier on chains and trees, with logits split by rows and by the vocabulary."""
  rows, keys = 4, jax.random.split(jax.random.key(7), 4)
  drafts, logits = {}, {}
  for kind, shape in dict(tree=PAIRS, chain=encodings.from_paths([[0], [0, 0]])).items():
    p = 2 * jax.random.normal(keys[0], (rows, shape.size, VOCAB))
    scores = p + 0.5 * jax.random.normal(keys[1], p.shape)
    noise = jax.random.gumbel(keys[2], scores.shape)
    ranked = jnp.argsort(-(scores + noise), axis=-1)  # siblings without replacement, in order
    parent = jnp.maximum(jnp.array(shape.parent), 0)
    token = ranked[:, parent, jnp.array(shape.order)].astype(jnp.int32)
    tree = shape.tree(token, jnp.ones(token.shape, bool))
    logits[kind] = p
    for name, verifier in verify.VERIFIERS.items():
      if (kind == "chain") == (verifier.chains_only is not None):
        scheme = min(verifier.schemes, key=lambda one: one.value)
        q = None if scheme is DraftScheme.DELTA else jax.nn.softmax(scores)
        drafts[name, kind] = Draft(tree, scheme, q)

  @jax.jit
  def judge(drafts, logits, keys):
    step = jnp.arange(rows)
    return {
      case: verify.verify(case[0], logits[case[1]], draft, keys, step)
      for case, draft in drafts.items()
    }

  def put(x):
    return jax.device_put(x, sharding.sharding_of(x.shape, "b.h" if x.ndim == 3 else "b", mesh))

  mesh = sharding.parse_mesh(FIRST)
  expected = judge(drafts, logits, keys)
  with sharding.on_mesh(mesh):
    found = judge(*jax.tree.map(put, (drafts, logits, keys)))
  out = {}
  for case in drafts:
    out[f"verdicts of {case[0]}"] = float(_differ(found[case], expected[case]))
    out[f"useless: drafts for {case[0]}"] = float(jnp.all(expected[case].count == 1))
  return out


def _differ(one, other) -> int:
  """Returns the number of rows whose verdicts differ; a path means nothing past its count."""
  place = np.arange(one.path.shape[1])
  paths = (np.asarray(one.path) != other.path) & (place < np.asarray(one.count)[:, None])
  rows = paths.any(axis=1) | (np.asarray(one.count) != other.count) | (one.token != other.token)
  return int(np.sum(rows))


def main() -> None:
  devices, plain = int(sys.argv[1]), run()
  if sys.argv[2:] == ["others"]:
    out = decoding(OTHERS, plain)
  elif devices == 4:
    out = decoding(METHODS[4], plain) | one_text(plain) | streamed() | verdicts()
    out |= where_the_parameters_are(plain) | heads_of_a_draft_model() | stacked()
  else:
    out = decoding(METHODS[8], plain) | one_text(plain) | greedy_with_history()
  json.dump(out, sys.stdout)


if __name__ == "__main__":
  main()

"""Run by test_vocabulary.py in a process with four CPU devices; prints {case: count}.

Two programs of everything that samples, one for a device and one for a mesh of 2 x 2 whose logits
are split by rows and tokens. A case counts what differs, unless its name says what it counts.
"""

import dataclasses
import json
import sys

import jax

jax.config.update("jax_num_cpu_devices", 4)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from mtjax import sharding, verify  # noqa: E402
from mtjax.bench.pods.collectives import collectives, of_vocabulary  # noqa: E402
from mtjax.sampling.categorical import argmax, sample_categorical_each, top_k  # noqa: E402
from mtjax.sampling.constraint import Automata, Place  # noqa: E402
from mtjax.sampling.logits import History, Sampling, best_tokens, process, row_keys, sample  # noqa: E402
from mtjax.sharding.vocabulary import over_vocabulary  # noqa: E402
from mtjax.trees import chain, k_ary  # noqa: E402
from mtjax.trees.siblings import siblings  # noqa: E402
from mtjax.types import Draft, DraftScheme, TokenTree  # noqa: E402

# Blocks of 16 tokens, whose borders are not those of the parts of 150 tokens.
ROWS, VOCAB = 8, 300
TREE, PAIR, CHAIN = k_ary((2, 2)), k_ary((2, 1)), chain(4)
TEMPERATURES = (0.0, 1.0, 0.7, 1.3, 1.0, 0.5, 2.0, 1.0)
SETTINGS = {
  "top-k, top-p and min-p": Sampling(
    temperature=TEMPERATURES,
    top_k=(0, 5, 50, 0, 1, 299, 300, 7),
    top_p=(1, 0.9, 1, 0.5, 1, 1, 0.1, 1),
    min_p=(0, 0, 0, 0.02, 0, 0.1, 0, 0),
  ),
  "bias, penalties and top-k": Sampling(
    temperature=1.0,
    top_k=4,
    repetition_penalty=1.3,
    presence_penalty=0.5,
    logit_bias={3: 2.0, 299: -3.0},
  ),
}


def drafts(topology, scheme: DraftScheme) -> tuple[jax.Array, Draft]:
  """Returns processed logits, some of them removed, and likely drafts."""
  rng = np.random.default_rng(topology.size)
  logits = rng.normal(size=(ROWS, topology.size, VOCAB)).astype(np.float32) * 3
  noise = rng.normal(size=logits.shape).astype(np.float32)
  q = np.asarray(jax.nn.softmax(logits + noise / 2))
  best = np.argsort(-q, axis=-1)
  parent, order = np.array(topology.parent), np.array(topology.order)
  token = best[:, np.maximum(parent, 0), order].astype(np.int32)
  rows = [np.tile(np.asarray(x, np.int32), (ROWS, 1)) for x in (parent, topology.depth, order)]
  tree = TokenTree(
    token, *rows, np.ones_like(token, bool), height=topology.height, breadth=topology.breadth
  )
  kept = np.where(rng.random(logits.shape) < 0.5, logits, -np.inf)
  kept[np.arange(ROWS)[:, None], np.maximum(parent, 0), token] = 4
  return kept, Draft(tree, scheme, None if scheme is DraftScheme.DELTA else q)


def of_verifier(verifier: verify.Verifier):
  scheme = min(verifier.schemes, key=lambda it: it.value) if verifier.needs_q else DraftScheme.DELTA
  topology = CHAIN if verifier.chains_only else PAIR if scheme is DraftScheme.PAIR else TREE
  return drafts(topology, scheme)


def constraint() -> tuple[Automata, Place]:
  """Returns automata that allow tokens below 100, or from 100 on, by row."""
  classes = jnp.where(jnp.arange(VOCAB) < 100, 0, 1)[None]
  automata = Automata(
    which=jnp.zeros((ROWS,), jnp.int32),
    class_of_token=classes,
    next=jnp.array([[[1, -1], [-1, 0]]]),
    distance=jnp.zeros((1, 2), jnp.int32),
  )
  return automata, Place(jnp.arange(ROWS) % 2, jnp.full((ROWS,), 9))


def sampling(logits, ties, q, keys):
  """Returns what everything that samples makes of logits [B, N, V]."""
  step = jnp.arange(ROWS)
  seen = jnp.arange(VOCAB) % 7 == jnp.arange(ROWS)[:, None]
  out = {}
  for name, setting in SETTINGS.items():
    rules = setting.rules(ROWS, VOCAB)
    history = History(seen, seen & (jnp.arange(VOCAB) % 2 == 0)) if rules.has_penalty else None
    out[name] = process(logits, rules, history)
    out[f"tokens, {name}"] = sample(out[name][:, 0], keys, step)
    out[f"best, {name}"] = best_tokens(logits, rules, history)
  automata, place = constraint()
  rules = Sampling(temperature=1.0).rules(ROWS, VOCAB).replace(constraint=automata)
  out["constraint"] = process(logits, rules, History(None, None, place))
  for name, x in (("logits", logits), ("equals", ties)):
    out[f"argmax of {name}"] = over_vocabulary(argmax, x, roles=("b.v",), out="b")
    found = over_vocabulary(lambda x: top_k(x, 5), x, roles=("b.v",), out=("b", "b"))
    out[f"top 5 of {name}"] = found[1]
  for k in (3, 40):  # few blocks, and more tokens than there are blocks
    each = jax.vmap(lambda x, key, k=k: sample_categorical_each(x, key, k))
    out[f"{k} different tokens"] = over_vocabulary(each, logits, keys, roles=("b.v", "b"), out="b")
  for scheme in DraftScheme:
    if scheme is not DraftScheme.DELTA:
      count = (2,) * logits.shape[1]
      warm = jnp.arange(ROWS) > 0
      out[f"siblings, {scheme.value}"] = siblings(scheme, logits, q, count, keys, warm)
  return out


def verdicts(cases, keys):
  return {name: verify.verify(name, *case, keys, jnp.arange(ROWS)) for name, case in cases.items()}


def put(tree, mesh):
  """Returns the arrays on the mesh: rows over data, and the vocabulary over model."""

  def one(x):
    wide = jnp.ndim(x) == 3 and x.shape[-1] == VOCAB
    return jax.device_put(x, sharding.sharding_of(x.shape, "b.v" if wide else "b", mesh))

  return jax.tree.map(one, tree)


def compare(function, *arguments, mesh) -> tuple[dict, object, str]:
  """Returns {name: numbers that differ}, the results, and the text of the program on the mesh."""
  expected = jax.jit(function)(*arguments)
  with jax.set_mesh(mesh):
    placed = put(arguments, mesh)
    program = jax.jit(function).lower(*placed).compile()
    found = program(*placed)

  def different(one, other) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return float(sum(not np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in pairs))

  return (
    {name: different(expected[name], found[name]) for name in expected},
    expected,
    program.as_text(),
  )


def wide(text: str) -> float:
  return float(len(of_vocabulary(collectives(text), VOCAB, 2)))


def main() -> None:
  mesh = sharding.make_mesh(2, 2)
  keys = row_keys(5, ROWS)
  logits = jax.random.normal(jax.random.key(0), (ROWS, 3, VOCAB)) * 3
  ties = jnp.round(logits / 2)
  logits = jnp.where(jax.random.uniform(jax.random.key(1), logits.shape) < 0.1, -jnp.inf, logits)
  q = jax.nn.softmax(logits)
  out, _, text = compare(sampling, logits, ties, q, keys, mesh=mesh)
  out["exchanges of logits in sampling"] = wide(text)
  cases = {name: of_verifier(it) for name, it in verify.VERIFIERS.items()}
  found, expected, text = compare(verdicts, cases, keys, mesh=mesh)
  out |= {f"verifier {name}": number for name, number in found.items()}
  out["exchanges of logits in verifiers"] = wide(text)
  counts = np.concatenate([np.asarray(verdict.count) for verdict in expected.values()])
  out["useless: all drafts are accepted, or none"] = float(counts.min() == counts.max())
  # The same rule for all it knows of a mesh: XLA gathers for it, and the count sees that.
  whole = dataclasses.replace(verify.VERIFIERS["delta"], by_parts=False)

  def plain(case, keys):
    return {"delta": verify.verify(whole, *case, keys, jnp.arange(ROWS))}

  found, _, text = compare(plain, cases["delta"], keys, mesh=mesh)
  out["a rule that knows no parts"] = found["delta"]
  out["useless: no gather is seen"] = float(not wide(text))
  json.dump(out, sys.stdout)


if __name__ == "__main__":
  main()

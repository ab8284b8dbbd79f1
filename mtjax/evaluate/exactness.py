"""Tests whether a verifier is exact: its distribution, enumerated or sampled, and the target's.

An author of a verifier calls:

  p, q = random_probs(rng, 20, vocab=3, length=4), random_probs(rng, 20, vocab=3, length=4)
  scheme = DraftScheme.WITHOUT_REPLACEMENT
  result = emitted(my_verifier, k_ary((2, 2)), scheme, p, q)
  assert total_variation(result.probs, target_probs(p, 3)).max() < 1e-12
  texts = sampled_texts(my_verifier, k_ary((2, 2)), scheme, p, q, rows=10**5, length=2, key=key)
  assert p_value(texts[::20], target_probs(p, 2)[0]) > 1e-6

Distributions are tables [pairs, contexts, V], one target (or draft model) per pair. Context 0 is
the empty one, and context c followed by token x is c V + 1 + x; so contexts of d tokens start at
`first(V, d)`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from mtjax.trees import Topology
from mtjax.types import Draft, DraftScheme, TokenTree, Verdict
from mtjax.verify import Procedure, Verifier, check, verify

Tables = Float[np.ndarray, "pairs contexts V"]
CHUNK = 2048  # number of drafts evaluated at once: one shape, one compilation


class Emitted(NamedTuple):
  """The distribution of the tokens that follow one round, and how many drafts are accepted."""

  probs: Float[np.ndarray, "pairs sequences"]  # of the first height + 1 tokens, in counting order
  tokens: Float[np.ndarray, " pairs"]  # mean number of tokens of one round, the last included
  accepted: Float[np.ndarray, "pairs height"]  # probability of at least 1, 2, ... accepted drafts


class Drafts(NamedTuple):
  """Every draft that a draft scheme can sample, over all pairs."""

  weight: Float[np.ndarray, " M"]  # probability of the draft
  pair: Int[np.ndarray, " M"]
  token: Int[np.ndarray, "M N"]
  context: Int[np.ndarray, "M N"]  # number of the context at each node


def first(vocab: int, length: int) -> int:
  """Returns the first context of `length` tokens, which is also the number of shorter ones."""
  return sum(vocab**d for d in range(length))


def random_probs(
  rng: np.random.Generator, pairs: int, vocab: int, length: int, concentration: float = 0.7
) -> Tables:
  """Samples a distribution for every context of fewer than `length` tokens."""
  return rng.dirichlet(np.full(vocab, concentration), (pairs, first(vocab, length)))


def total_variation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Returns the total variation distance over the last axis."""
  return np.asarray(0.5 * np.abs(a - b).sum(axis=-1))


def target_probs(p: Tables, length: int) -> Float[np.ndarray, "pairs sequences"]:
  """Returns the joint probabilities of the first `length` tokens of plain decoding."""
  start = np.zeros((p.shape[0], first(p.shape[2], length + 1)))
  start[:, 0] = 1
  return _continue(start, p, length)


def emitted(
  verifier: Verifier,
  topology: Topology,
  scheme: DraftScheme,
  p: Tables,
  q: Tables,
  *,
  pad: tuple[int, int, int] | None = None,
) -> Emitted:
  """Returns the distribution of one round and plain decoding after it, in float64.

  It is a sum over all drafts and all outcomes of the verifier. Tables need contexts of up to
  `topology.height` tokens. pad: (nodes, height, breadth) of a larger tree that holds this one, so
  that trees of several shapes share a compilation. Values that must not be read are NaN: p of
  missing nodes, and q where there are no children. Raises ValueError if the verifier refuses the
  draft.
  """
  size, height, breadth = pad or (topology.size, topology.height, topology.breadth)
  pairs, _, vocab = p.shape
  drafts = enumerate_drafts(topology, scheme, q)
  p_rows, q_rows = _rows(topology, drafts, p, q, size)
  tree = _tree(topology, drafts.token, size, height, breadth)
  with jax.enable_x64(True):
    draft = Draft(tree, scheme, jnp.asarray(q_rows))
  check(verifier, draft.replace(tree=draft.tree.replace(breadth=topology.breadth)))
  return emitted_by(verifier, drafts, draft, p_rows, p, topology.height)


def emitted_by(
  verifier: Verifier,
  drafts: Drafts,
  draft: Draft,
  p_rows: Float[np.ndarray, "M N V"],
  p: Tables,
  height: int,
) -> Emitted:
  """Returns the result of `emitted` for drafts enumerated elsewhere.

  Their trees may depend on the sampled tokens. draft, p_rows: what the verifier sees of the M
  drafts; nodes after the last context are padding. No draft may be deeper than `height`.
  """
  pairs, _, vocab = p.shape
  nodes = drafts.context.shape[1]
  stop, probs = (x[:, :nodes] for x in _outcomes(verifier, p_rows, draft))
  chance = drafts.weight[:, None] * stop
  mass = np.zeros((pairs, first(vocab, height + 2)))
  where = drafts.context[..., None] * vocab + 1 + np.arange(vocab)
  last = np.where(chance[..., None] > 0, chance[..., None] * probs, 0)
  np.add.at(mass, (drafts.pair[:, None, None], where), last)
  depth = np.asarray(draft.tree.depth)[:, :nodes]
  tokens = np.bincount(drafts.pair, (chance * (depth + 1)).sum(axis=1), minlength=pairs)
  accepted = np.empty((pairs, height))
  for d in range(height):
    share = np.where(depth > d, chance, 0).sum(axis=1)
    accepted[:, d] = np.bincount(drafts.pair, share, minlength=pairs)
  return Emitted(_continue(mass, p, height + 1), tokens, accepted)


def enumerate_drafts(topology: Topology, scheme: DraftScheme, q: Tables) -> Drafts:
  """Returns every draft of the scheme with its probability; those of probability 0 are left out."""
  pairs, _, vocab = q.shape
  drafts = Drafts(
    np.ones(pairs),
    np.arange(pairs),
    np.zeros((pairs, topology.size), np.int64),
    np.zeros((pairs, topology.size), np.int64),
  )
  for node in range(1, topology.size):
    chance = _draft_probs(topology, scheme, drafts, q, node)
    row, token = np.nonzero(chance)
    weight = drafts.weight[row] * chance[row, token]
    drafts = _place(Drafts(weight, *(x[row] for x in drafts[1:])), topology, node, token, vocab)
  return drafts


def sampled_texts(
  decide: str | Verifier | Callable[..., Verdict],
  topology: Topology,
  scheme: DraftScheme,
  p: Tables,
  q: Tables,
  *,
  rows: int,
  length: int,
  key: PRNGKeyArray,
) -> Int[np.ndarray, " rows"]:
  """Samples the first `length` tokens of `rows` generations; returns places in counting order.

  Rounds go on until every row has that many tokens. `decide` is a verifier, or a function with the
  arguments of `verify` but the first; it runs as in decoding, jitted and in float32. Row i follows
  pair i modulo pairs, so pairs share a batch. Tables need contexts of up to
  length - 1 + topology.height tokens.
  """
  if isinstance(decide, str | Verifier):
    decide = functools.partial(verify, decide)
  vocab = p.shape[2]
  rng = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
  keys = jax.random.split(jax.random.fold_in(key, 1), rows)
  context, count = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
  logits = np.log(np.maximum(p, 1e-300), where=p > 0, out=np.full(p.shape, -np.inf))
  while count.min() < length:
    drafts = _sampled_drafts(topology, scheme, q, np.where(count < length, context, 0), rng)
    logit_rows, q_rows = _rows(topology, drafts, logits, q, topology.size)
    tree = _tree(topology, drafts.token, topology.size, topology.height, topology.breadth)
    verdict = decide(
      jnp.asarray(logit_rows, jnp.float32),
      Draft(tree, scheme, jnp.asarray(q_rows, jnp.float32)),
      keys,
      jnp.asarray(count, jnp.int32),
    )
    path, end, last = (np.asarray(x) for x in (verdict.path, verdict.count, verdict.token))
    tokens = np.take_along_axis(drafts.token, path, axis=1)
    for place in range(1, topology.height + 2):
      token = last if place == path.shape[1] else np.where(place == end, last, tokens[:, place])
      add = (place <= end) & (count < length)
      context, count = np.where(add, context * vocab + 1 + token, context), count + add
  return context - first(vocab, length)


def p_value(texts: Int[np.ndarray, " rows"], probs: Float[np.ndarray, " sequences"]) -> float:
  """Returns the p-value of Pearson's chi-square; 0 if a text of probability 0 occurs.

  Cells with fewer than 5 expected texts are pooled.
  """
  from scipy import stats

  counts = np.bincount(texts, minlength=probs.size)
  if counts[probs == 0].any():
    return 0.0
  expected = probs * counts.sum()
  rare = expected < 5
  counts = np.append(counts[~rare], counts[rare].sum())
  expected = np.append(expected[~rare], expected[rare].sum())
  counts, expected = counts[expected > 0], expected[expected > 0]
  return float(stats.chisquare(counts, expected * (counts.sum() / expected.sum())).pvalue)


def _draft_probs(topology, scheme, drafts, q, node):
  """Returns probabilities [M, V] of the token at `node`, given the drafts of nodes before it."""
  parent = topology.parent[node]
  siblings = [n for n, above in enumerate(topology.parent) if above == parent]
  row = q[drafts.pair, drafts.context[:, parent]]
  earlier = drafts.token[:, [n for n in siblings if n < node]]
  if scheme is DraftScheme.WITH_REPLACEMENT:
    return row
  left = row.copy()
  np.put_along_axis(left, earlier, -1, axis=1)
  eye = np.eye(row.shape[1])
  top = eye[left.argmax(axis=1)]
  left = np.maximum(left, 0)
  total = left.sum(axis=1, keepdims=True)
  # When q has run out, the token is one that q cannot sample.
  sampled = np.where(total > 0, left / np.where(total > 0, total, 1), eye[0])
  if scheme is DraftScheme.DELTA or (
    scheme is DraftScheme.GREEDY_PLUS_ONE and node != siblings[-1]
  ):
    return top
  if scheme is DraftScheme.PAIR and node != siblings[0]:
    hub = row.argmax(axis=1)
    return np.where((earlier[:, 0] == hub)[:, None], sampled, eye[hub])
  return sampled


def _place(drafts, topology, node, token, vocab):
  drafts.token[:, node] = token
  drafts.context[:, node] = drafts.context[:, topology.parent[node]] * vocab + 1 + token
  return drafts


def _sampled_drafts(topology, scheme, q, context, rng):
  """Samples one draft per row, after the row's context."""
  rows = len(context)
  drafts = Drafts(
    np.ones(rows),
    np.arange(rows) % q.shape[0],
    np.zeros((rows, topology.size), np.int64),
    np.repeat(context[:, None], topology.size, axis=1),
  )
  for node in range(1, topology.size):
    sums = _draft_probs(topology, scheme, drafts, q, node).cumsum(axis=1)
    token = (rng.random((rows, 1)) * sums[:, -1:] >= sums).sum(axis=1)
    drafts = _place(drafts, topology, node, token, q.shape[2])
  return drafts


def _rows(topology, drafts, p, q, size):
  """Returns p and q at each node, [M, size, V], with NaN where a verifier must not read."""
  p_rows, q_rows = (np.full((len(drafts.pair), size, p.shape[2]), np.nan) for _ in "pq")
  p_rows[:, : topology.size] = p[drafts.pair[:, None], drafts.context]
  inner = sorted(set(topology.parent[1:]))
  q_rows[:, inner] = q[drafts.pair[:, None], drafts.context[:, inner]]
  return p_rows, q_rows


def _tree(topology, token, size, height, breadth) -> TokenTree:
  """Returns the trees of the topology inside a larger one, whose other nodes hold nonsense."""
  more = size - topology.size

  # Tiled by numpy: every tree has another number of drafts, and JAX would compile for each.
  def column(values, filling, dtype=np.int32):
    row = np.array([*values, *[filling] * more], dtype)
    return jnp.asarray(np.tile(row, (len(token), 1)))

  return TokenTree(
    token=jnp.asarray(np.pad(token, ((0, 0), (0, more)), constant_values=10**6), jnp.int32),
    parent=column(topology.parent, 0),
    depth=column(topology.depth, 1),
    order=column(topology.order, 0),
    valid=column([True] * topology.size, False, bool),
    height=height,
    breadth=breadth,
  )


@functools.cache
def _compiled(procedure: Procedure):
  return jax.jit(jax.vmap(procedure.outcome))


def _outcomes(verifier, p_rows, draft):
  """Returns `Procedure.outcome` of every draft, computed chunk by chunk."""
  total = len(p_rows)
  if not verifier.needs_q:
    draft = draft.replace(q=None)
  stops, probs = [], []
  leaves, structure = jax.tree.flatten((p_rows, draft))
  leaves = [np.asarray(leaf) for leaf in leaves]
  with jax.enable_x64(True):
    for start in range(0, total, CHUNK):
      index = np.minimum(np.arange(start, start + CHUNK), total - 1)
      chunk = jax.tree.unflatten(structure, [jnp.asarray(leaf[index]) for leaf in leaves])
      stop, emitted_probs = _compiled(verifier.procedure)(*chunk)
      stops.append(np.asarray(stop))
      probs.append(np.asarray(emitted_probs))
  return np.concatenate(stops)[:total], np.concatenate(probs)[:total]


def _continue(mass, p, length):
  """Moves mass on sequences of any length to those of `length` tokens, by plain decoding."""
  vocab = p.shape[2]
  mass = mass.copy()
  for d in range(length):
    here, after = slice(first(vocab, d), first(vocab, d + 1)), first(vocab, d + 1)
    grown = (mass[:, here, None] * p[:, here]).reshape(len(mass), -1)
    mass[:, after : after + grown.shape[1]] += grown
  return mass[:, first(vocab, length) :]

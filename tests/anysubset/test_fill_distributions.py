"""Every method's distribution, enumerated: the sequential joint for any window; and its passes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.anysubset.canvas import Canvas
from mtjax.anysubset.filling import passes
from mtjax.anysubset.filling import step as step_lib
from mtjax.anysubset.filling.method import Windowed
from mtjax.anysubset.filling.methods import ContextNGram, DraftOnce, Fused, SelfDraft, Sequential
from mtjax.anysubset.filling.passes import Phase
from mtjax.anysubset.filling.state import Problem
from mtjax.sampling.logits import Rules
from tests.anysubset import enumerate_fill
from tests.anysubset.enumerate_fill import distribution_of
from tests.anysubset.fill_methods import lossless_others
from tests.anysubset.table_network import TableNetwork, conditional, random_tables, sequential_probs

VOCAB, LENGTH = 2, 6
ORDER = (0, 2, 3, 5)  # targets, ascending; 1 and 4 are context
CONTEXT = {1: 1, 4: 0}

NETWORK = TableNetwork(VOCAB, LENGTH)
TABLES = random_tables(np.random.default_rng(0), VOCAB, LENGTH, scale=1.5)
METHODS = [
  Sequential(),
  *(SelfDraft(k, bonus) for k in (1, 2, 3, 4) for bonus in (False, True)),
  *(Fused(k) for k in (1, 2, 3, 4)),
  *(ContextNGram(k) for k in (1, 2, 3, 4)),
  *(DraftOnce(k) for k in (1, 2, 3, 4)),
  SelfDraft(4, verifier="block"),
  Fused(3, verifier="block"),
  DraftOnce(3, verifier="block"),
  ContextNGram(3, verifier="block"),
]
# One that is new goes through the same proof, where its rounds are phases.
METHODS += [method for method in lossless_others(METHODS) if isinstance(method, Windowed)]


def make_problem(order=ORDER, context=None, length=LENGTH, temperature=1.0):
  context = CONTEXT if context is None else context
  token, is_context, is_target = (
    np.zeros(length, int),
    np.zeros(length, bool),
    np.zeros(length, bool),
  )
  for i, x in context.items():
    token[i], is_context[i] = x, True
  is_target[list(order)] = True
  row = [jnp.asarray(x)[None] for x in (token, np.arange(length), is_context, is_target)]
  canvas = Canvas(row[0].astype(jnp.int32), row[1].astype(jnp.int32), *row[2:])
  return Problem(
    canvas,
    jnp.asarray([order], jnp.int32),
    jnp.array([len(order)], jnp.int32),
    Rules(temperature=jnp.array([temperature])),
    jax.random.key(0)[None],
  )


def distance(probs, expected):
  return 0.5 * sum(abs(probs.get(text, 0.0) - p) for text, p in expected.items())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_distribution_is_the_sequential_joint(method):
  distribution = distribution_of(method, NETWORK, TABLES, make_problem())
  expected = sequential_probs(TABLES, CONTEXT, ORDER, VOCAB)
  assert distance(distribution.chance, expected) < 1e-12
  # The theorem (2504.20456, thm. 1), which holds for each of our methods.
  assert max(distribution.passes) <= len(ORDER)


def reference(tables, context, order, window, *, kind):
  """Returns {passes: probability} of algorithm 1 (no bonus), or a variant, by a recursion."""
  vocab, total = VOCAB, len(order)

  def probs_of(text, seen, rank):
    decided = list(zip(order[:seen], text[:seen], strict=True))
    return conditional(tables, context, decided, order[rank])

  def add(out, chance, passes_, after):
    for number, p in after.items():
      out[number + passes_] = out.get(number + passes_, 0.0) + chance * p

  def verified(text, seen, cost, then):
    """Verifies drafts of ranks len(text), ... given the first `seen`; `then` goes on after it."""
    n, out = len(text), {}
    size = min(window, total - n)
    drafted = [probs_of(text, seen, n + j) for j in range(size)]
    for draft in itertools.product(range(vocab), repeat=size):
      chance = np.prod([p[x] for p, x in zip(drafted, draft, strict=True)])
      for j in range(size):
        q = probs_of((*text, *draft[:j]), n + j, n + j)
        keep = min(1.0, q[draft[j]] / drafted[j][draft[j]])
        left = np.maximum(q - drafted[j], 0)
        if keep < 1 - 1e-12:
          for x, p in enumerate(left / left.sum()):
            add(out, chance * (1 - keep) * p, cost, then((*text, *draft[:j], x)))
        chance *= keep
      if kind is not SelfDraft and n + size < total:
        for x, p in enumerate(probs_of((*text, *draft), n + size, n + size)):
          add(out, chance * p, cost, then((*text, *draft, x)))
      else:
        add(out, chance, cost, then((*text, *draft)))
    return out

  def assd(text):
    if len(text) == total:
      return {0: 1.0}
    # The last single entry needs no second call.
    return verified(text, len(text), 1 if len(text) == total - 1 else 2, assd)

  def ours(text):
    seen = len(text) - 1 if kind is Fused else 0
    return {0: 1.0} if len(text) == total else verified(text, seen, 1, ours)

  if kind is SelfDraft:
    return assd(())
  out = {}
  for x, p in enumerate(probs_of((), 0, 0)):
    add(out, p, 1, ours((x,)))
  return out


@pytest.mark.parametrize("window", [2, 3, 4])
@pytest.mark.parametrize(
  "method",
  [lambda k: SelfDraft(k, bonus=False), Fused, DraftOnce],
  ids=["self", "fused", "once"],
)
def test_the_number_of_passes_has_the_distribution_of_the_algorithm(method, window):
  """Shows that drafts see all they may see, which the distribution of the text cannot show."""
  method = method(window)
  chances = distribution_of(method, NETWORK, TABLES, make_problem()).passes
  expected = reference(TABLES, CONTEXT, ORDER, window, kind=type(method))
  assert chances == pytest.approx(expected, abs=1e-12)


def coupled_tables(scale):
  """Returns the example of the fused variant's proof: base [K, V] and pairs, numpy seed 0."""
  rng = np.random.default_rng(0)
  base = rng.normal(size=(5, 3))
  pairs = rng.normal(size=(5, 5, 3, 3)) * scale  # [seen, target, token seen, V]
  eye = np.broadcast_to(np.eye(3), (5, 3, 3))
  return dict(base=base, read=pairs.transpose(1, 0, 3, 2), own=eye, seen=np.zeros((5, 3, 3)))


@pytest.mark.parametrize(("scale", "passes_"), [(0.1, 4.00), (0.4, 4.01), (1.0, 4.03)])
def test_passes_of_five_coupled_tokens(scale, passes_):
  """The expected numbers, to two decimals, are of a recursion of algorithm 1 with k = 3."""
  problem = make_problem(range(5), {}, 5)
  distribution = distribution_of(
    SelfDraft(3, bonus=False), TableNetwork(3, 5), coupled_tables(scale), problem
  )
  assert distribution.mean_passes == pytest.approx(passes_, abs=5e-3)


@pytest.fixture
def mutant(monkeypatch):
  """Yields a function that sets attributes for one test, with freshly compiled programs."""
  enumerate_fill.forget_programs()
  yield monkeypatch.setattr
  enumerate_fill.forget_programs()


def blind_oracle(mutate):
  """Oracle queries that miss the draft just before them."""
  true = passes._queries

  def wrong(model, problem, index, rank):
    return true(model, problem, index, jnp.maximum(rank - 1, 1))

  mutate(passes, "_queries", wrong)


def lone_prompt(mutate):
  """Context entries that see only those before them."""

  def wrong(token, position, rank, *, valid=None):
    causal = jnp.broadcast_to(jnp.arange(token.shape[1]) - token.shape[1], token.shape)
    return true(token, position, jnp.where(rank == 0, causal, rank), valid=valid)

  true = passes.frontier_lib.content
  mutate(passes.frontier_lib, "content", wrong)


def early_commit(mutate):
  """A refused draft's content that stays in the cache in the place of the corrected entry's."""
  true = step_lib.apply_verdict

  def wrong(model, params, problem, state, phase, passed, drafted, verdict):
    after = true(model, params, problem, state, phase, passed, drafted, verdict)
    if not phase.drafts:
      return after
    path = jnp.broadcast_to(jnp.arange(phase.drafts + 1), (len(verdict.count), phase.drafts + 1))
    count = jnp.minimum(verdict.count + 1, phase.drafts + 1)
    cache = state.cache.commit(passed.kv, passed.position, path, count)
    return after.replace(cache=cache, pending=verdict.count == phase.drafts + 1)

  mutate(step_lib, "apply_verdict", wrong)


def forgotten_entry(mutate):
  """A last decided entry that is never read."""
  true = step_lib.apply_verdict

  def wrong(*args):
    after = true(*args)
    return after.replace(pending=jnp.zeros_like(after.pending))

  mutate(step_lib, "apply_verdict", wrong)


def logits_of_neighbours(mutate):
  """Drafts that are verified against the draft logits of the next place."""
  true = step_lib.as_draft
  mutate(step_lib, "as_draft", lambda p, s, d, logits: true(p, s, d, jnp.roll(logits, -1, axis=1)))


@pytest.mark.parametrize(
  "mutation", [blind_oracle, lone_prompt, early_commit, forgotten_entry, logits_of_neighbours]
)
def test_the_enumeration_notices(mutation, mutant):
  mutation(mutant)
  distribution = distribution_of(Fused(3), NETWORK, TABLES, make_problem())
  expected = sequential_probs(TABLES, CONTEXT, ORDER, VOCAB)
  assert distance(distribution.chance, expected) > 1e-3


@jax.jit
def first_two_logits(tables, problem, drafts):
  """Returns logits of the second entry and the next one: the draft's, and the oracle's."""
  phase = Phase(0, drafts.shape[1])
  state = step_lib.start(NETWORK, tables, Sequential(), problem, lambda logits, _: drafts[:, :1])
  read = passes.later_pass(NETWORK, tables, problem, state, phase, drafts[:, :0])
  ahead = passes.logits_ahead(NETWORK, tables, problem, phase, read, jnp.array([0]))
  oracle = passes.later_pass(NETWORK, tables, problem, state, Phase(phase.ahead, 0), drafts)
  return (read.processed[:, 0], ahead[:, 0]), (oracle.processed[:, 0], oracle.processed[:, 1])


def test_the_first_draft_has_the_oracles_logits():
  """Lemma 1 (2504.20456): it holds for any drafts that follow, but only for the first one."""
  tables = jax.tree.map(jnp.asarray, TABLES)
  drafted, oracle = first_two_logits(tables, make_problem(), jnp.array([[1, 0, 1]]))
  np.testing.assert_allclose(drafted[0], oracle[0], atol=1e-6)
  assert np.abs(drafted[1] - oracle[1]).max() > 0.1

"""Drafts that leave a model early: what is read late is what would have been read at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import S2D, Context, Round, SelfS2D
from mtjax.draft.model.s2d import _CHUNK
from mtjax.models import Model, uniform_layers
from mtjax.rounds.prefill import commit_prompt
from mtjax.rounds.state import Request
from mtjax.sampling.logits import Sampling, process
from mtjax.types import DraftScheme, Verdict
from tests.draft.drafters import LIMITS, PROMPTS, make
from tests.draft.drafters import VOCAB as WORDS
from tests.draft.test_speculative import LIMITS_OF_ALL, ROWS_OF_ALL, SETTINGS
from tests.draft.two_rounds import LENGTH as TEXT
from tests.draft.two_rounds import PROMPT, TARGET, VOCAB, WARMTH, model, p_value

EXITS, LENGTH, ROOM = (1, 2, 3), 3, 48
MODEL, PARAMS = make(16, 6, 4.0, layers=3)
# In a model of random weights: some tokens leave at each exit, some rows stop, debts grow.
THRESHOLDS = (0.145, 0.117, 0.112)


@pytest.mark.parametrize("setting", ["greedy", "ends"])
def test_a_target_that_drafts_with_its_first_layers_writes_the_same_text(setting):
  drafter = SelfS2D(MODEL, (1, 2), THRESHOLDS[1:], LENGTH)
  method = dict(method=Speculative(drafter), method_params=PARAMS)
  rows, settings = PROMPTS, dict(max_tokens=LIMITS)
  if setting == "ends":
    rows, settings = ROWS_OF_ALL, dict(max_tokens=LIMITS_OF_ALL) | SETTINGS[setting]
  plain = generate(MODEL, PARAMS, rows, **settings)
  out = generate(MODEL, PARAMS, rows, **method, **settings)
  assert (out.tokens, out.finish) == (plain.tokens, plain.finish)
  if setting == "greedy":
    assert out.counters["tokens_per_forward"] > 1.3
    assert sum(out.counters["accepted_at_depth"]) < sum(out.counters["drafted_at_depth"])


def test_a_target_that_is_not_the_model_itself_is_refused():
  method = Speculative(SelfS2D(MODEL.prefix(2), (1, 2)))
  with pytest.raises(ValueError, match="with the target's first layers: its model is another"):
    generate(MODEL, PARAMS, PROMPTS, method=method, method_params=PARAMS)


def test_self_drafting_keeps_nothing_but_counts():
  drafter = SelfS2D(MODEL, EXITS)
  state = drafter.start(PARAMS, jnp.zeros((2, 8), jnp.int32), jnp.array([8, 8]), max_new=ROOM)
  assert [leaf.size for leaf in jax.tree.leaves(state)] == [len(EXITS)]


# Rounds by hand, against a dense pass over the whole text in every round.


class Rounds:
  """Rows of random text: what each of two drafters proposes, and what is then accepted."""

  def __init__(self, sampling):
    self.rng = np.random.default_rng(0)
    self.texts = [[1, 2, 3, 1], [4, 4]]
    self.begin = [len(text) for text in self.texts]
    self.request = Request(
      sampling.rules(2, WORDS),
      jnp.array([ROOM] * 2),
      jnp.array([-1]),
      jax.random.split(jax.random.key(2)),
    )
    self.drafters = [
      S2D(MODEL, EXITS, THRESHOLDS, LENGTH),
      SelfS2D(MODEL, EXITS, THRESHOLDS, LENGTH),
    ]
    prompt, length = self.padded(8)
    self.states = [d.start(PARAMS, prompt, length, max_new=ROOM) for d in self.drafters]
    self.propose = [jax.jit(d.propose) for d in self.drafters]
    self.update = jax.jit(self.drafters[0].update)
    self.emit([0, 0], [[5], [6]])

  def padded(self, size):
    rows = [text + [0] * (size - len(text)) for text in self.texts]
    return jnp.array(rows), jnp.array([len(text) for text in self.texts])

  def emit(self, accepted, tokens):
    for text, count, new in zip(self.texts, accepted, tokens, strict=True):
      text.extend(new[: count + 1])

  def proposals(self):
    tokens, length = self.padded(ROOM)
    cache, _ = _committed(tokens, length - 1)
    step = length - jnp.array(self.begin)
    last = jnp.take_along_axis(tokens, length[:, None] - 1, axis=1)[:, 0]
    context = Context(self.request, last, step, jnp.ones((2,), bool), cache)
    found = [p(PARAMS, s, context) for p, s in zip(self.propose, self.states, strict=True)]
    self.states = [state for _, state in found]
    return [draft for draft, _ in found]

  def accept(self, tree):
    """Some of the drafts, then a random token."""
    count = np.asarray(tree.valid).sum(axis=1) - 1
    accepted = np.array([self.rng.integers(0, max_drafts + 1) for max_drafts in count])
    token = np.asarray(tree.token)
    after = self.rng.integers(0, WORDS, 2)
    emitted = np.concatenate([token[:, 1:], np.zeros((2, 1), int)], axis=1)
    emitted[[0, 1], accepted] = after
    path = jnp.broadcast_to(jnp.arange(LENGTH + 1), (2, LENGTH + 1))
    verdict = Verdict(path, jnp.array(accepted + 1), jnp.array(after))
    round_ = Round(tree, verdict, jnp.array(emitted), jnp.array(accepted + 1), jnp.zeros(()))
    self.states[0] = self.update(self.states[0], round_)
    self.emit(accepted, emitted.tolist())

  @property
  def debt(self):
    first, *others = (cache.length for cache in self.states[0].caches)
    return max(int(jnp.max(first - length)) for length in others)


@jax.jit
def _committed(tokens, length):
  return commit_prompt(MODEL, PARAMS, tokens, length, ROOM)


@jax.jit
def _every_exit(tokens, length):
  """Logits [E, B, T, V] of all exits, without any cache."""
  dense, hidden, logits = frontier.causal(tokens, length=length), None, []
  for first, last in zip((0, *EXITS), EXITS, strict=False):
    out, hidden = MODEL.segment(PARAMS, dense, first=first, last=last, hidden=hidden)
    logits.append(out.logits)
  return jnp.stack(logits)


def dense_logits(texts, tree):
  """Per row: the exit that each draft should have, how many there should be, their logits."""
  rows = [text + tree.token[row, 1:].tolist() for row, text in enumerate(texts)]
  tokens = jnp.array([row + [0] * (ROOM - len(row)) for row in rows])
  logits = np.asarray(_every_exit(tokens, jnp.array([len(row) for row in rows])))
  out = []
  for row, text in enumerate(texts):
    here = logits[:, row, len(text) - 1 :][:, :LENGTH]
    sure = np.exp(here).max(-1) / np.exp(here).sum(-1) >= np.array(THRESHOLDS)[:, None]
    exits, count = sure.argmax(axis=0), np.cumprod(sure.any(axis=0)).sum()
    out.append((exits, count, here[exits, np.arange(LENGTH)]))
  return out


@pytest.mark.parametrize(
  "sampling", [Sampling(), Sampling(temperature=0.8, top_p=0.9)], ids=["greedy", "sampled"]
)
def test_probs_are_those_of_a_dense_pass_whatever_was_owed_and_refused(sampling):
  rounds, used, counts, debts = Rounds(sampling), set(), [], []
  for _ in range(12):
    drafts = rounds.proposals()
    tree = drafts[0].tree
    assert np.array_equal(tree.valid, drafts[1].tree.valid), "two homes of one network differ"
    assert not np.any(tree.valid & (tree.token != drafts[1].tree.token))
    for row, (exits, count, logits) in enumerate(dense_logits(rounds.texts, tree)):
      assert tree.valid[row].sum() == 1 + count
      used |= set(exits[:count])
      counts.append(count)
      if sampling.temperature == 0:
        assert tree.token[row, 1 : 1 + count].tolist() == logits.argmax(-1)[:count].tolist()
        continue
      processed = process(jnp.stack([logits] * 2), rounds.request.rules)[row]
      for draft in drafts:
        np.testing.assert_allclose(
          draft.q[row, :count], jax.nn.softmax(processed)[:count], atol=1e-5
        )
    debts.append(rounds.debt)
    rounds.accept(tree)
  assert used == {0, 1, 2}, f"tokens left at {used} only"
  assert min(counts) < LENGTH == max(counts), f"rows drafted {set(counts)} tokens only"
  assert max(debts) > _CHUNK, f"the debts were {debts}"
  left = [rounds.states[0].left, rounds.states[1]]
  assert np.array_equal(*left) and left[0].sum() == sum(counts)


# One distribution over all texts of three tokens, as in test_speculative.


@functools.cache
def nested():
  config = dataclasses.replace(model(TARGET)[0].config, layers=uniform_layers(3), exits=EXITS)
  params = Model(config).init(jax.random.key(2))
  return Model(config), jax.tree.map(lambda x: x * 8 if x.ndim == 2 else x, params)


def texts(drafter, verifier, rows=8192):
  draft, params = nested()
  method = dict(method=Speculative(drafter(draft), verifier), method_params=params)
  sampling = Sampling(temperature=WARMTH)
  out = generate(*model(TARGET), [PROMPT] * rows, max_tokens=TEXT, sampling=sampling, **method)
  return np.array(out.tokens) @ VOCAB ** np.arange(TEXT)[::-1]


SURE = (0.55, 0.7, 0.0)


@dataclasses.dataclass(frozen=True)
class OtherExit(S2D):
  """A drafter that reports the last exit for every draft."""

  def propose(self, params, state, context):
    draft, new = super().propose(params, state, context)
    deep = dataclasses.replace(self, thresholds=(1.0, 1.0, 0.0))
    return draft.replace(q=S2D.propose(deep, params, state, context)[0].q), new


@pytest.mark.parametrize("verifier", ["chain", pytest.param("block", marks=pytest.mark.slow)])
def test_adaptive_drafts_keep_the_targets_distribution_over_two_rounds(verifier):
  found = texts(lambda draft: S2D(draft, thresholds=SURE, length=2), verifier)
  assert p_value(found) > 1e-3


def test_probs_of_another_exit_than_the_sampled_one_are_noticed():
  found = texts(lambda draft: OtherExit(draft, thresholds=SURE, length=1), "chain")
  assert p_value(found) < 1e-6


def test_exits_and_thresholds_are_those_of_the_model_unless_said_otherwise():
  trained = Model(dataclasses.replace(MODEL.config, exits=(1, 3)))
  drafter = S2D(trained)
  assert (drafter.exits, drafter.thresholds) == ((1, 3), (0.5, 0.0))
  assert drafter.scheme == DraftScheme.WITHOUT_REPLACEMENT


@pytest.mark.parametrize("drafter", [S2D, SelfS2D])
@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(), "the model was not trained with exits: give the numbers of layers"),
    (dict(exits=(2, 1)), r"exits are rising numbers of layers, 1 to 3; got \(2, 1\)"),
    (dict(exits=(1, 4)), r"exits are rising numbers of layers, 1 to 3; got \(1, 4\)"),
    (dict(exits=(1, 2), thresholds=(0.5,)), "1 thresholds for 2 exits"),
    (dict(exits=(1,), thresholds=(1.5,)), "thresholds are probabilities, from 0 to 1; got 1.5"),
    (dict(exits=(1,), length=0), "length must be at least 1, got 0"),
  ],
)
def test_settings_out_of_range(drafter, settings, message):
  with pytest.raises(ValueError, match=message):
    drafter(MODEL, **settings)

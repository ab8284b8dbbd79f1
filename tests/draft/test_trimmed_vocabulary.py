"""Drafts of a model that has rows for some of the target's tokens, and one row for all others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.data.trimmed import TrimmedTokenizer
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import BestFirst, GrownTree, ModelChain, ModelTree, TrimmedVocabulary
from mtjax.evaluate.exactness import emitted, target_probs, total_variation
from mtjax.models import Model
from mtjax.registry.methods import DRAFTERS
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.trees import chain, k_ary
from mtjax.types import DraftScheme
from mtjax.verify import VERIFIERS
from tests.compiled import forward
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, TARGET, VOCAB
from tests.draft.letters import Letters
from tests.draft.two_rounds import VOCAB as VOCAB_OF_TEXTS
from tests.draft.two_rounds import p_value, texts

IDS = (7, 1, 2, 3, 10, 4, 8, 5, 0)  # in no order; 6, 9 and 11 have no row
OTHERS = [i for i in range(VOCAB) if i not in IDS]
LETTERS = Letters("abcdefghijkl")


def trimmed(ids=IDS, *, rest=0.0):
  """The target with the rows of `ids` and one for other tokens, which attracts if `rest` is."""
  table = PARAMS["embedding"]["table"]
  other = jnp.full((1, table.shape[1]), rest, table.dtype)
  model = Model(dataclasses.replace(TARGET.config, vocab_size=len(ids) + 1))
  rows = jnp.concatenate([table[jnp.asarray(ids)], other])
  return model, PARAMS | {"embedding": {"table": rows}}


@pytest.mark.parametrize(
  "make",
  [
    lambda model: ModelChain(model, 3),
    pytest.param(lambda model: ModelChain(model, 3, confidence=0.05), marks=pytest.mark.slow),
    lambda model: BestFirst(model, 2, 3, 6),
    pytest.param(lambda model: ModelTree(model, k_ary((3, 2))), marks=pytest.mark.slow),
    lambda model: GrownTree(model, 6, 3, 2, 2),
  ],
)
def test_text_is_that_of_plain_decoding_and_drafts_are_of_use(make):
  settings = dict(max_tokens=LIMITS, sampling=Sampling(temperature=(0.0, 1.0, 0.7)), key=2)
  plain = generate(TARGET, PARAMS, PROMPTS, **settings).tokens
  assert set(OTHERS) & {token for row in plain for token in row}, "no token without a row"
  model, params = trimmed(rest=9.0)
  method = Speculative(make(TrimmedVocabulary(model, VOCAB, IDS)))
  out = generate(TARGET, PARAMS, PROMPTS, method=method, method_params=params, **settings)
  assert out.tokens == plain
  assert sum(out.counters["accepted_at_depth"]) > 0


def test_a_map_of_all_tokens_is_the_target_itself():
  ids = tuple(reversed(range(VOCAB)))
  model, params = trimmed(ids, rest=9.0)
  method = Speculative(ModelChain(TrimmedVocabulary(model, VOCAB, ids), 3))
  out = generate(TARGET, PARAMS, PROMPTS, max_tokens=25, method=method, method_params=params)
  assert out.counters["drafted_at_depth"] == out.counters["accepted_at_depth"]


def test_logits_are_the_models_at_their_ids_and_nothing_elsewhere():
  model, params = trimmed(rest=9.0)
  fitted = TrimmedVocabulary(model, VOCAB, IDS)
  inner = forward(model, params, frontier.causal(jnp.array([[0, 3, 8]]))).logits
  outer = forward(fitted, params, frontier.causal(jnp.array([[7, 3, 0]]))).logits
  assert outer.shape[-1] == fitted.config.vocab_size == VOCAB
  np.testing.assert_array_equal(outer[..., list(IDS)], inner[..., :-1])
  assert (outer[..., OTHERS] == -jnp.inf).all()


def test_tokens_without_a_row_are_read_as_the_last_one():
  model, params = trimmed(rest=0.5)
  fitted = TrimmedVocabulary(model, VOCAB, IDS)
  wanted = forward(model, params, frontier.causal(jnp.array([[0, len(IDS), 1]]))).logits[..., :-1]
  for token in OTHERS:
    found = forward(fitted, params, frontier.causal(jnp.array([[7, token, 1]]))).logits
    np.testing.assert_array_equal(found[..., list(IDS)], wanted)


@pytest.mark.parametrize(
  ("verifier", "shape", "scheme"),
  [
    ("chain", chain(3), DraftScheme.WITHOUT_REPLACEMENT),
    ("block", chain(3), DraftScheme.WITHOUT_REPLACEMENT),
    ("traversal", k_ary((2, 2)), DraftScheme.WITHOUT_REPLACEMENT),
    ("rrs_with", k_ary((2, 2)), DraftScheme.WITH_REPLACEMENT),
  ],
)
def test_what_is_emitted_is_the_targets_distribution(verifier, shape, scheme):
  """All drafts and coins, in float64, for twenty pairs: the draft has rows for 2 of 3 ids."""
  pairs, contexts, vocab, ids = 20, 1 + 3 + 9 + 27 + 81, 3, (2, 0)
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.full(vocab, 0.7), (pairs, contexts))
  model = Model(dataclasses.replace(TARGET.config, vocab_size=3))
  logits = jnp.asarray(rng.normal(size=(pairs, contexts, 3)) * 2)
  fitted = TrimmedVocabulary(model, vocab, ids)._fitted(logits)
  q = np.asarray(jax.nn.softmax(fitted, axis=-1), np.float64)
  assert (q[..., ids] > 0).all() and (q[..., 1] == 0).all()
  q /= q.sum(axis=-1, keepdims=True)
  found = emitted(VERIFIERS[verifier], shape, scheme, p, q)
  assert total_variation(found.probs, target_probs(p, shape.height + 1)).max() <= 1e-12
  assert found.tokens.min() > 1


FEW = (3, 0, 1)  # of the 5 tokens of two_rounds


@dataclasses.dataclass(frozen=True)
class WithShareOfOthers(ModelTree):
  """A drafter that reports q as if tokens without a row had kept a third of it."""

  def propose(self, params, state, context):
    draft, state = super().propose(params, state, context)
    return draft.replace(q=draft.q * 2 / 3), state


def few(make):
  """Makes a drafter of a draft model with rows for three tokens, and one for others."""

  def drafter(small):
    return make(TrimmedVocabulary(CutOff(small, len(FEW) + 1), VOCAB_OF_TEXTS, FEW))

  return drafter


@dataclasses.dataclass(frozen=True)
class CutOff:
  """A model of the first `rows` logits of another."""

  model: Model
  rows: int

  @property
  def config(self):
    return dataclasses.replace(self.model.config, vocab_size=self.rows)

  def allocate(self, *args):
    return self.model.allocate(*args)

  def segment(self, *args, **layers):
    output, hidden = self.model.segment(*args, **layers)
    return output._replace(logits=output.logits[..., : self.rows]), hidden


@pytest.mark.parametrize(
  ("make", "verifier"),
  [
    pytest.param(lambda model: ModelChain(model, 2), "chain", marks=pytest.mark.slow),
    (lambda model: ModelTree(model, k_ary((2, 2))), "traversal"),
  ],
)
def test_texts_follow_the_targets_distribution(make, verifier):
  assert p_value(texts(few(make), verifier)) > 1e-3


def test_a_q_that_counts_tokens_without_a_row_is_seen():
  make = few(lambda model: WithShareOfOthers(model, k_ary((2, 2))))
  assert p_value(texts(make, "traversal")) < 1e-6


@pytest.mark.parametrize(
  ("ids", "message"),
  [
    (IDS[:-1], "the map has 8 ids, and .* must have vocab_size 9, got 10"),
    ((*IDS[:-1], VOCAB), "the map has the id 12, and the target's are 0 to 11"),
    ((*IDS[:-1], -1), "the map has the id -1"),
    ((*IDS[:-1], IDS[0]), "the map has an id twice"),
  ],
)
def test_a_map_that_does_not_fit_is_refused(ids, message):
  with pytest.raises(ValueError, match=message):
    TrimmedVocabulary(trimmed()[0], VOCAB, ids)


@pytest.mark.parametrize("name", ["draft", "draft_tree", "best_first", "grown_tree"])
def test_a_config_takes_a_trimmed_draft_model_without_a_flag(name):
  model, params = trimmed()
  draft = TextModel(model, params, TrimmedTokenizer(LETTERS, IDS, "letters"), "small")
  config = dict(draft_model=draft, weights="stored")
  drafter, _ = DRAFTERS[name](config, TextModel(TARGET, PARAMS, LETTERS))
  assert drafter.model == TrimmedVocabulary(model, VOCAB, IDS)
  Speculative(drafter).check(TARGET)
  with pytest.raises(ValueError, match="'small' has another vocabulary than the target"):
    DRAFTERS[name](config, TextModel(TARGET, PARAMS, Letters("lkjihgfedcba")))


def test_a_trimmed_draft_model_is_none_of_another_tokenizer():
  model, params = trimmed()
  draft = TextModel(model, params, TrimmedTokenizer(LETTERS, IDS, "letters"), "small")
  target = TextModel(TARGET, PARAMS, Letters("lkjihgfedcba"))
  with pytest.raises(ValueError, match="'small' has some tokens of one tokenizer"):
    DRAFTERS["cross_vocabulary"](dict(draft_model=draft, weights="stored"), target)

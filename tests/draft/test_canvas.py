"""A masked model that drafts several tokens in one pass: the target's distribution is kept."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier
from mtjax.decode.adaptive import Adaptive
from mtjax.decode.generation import generate
from mtjax.decode.speculative import Speculative
from mtjax.draft import ModelCanvas
from mtjax.models import Model
from mtjax.sampling.logits import Sampling
from tests.draft import two_rounds
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, SMALL, TARGET, VOCAB
from tests.draft.recorder import rounds

SETTINGS = dict(max_tokens=LIMITS, sampling=Sampling(temperature=(0.0, 1.0, 0.7)), key=2)
KINDS = {
  "bidirectional": dict(),
  "shifted": dict(alignment="shifted"),
  "blocks": dict(block_length=4),
  "shifted blocks": dict(block_length=3, alignment="shifted"),
}


def masked(model: Model, **fields) -> Model:
  """The model as a masked one, with an embedding for the mask."""
  fields = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",)) | fields
  return Model(dataclasses.replace(model.config, **fields))


def with_mask(params, row):
  return params | {"extra": {"table": jnp.full((1, params["embedding"]["table"].shape[1]), row)}}


# The target's own weights, read both ways: some drafts are accepted.
DRAFT, DRAFT_PARAMS = masked(TARGET), with_mask(PARAMS, 0.0)


def method(**fields):
  return Speculative(ModelCanvas(masked(TARGET, **fields), length=3))


@functools.cache
def plain():
  return generate(TARGET, PARAMS, PROMPTS, **SETTINGS).tokens


@pytest.mark.parametrize(
  "kind", [pytest.param(k, marks=pytest.mark.slow) if k == "shifted" else k for k in KINDS]
)
def test_text_is_that_of_plain_decoding_and_drafts_are_of_use(kind):
  out = generate(
    TARGET, PARAMS, PROMPTS, method=method(**KINDS[kind]), method_params=DRAFT_PARAMS, **SETTINGS
  )
  assert out.tokens == plain()
  assert sum(out.counters["accepted_at_depth"]) > 0


@pytest.mark.parametrize(
  "kind", [pytest.param("bidirectional", marks=pytest.mark.slow), "shifted blocks"]
)
def test_it_catches_up_after_rounds_without_it(kind):
  adaptive = Adaptive(method(**KINDS[kind]), patience=3)
  params = adaptive.params(100.0, DRAFT_PARAMS)
  out = generate(TARGET, PARAMS, PROMPTS, method=adaptive, method_params=params, **SETTINGS)
  assert out.tokens == plain()
  assert 0 < out.counters["draft_forwards"] < out.counters["target_forwards"] - len(PROMPTS)


@pytest.mark.parametrize("kind", [pytest.param("blocks", marks=pytest.mark.slow), "shifted blocks"])
def test_drafts_are_those_of_a_pass_over_the_whole_text(kind):
  drafter = ModelCanvas(masked(TARGET, **KINDS[kind]), 3)
  size, shifted = KINDS[kind]["block_length"], "alignment" in KINDS[kind]
  forward, checked = jax.jit(DRAFT.forward), 0
  for seen in rounds(drafter, DRAFT_PARAMS, max_tokens=12)[0]:
    for row in np.flatnonzero(seen.round.num_emitted):
      length = int(seen.after.text.length[row] - seen.round.num_emitted[row])
      canvas = np.full(32, VOCAB)
      canvas[:length] = seen.after.text.token[row, :length]
      whole = frontier.block_causal(jnp.asarray(canvas)[None], jnp.arange(32)[None] // size)
      inside = jnp.arange(32) < length + 3
      whole = whole.replace(hi=jnp.where(inside[None, None], whole.hi, whole.lo))
      logits = forward(DRAFT_PARAMS, whole).logits[0, length - shifted : length + 3 - shifted]
      assert seen.draft.tree.token[row, 1:].tolist() == jnp.argmax(logits, -1).tolist()
      checked += 1
  assert checked > 6


def canvas_of(small):
  return ModelCanvas(masked(small), 2)


def test_texts_follow_the_targets_distribution():
  """Large enough for a total variation of 0.05."""
  assert two_rounds.p_value(texts(canvas_of)) > 1e-3


@dataclasses.dataclass(frozen=True)
class Flat(ModelCanvas):
  """A drafter that reports a flatter q than the one its drafts were sampled from."""

  def propose(self, params, state, context):
    draft, state = super().propose(params, state, context)
    flat = jnp.sqrt(draft.q)
    return draft.replace(q=flat / jnp.maximum(flat.sum(-1, keepdims=True), 1e-9)), state


def test_drafts_that_are_not_what_they_say_are_seen():
  assert two_rounds.p_value(texts(lambda small: Flat(masked(small), 2))) < 1e-6


def texts(make):
  """Returns the texts of `two_rounds.CHUNK` rows, as numbers.

  They are made in parts: the masks of an empty cache are constants of the program, and XLA computes
  with them while it compiles, for half a minute where all rows are in one batch.
  """
  target, params = two_rounds.model(two_rounds.TARGET)
  small, small_params = two_rounds.model(two_rounds.DRAFT)
  drafts, rows = Speculative(make(small), "block"), 500
  tokens = []
  for key in range(two_rounds.CHUNK // rows):
    out = generate(
      target,
      params,
      [two_rounds.PROMPT] * rows,
      max_tokens=two_rounds.LENGTH,
      sampling=Sampling(temperature=two_rounds.WARMTH),
      key=key,
      method=drafts,
      method_params=with_mask(small_params, 0.5),
    )
    tokens += out.tokens
  base = two_rounds.VOCAB ** np.arange(two_rounds.LENGTH)[::-1]
  return np.array(tokens) @ base


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: ModelCanvas(SMALL), "predicts 'next_token', but a canvas needs a masked model"),
    (lambda: ModelCanvas(DRAFT, 0), "length must be at least 1, got 0"),
    (lambda: ModelCanvas(DRAFT, confidence=2.0), "confidence must be between 0 and 1, got 2.0"),
    (
      lambda: ModelCanvas(masked(TARGET, extra_names=())),
      "no extra embedding called 'mask'",
    ),
  ],
)
def test_settings_out_of_range(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_another_vocabulary_is_refused():
  other = Model(dataclasses.replace(DRAFT.config, vocab_size=13))
  with pytest.raises(ValueError, match="the draft model has vocab_size 13, the target 12"):
    generate(
      TARGET, PARAMS, PROMPTS, max_tokens=2, method=Speculative(ModelCanvas(other)),
      method_params=DRAFT_PARAMS,
    )  # fmt: skip

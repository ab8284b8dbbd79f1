"""Masks among given tokens: what fills them, what it sees of the rest, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import MaskedNetwork, denoise
from mtjax.diffusion.denoising.caches import BlockStale, ExactBlocks, Uncached
from mtjax.diffusion.denoising.guidance import ClassifierFree
from mtjax.diffusion.extents import plans_of_blanks
from mtjax.diffusion.order import MaxProbability, SampledProbability
from mtjax.diffusion.revise import EditTokens, Levenshtein, Wino
from mtjax.diffusion.transfer import Threshold, WinoDraft
from mtjax.evaluate.denoising import Conditionals, canvases, text_probs
from mtjax.evaluate.exactness import p_value
from mtjax.models import Model, uniform_layers
from mtjax.sampling.logits import Sampling
from tests.diffusion.tiny_masked import BLOCKS, CONFIG, MASK, PARAMS, WHOLE, V, logits_of

TEXTS = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [4, 5, 6, 7, 8]]
TARGETS = [[0, 0, 1, 1, 0, 1, 0, 0, 0], [1, 1, 0, 0, 1]]


def filled(network, texts, targets, plan, **settings):
  """Returns the texts as they are filled, and the run; rows without a target stay as they are."""
  run = denoise(network, PARAMS, texts, is_target=targets, plan=plan, **settings)
  out = []
  for text, target, new in zip(texts, targets, run.tokens, strict=True):
    row = np.array(text)
    row[np.flatnonzero(target)] = new
    out.append(row.tolist())
  return out, run


def one_by_one(text, target):
  """Returns the text whose targets are decided one per pass, the most probable first."""
  x = np.where(target, MASK, text)
  while (x == MASK).any():
    logits = np.array(logits_of(jnp.asarray(x)[None])[0])
    log_p = np.where(x == MASK, np.array(jax.nn.log_softmax(logits)).max(axis=-1), -np.inf)
    x[log_p.argmax()] = logits[log_p.argmax()].argmax()
  return x.tolist()


def test_scattered_targets_of_ragged_rows_are_filled_given_what_stands_on_both_sides():
  texts, run = filled(WHOLE, TEXTS, TARGETS, BlockPlan(8, 8, 8))
  assert texts == [one_by_one(*each) for each in zip(TEXTS, TARGETS, strict=True)]
  assert [len(row) for row in run.tokens] == [3, 3] and run.passes.tolist() == [3, 3]
  assert [sorted(row) for row in run.decided_at] == [[1, 2, 3]] * 2
  assert run.forwards.tolist() == [3, 3] and run.counters["forwards"] == 6
  # Rows do not know each other, and tokens at targets mean nothing.
  other = [MASK if t else x for x, t in zip(TEXTS[1], TARGETS[1], strict=True)]
  again, _ = filled(WHOLE, [other, TEXTS[0]], TARGETS[::-1], BlockPlan(8, 8, 8))
  assert again == texts[::-1]


def test_targets_at_the_end_are_those_after_a_prompt():
  prompts, plan = [[1, 2, 3], [4, 5]], BlockPlan(8, 8, 8)
  texts = [[*prompt, *[0] * 8] for prompt in prompts]
  targets = [[0] * len(prompt) + [1] * 8 for prompt in prompts]
  usual = denoise(WHOLE, PARAMS, prompts, plan=plan)
  run = denoise(WHOLE, PARAMS, texts, is_target=targets, plan=plan)
  assert (run.tokens, run.decided_at) == (usual.tokens, usual.decided_at)


SMALL = 2  # tokens of the enumerated blanks; all others have no chance


def conditionals(before, after, length):
  """Returns what the network predicts for every canvas between two texts."""
  token = canvases(length, SMALL)
  rows = np.concatenate(
    [np.tile(before, (len(token), 1)), np.where(token == SMALL, MASK, token),
     np.tile(after, (len(token), 1))], axis=1,
  )  # fmt: skip
  here = slice(len(before), len(before) + length)
  logits = np.asarray(logits_of(jnp.asarray(rows, jnp.int32)), np.float64)[:, here, :SMALL]
  p = np.exp(logits - logits.max(-1, keepdims=True))
  return Conditionals(p / p.sum(-1, keepdims=True))


def test_first_hitting_samples_the_enumerated_distribution_given_both_sides():
  before, after, length, rows = [7], [9, 3, 5], 3, 2048
  text = [[*before, *[0] * length, *after]] * rows
  target = [[0] * len(before) + [1] * length + [0] * len(after)] * rows
  policy = DecidingPolicy()
  run = denoise(
    WHOLE,
    PARAMS,
    text,
    is_target=target,
    plan=BlockPlan(4, 4, length),
    policy=policy,
    sampling=Sampling(temperature=1.0, logit_bias={token: -1e9 for token in range(SMALL, V)}),
    key=1,
  )
  sampled = np.array(run.tokens) @ SMALL ** np.arange(length)[::-1]
  exact = text_probs(policy, conditionals(before, after, length), steps=length).probs
  assert p_value(sampled, exact) > 1e-3
  # The test sees a sampler that does not know what stands after the blank.
  blind = text_probs(policy, conditionals(before, [], length), steps=length).probs
  assert p_value(sampled, blind) < 1e-6


def test_a_block_causal_network_sees_its_block_and_those_before():
  plan, target = BlockPlan(4, 4, 2), [[0, 0, 1, 0, 0, 1, 1, 0, 0, 0]]
  text = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 1]]
  texts, run = filled(BLOCKS, text, target, plan)
  exact, same = filled(BLOCKS, text, target, plan, cache=ExactBlocks())
  assert exact == texts and same.decided_at == run.decided_at
  later = [[*text[0][:8], 3, 3]]
  assert filled(BLOCKS, later, target, plan)[1].tokens == run.tokens
  ends = [[[*text[0][:7], end, 9, 1]] for end in range(MASK)]
  seen = [filled(BLOCKS, one, target, plan)[1].tokens for one in ends]
  assert any(tokens != run.tokens for tokens in seen), "the end of a block is seen"
  kept = [filled(BLOCKS, one, target, plan, cache=ExactBlocks())[1].tokens for one in ends]
  assert kept == seen


def test_a_text_that_ends_within_a_block_has_no_entries_after_it():
  text, target = [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 0]
  forward = jax.jit(lambda token, end: BLOCKS.model.forward(PARAMS, BLOCKS.canvas(token, end)))
  token = jnp.array([[1, 2, 3, 4, MASK, 6, 0, 0]])
  for first in range(MASK):
    row = token.at[0, 3].set(first)
    logits = [np.asarray(forward(row, jnp.array([end])).logits)[0, 4, :MASK] for end in (6, 8)]
    if logits[0].argmax() != logits[1].argmax():
      break
  else:
    raise AssertionError("entries after the end must matter, or the test sees nothing")
  text[3] = first
  run = filled(BLOCKS, [text], [target], BlockPlan(4, 4, 1))[1]
  assert run.tokens == [[int(logits[0].argmax())]]


def test_no_pass_is_made_over_blocks_after_the_last_target():
  run = filled(WHOLE, TEXTS[:1], TARGETS[:1], BlockPlan(2, 2, 1))[1]
  # Blocks of two from position 2: two targets in the first, one in the second, none after it.
  assert run.passes.tolist() == [2] and run.decided_at == [[1, 1, 2]]


def test_a_block_that_reaches_beyond_the_end_changes_nothing():
  """It may: blocks are as wide as the widest blank of a batch, rounded up."""
  text, target = [[1, 2, 3, 4, 5, 6]], [[0, 0, 0, 1, 1, 1]]
  dual = dict(cache=BlockStale(suffix=True))
  runs = [filled(WHOLE, text, target, BlockPlan(n, n, 3), **dual) for n in (3, 8)]
  assert runs[0][0] == runs[1][0] and runs[0][1].decided_at == runs[1][1].decided_at


@dataclasses.dataclass(frozen=True)
class CountShadows(Uncached):
  """Predicts, everywhere, the number of shadow entries."""

  def logits_with_shadow(self, network, params, job, cache, now):
    count = jnp.sum(now.shadowed, axis=1)
    logits = 9.0 * jax.nn.one_hot(count, V)[:, None].repeat(now.window.index.shape[1], axis=1)
    return logits, logits, cache


def test_given_tokens_within_a_block_have_no_shadow():
  policy = DecidingPolicy(MaxProbability(), WinoDraft(0.6), Wino(0.5))
  run = filled(
    WHOLE, TEXTS, TARGETS, BlockPlan(8, 8, 8), policy=policy, cache=CountShadows()
  )[1]  # fmt: skip
  assert run.tokens == [[3] * 3] * 2, "three targets of eight positions"


# In a network of one layer keys depend on nothing but their token: old ones are exact.
SHALLOW = Model(dataclasses.replace(CONFIG, layers=uniform_layers(1)))
SHALLOW_PARAMS = jax.tree.map(lambda x: 4 * x, SHALLOW.init(jax.random.key(0)))


EXACT = dataclasses.replace(BLOCKS, block_length=8), PARAMS, ExactBlocks()
STALE = MaskedNetwork(SHALLOW, MASK), SHALLOW_PARAMS, BlockStale()


@pytest.mark.parametrize(
  ("network", "params", "cache", "shifted"),
  [
    pytest.param(*EXACT, False, id="exact-aligned"),
    pytest.param(*EXACT, True, id="exact-shifted"),
    pytest.param(*STALE, False, id="stale-aligned"),
    pytest.param(*STALE, True, id="stale-shifted", marks=pytest.mark.slow),
  ],
)
def test_blanks_over_kept_keys_are_those_of_the_whole_canvas(network, params, cache, shifted):
  network = dataclasses.replace(network, shifted=shifted)
  # Targets begin at position 0, within a block, and with a later one; given tokens lie among them.
  texts = np.random.default_rng(0).integers(0, MASK, (9, 20)).tolist()
  targets = np.array([[1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1], [0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1]])
  targets = np.pad(targets, ((0, 0), (0, 8)))
  targets = np.tile([*targets, np.roll(targets[0], 8)], (3, 1)).astype(bool).tolist()
  whole, kept = (
    denoise(
      network,
      params,
      texts,
      is_target=targets,
      plan=BlockPlan(8, 8, 4),
      policy=DecidingPolicy(SampledProbability(), WinoDraft(0.15), Wino(0.9)),
      cache=each,
      sampling=Sampling(temperature=1.0),
      key=2,
      trace=True,
    )
    for each in (Uncached(), cache)
  )
  assert kept.tokens == whole.tokens and kept.decided_at == whole.decided_at
  assert whole.trace is not None
  assert whole.trace.passes.revision.remasked.any(), "the case must mask tokens again"


def test_given_tokens_within_a_block_are_never_edited():
  policy = DecidingPolicy(MaxProbability(), Threshold(0.2), EditTokens(0.0, 4))
  settings = dict(policy=policy, sampling=Sampling(temperature=1.0), trace=True)
  trace = filled(WHOLE, TEXTS, TARGETS, BlockPlan(8, 8, 8), **settings)[1].trace
  for row, (text, target) in enumerate(zip(TEXTS, TARGETS, strict=True)):
    events = trace.events(row)
    assert "edited" in {event.kind for event in events}, "the case must edit tokens"
    assert {event.position for event in events} == set(np.flatnonzero(target).tolist())
    given = ~np.array(target, bool)
    canvas = trace.passes.canvas[:, row, : len(text)]
    assert (canvas[:, given] == np.array(text)[given]).all()


def test_guidance_is_away_from_a_text_of_masks_alone():
  text, target = [[1, 2, 3, 4, 5, 6]], [[0, 0, 1, 1, 0, 0]]
  _, run = filled(WHOLE, text, target, BlockPlan(2, 2, 1), guidance=ClassifierFree(2.0))
  rows = jnp.array([[1, 2, MASK, MASK, 5, 6], [MASK] * 6])
  given, without = np.asarray(logits_of(rows))[:, 2:4, :MASK]
  assert run.tokens == [(without + 3.0 * (given - without)).argmax(-1).tolist()]
  assert run.forwards.tolist() == [2]
  half = np.asarray(logits_of(jnp.array([[MASK, MASK, MASK, MASK, 5, 6]])))[0, 2:4, :MASK]
  wrong = (half + 3.0 * (given - half)).argmax(-1).tolist()
  assert run.tokens != [wrong], "the test must see guidance by the prompt alone"


def test_plans_of_blanks_have_as_many_passes_per_token_as_the_method():
  def plans(targets, **settings):
    return plans_of_blanks(
      targets, **dict(block_length=0, largest=64, steps=1, length=2, is_fixed=False) | settings
    )

  # Five targets over nine positions: one block of the next size, and 5 / 2 passes rounded up.
  assert plans([[1] + [0] * 4 + [1] * 4]) == [BlockPlan(16, 16, 3)]
  assert plans([[1] * 40], block_length=32) == [BlockPlan(32, 32, 16)]
  assert plans([[1] * 3], block_length=32) == [BlockPlan(16, 16, 2)]
  assert plans([[1] * 40], largest=40) == [BlockPlan(40, 40, 20)]
  assert plans([[1] * 9], block_length=4, is_fixed=True) == [BlockPlan(4, 4, 2)]
  # 25 * (7 / 25) is above 7 by rounding.
  assert plans([[1] * 25], steps=7, length=25) == [BlockPlan(32, 32, 7)]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(is_target=TARGETS[:1]), "is_target has 1 rows for 2 texts"),
    (dict(is_target=[TARGETS[0], [1]]), "row 1 has 5 tokens and 1 flags of is_target"),
    (dict(is_target=[TARGETS[0], [0] * 5]), "row 1 has no target"),
    (dict(texts=[TEXTS[0], [4, 5, MASK, 7, 8]]), f"row 1 holds the mask, {MASK}, as a given token"),
    (
      dict(policy=DecidingPolicy(revise=Levenshtein(delete_id=8, insert_id=9))),
      "Levenshtein moves what follows in a block, which would move given tokens",
    ),
    (dict(texts=[[1] * 65], is_target=[[1] + [0] * 64]), "canvas of 65 entries"),
  ],
)
def test_what_cannot_be_filled_is_refused_before_compilation(changes, message):
  settings = dict(texts=TEXTS, is_target=TARGETS) | changes
  with pytest.raises(ValueError, match=message):
    denoise(WHOLE, PARAMS, settings.pop("texts"), plan=BlockPlan(8, 8, 8), **settings)

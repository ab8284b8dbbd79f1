"""APD: the coupling by its closed form, with the published code's faults as negative controls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

import mtjax
from mtjax import frontier as frontier_lib
from mtjax.diffusion.denoising import MaskedNetwork, replay
from mtjax.diffusion.denoising.adaptive import (
  AdaptiveParallel,
  denoise_adaptively,
  stream_adaptively,
)
from mtjax.diffusion.denoising.adaptive.rule import gumbel_noise, sample_with
from mtjax.models import Model
from mtjax.rounds import run
from mtjax.rounds.placement import Placement
from mtjax.sampling.logits import Sampling, process
from mtjax.sharding import AXES
from tests.diffusion.tiny_masked import BLOCKS, CONFIG, MASK, MODEL, PARAMS, PROMPTS, WHOLE

CAUSAL = Model(dataclasses.replace(CONFIG, predicts="next_token", mask_id=None))
CAUSAL_PARAMS = jax.tree.map(lambda x: 4 * x, CAUSAL.init(jax.random.key(7)))
BOTH = dict(causal=CAUSAL, causal_params=CAUSAL_PARAMS)
SAMPLES = 20_000
MASKED_LOGITS = np.array([1.0, -0.5, 0.3, 0.0], np.float32)
CAUSAL_LOGITS = np.array([-1.0, 0.7, 0.2, 0.5], np.float32)


def softmax(logits):
  p = np.exp(logits - logits.max())
  return p / p.sum()


def agreement(p, q):
  """Returns the chance that Gumbel noise chooses the same token from p and from q.

  argmax(log p + g) = argmax(log q + g) = x iff g_x - g_y > max(log p_y/p_x, log q_y/q_x) for all y.
  """
  larger = np.maximum(p[None] / p[:, None], q[None] / q[:, None])
  return (1 / larger.sum(axis=1)).sum()


def drafts(temperature, mixture, accept):
  """Returns drafts of the second position in many rows, and if they were accepted."""
  rules = Sampling(temperature=temperature).rules(SAMPLES, 4)
  keys = jax.random.split(jax.random.key(0), (SAMPLES, 2))
  noise = gumbel_noise(keys, 4)
  masked = jnp.broadcast_to(MASKED_LOGITS, (SAMPLES, 2, 4))
  causal = jnp.broadcast_to(CAUSAL_LOGITS, (SAMPLES, 2, 4))
  draft = sample_with(process(masked, rules), noise)
  rule = AdaptiveParallel(mixture=mixture).for_rows(SAMPLES)
  return np.asarray(draft), np.asarray(accept(rule, draft, masked, causal, noise, rules)) == 2


def ours(rule, draft, masked, causal, noise, rules):
  return rule.num_accepted(draft, masked, causal, noise, rules)


def without_noise(rule, draft, masked, causal, noise, rules):
  """As `apd_accept_criterion`: its temperature is 0, whatever the draft's was."""
  return ours(rule, draft, masked, causal, 0 * noise, rules)


def without_temperature(rule, draft, masked, causal, noise, rules):
  return ours(rule, draft, masked, causal, noise, rules.replace(temperature=jnp.ones(SAMPLES)))


def off(rate, wanted):
  return abs(rate - wanted) / np.sqrt(wanted * (1 - wanted) / SAMPLES)


@pytest.mark.parametrize("temperature,mixture", [(1.0, 0.0), (1.0, 0.5), (0.5, 0.7)])
def test_a_draft_is_accepted_as_often_as_the_closed_form_says(temperature, mixture):
  p = softmax(MASKED_LOGITS / temperature)
  mixed = mixture * MASKED_LOGITS + (1 - mixture) * CAUSAL_LOGITS
  wanted = agreement(p, softmax(mixed / temperature))
  draft, accepted = drafts(temperature, mixture, ours)
  assert off(accepted.mean(), wanted) < 4
  for token in range(4):
    assert off((draft[:, 1] == token).mean(), p[token]) < 4, "drafts have one temperature"
  assert off(drafts(temperature, mixture, without_noise)[1].mean(), wanted) > 10
  if temperature != 1:
    assert off(drafts(temperature, mixture, without_temperature)[1].mean(), wanted) > 4
    # A draft with the temperature applied twice, as `sample_with_gumbel` has it.
    assert off((draft[:, 1] == 0).mean(), softmax(MASKED_LOGITS / temperature**2)[0]) > 10


def test_the_closed_form_of_the_agreement_is_that_of_an_integral():
  assert agreement(softmax(MASKED_LOGITS), softmax(MASKED_LOGITS)) == pytest.approx(1)
  # Of two tokens: the chance that one logistic number is not between the two log-odds.
  p, q = np.array([0.3, 0.7]), np.array([0.6, 0.4])
  assert agreement(p, q) == pytest.approx(1 - abs(0.3 - 0.6))


def test_a_mixture_that_is_the_masked_model_takes_all_and_the_fault_does_not():
  assert drafts(1.0, 1.0, ours)[1].all()
  assert drafts(1.0, 1.0, without_noise)[1].mean() < 0.6


def test_what_the_mixture_forbids():
  rule = AdaptiveParallel(mixture=[0.0, 1.0, 0.5]).for_rows(3)
  masked = jnp.array([[[1.0, -jnp.inf]]] * 3)
  causal = jnp.array([[[-jnp.inf, 2.0]]] * 3)
  found = rule.mixed(masked, causal)[:, 0]
  np.testing.assert_array_equal(found, [[-np.inf, 2.0], [1.0, -np.inf], [-np.inf, -np.inf]])


@jax.jit
def dense(canvas, end):
  masked = MODEL.forward(PARAMS, WHOLE.canvas(canvas, end))
  return WHOLE.logits(masked)[0]


@jax.jit
def dense_causal(canvas):
  return CAUSAL.forward(CAUSAL_PARAMS, frontier_lib.causal(canvas)).logits[0]


def apd_in_numpy(prompt, length, mixture, parallel, size=24):
  """Returns text and passes, greedily: with the temperature 0 there is no noise to share."""
  x, end = np.full(size, MASK), len(prompt) + length
  x[: len(prompt)] = prompt
  place, at, passes = len(prompt), np.zeros(size, int), 0
  while place < end:
    passes += 1
    upto = min(place + parallel, end)
    here = np.arange(place, upto)
    masked = np.array(dense(jnp.asarray(x)[None], jnp.array([upto])))[here]
    draft = masked.argmax(-1)
    tried = x.copy()
    tried[here] = draft
    causal = np.array(dense_causal(jnp.asarray(tried)[None]))[here - 1]
    causal[:, MASK] = -np.inf if mixture else causal[:, MASK]
    mixed = mixture * np.where(np.isinf(masked), 0, masked) + (1 - mixture) * causal
    agrees = mixed.argmax(-1) == draft
    agrees[0] = True
    count = len(here) if agrees.all() else int(np.argmin(agrees))
    x[here[:count]], at[here[:count]] = draft[:count], passes
    place += count
  return x[len(prompt) : end].tolist(), at[len(prompt) : end].tolist()


def test_the_loop_is_the_plain_one_at_a_mixture_per_row():
  prompts, mixture = [PROMPTS[0], PROMPTS[1], PROMPTS[1]], [0.5, 0.8, 0.95]
  out = denoise_adaptively(
    WHOLE, PARAMS, prompts, length=12, rule=AdaptiveParallel(mixture, parallel=5), **BOTH
  )
  wanted = [apd_in_numpy(*row, 5) for row in zip(prompts, [12] * 3, mixture, strict=True)]
  assert out.tokens == [tokens for tokens, _ in wanted]
  assert out.decided_at == [at for _, at in wanted]
  assert out.counters["causal_forwards"] == out.counters["forwards"] == out.passes.sum()
  assert 36 / 5 < out.passes.sum() < 36, "the case has tokens that are accepted, and others"


def test_all_is_taken_with_the_masked_model_alone_and_one_token_with_nothing_shared():
  noisy = dict(length=12, sampling=Sampling(temperature=1.0), **BOTH)
  rule = AdaptiveParallel(mixture=[1.0, 1.0], parallel=5)
  assert denoise_adaptively(WHOLE, PARAMS, PROMPTS, rule=rule, **noisy).passes.tolist() == [3, 3]
  one = AdaptiveParallel(mixture=0.5, parallel=1)
  assert denoise_adaptively(WHOLE, PARAMS, PROMPTS, rule=one, **noisy).passes.tolist() == [12, 12]


def test_a_row_is_the_same_alone_ends_at_its_end_token_and_is_streamed():
  keys = jax.random.split(jax.random.key(0), 2)
  rule = AdaptiveParallel(mixture=0.9, parallel=4)
  settings = dict(length=10, rule=rule, sampling=Sampling(temperature=0.8), **BOTH)
  both = denoise_adaptively(WHOLE, PARAMS, PROMPTS, key=keys, **settings)
  alone = denoise_adaptively(WHOLE, PARAMS, PROMPTS[1:], key=keys[1:], **settings)
  assert alone.tokens[0] == both.tokens[1] and alone.decided_at[0] == both.decided_at[1]
  eos = both.tokens[1][5]
  ended, results = both.tokens[1][: both.tokens[1].index(eos) + 1], []
  states = stream_adaptively(
    WHOLE, PARAMS, PROMPTS[1:], key=keys[1:], eos=[eos], on_finish=results.append, **settings
  )
  *_, (token, decided_at) = states
  assert results[0].tokens == [ended]
  here = slice(len(PROMPTS[1]), len(PROMPTS[1]) + len(ended))
  assert token[0, here].tolist() == ended and token[0, here.stop] == MASK
  assert decided_at[0, here].tolist() == results[0].decided_at[0]


def test_a_trace_has_the_masked_models_probabilities_of_what_is_accepted():
  rule = AdaptiveParallel(mixture=0.9, parallel=4)
  sampling = Sampling(temperature=[0.8, 0.0])
  settings = dict(length=10, rule=rule, sampling=sampling, key=3, **BOTH)
  out = denoise_adaptively(WHOLE, PARAMS, PROMPTS, trace=True, **settings)
  log_prob = out.trace.passes.log_prob
  np.testing.assert_allclose(replay(WHOLE, PARAMS, out.trace), log_prob, atol=1e-6)
  for row, prompt in enumerate(PROMPTS):
    events = out.trace.events(row)
    assert [event.token for event in events] == out.tokens[row]
    assert [event.number for event in events] == out.decided_at[row]
    for event in events:
      canvas = jnp.asarray(out.trace.passes.canvas[event.number - 1, row])[None]
      end = jnp.asarray(out.trace.passes.end[event.number - 1, row])[None]
      logits = dense(canvas, end)[event.position] / (0.8 if row == 0 else 1.0)
      wanted = jax.nn.log_softmax(logits)[event.token]
      assert event.log_prob == pytest.approx(float(wanted), abs=1e-5)
      assert event.position >= len(prompt)
  # Negative control: replay reads the trace's tokens.
  other = out.trace.passes.replace(token=(out.trace.passes.token + 1) % MASK)
  found = replay(WHOLE, PARAMS, out.trace.replace(passes=other))
  assert np.abs(found - log_prob).max() > 0.1


def test_a_constraint_is_refused_before_anything_is_read():
  with pytest.raises(ValueError, match="adaptive parallel decoding takes no constraint: leave"):
    mtjax.denoiser("apd").label(is_constrained=True)
  with pytest.raises(ValueError, match="adaptive parallel decoding takes no constraint: leave"):
    mtjax.denoiser("apd", causal="nothing").denoise(None, ["a"], constraint=object())


@pytest.mark.parametrize("network", [MaskedNetwork(MODEL, MASK, shifted=True), BLOCKS])
def test_other_networks_draft_too(network):
  rule = AdaptiveParallel(parallel=4)
  out = denoise_adaptively(network, PARAMS, PROMPTS, length=8, rule=rule, **BOTH)
  assert [len(row) for row in out.tokens] == [8, 8] and MASK not in sum(out.tokens, [])


def test_the_bundled_models():
  text = mtjax.load("masked")
  method = mtjax.denoiser("apd", length=8, parallel=4)
  (one,), run = text.denoise("The old clock", method=method)
  assert len(one.tokens) == 8 and 2 <= run.passes[0] <= 8 and method.causal == "target"


def apd(**settings):
  causal = settings.pop("causal", CAUSAL)
  given = dict(length=8, causal=causal, causal_params=CAUSAL_PARAMS) | settings
  return denoise_adaptively(WHOLE, PARAMS, PROMPTS, **given)


@pytest.mark.parametrize(
  "call,message",
  [
    (lambda: apd(causal=MODEL), "the model that accepts drafts is a masked model"),
    (
      lambda: apd(causal=Model(dataclasses.replace(CAUSAL.config, vocab_size=12))),
      "must have one vocabulary: the masked one has 11 tokens, and the causal one 12",
    ),
    (
      lambda: apd(causal=Model(dataclasses.replace(CAUSAL.config, max_position=12))),
      "a canvas has 14 entries, and the causal model 12 positions",
    ),
    (lambda: apd(length=0), "length must be at least 1, got 0"),
    (lambda: AdaptiveParallel(mixture=1.5), "mixture must be at least 0.0, at most 1.0: got 1.5"),
    (lambda: mtjax.denoiser("apd", parallel=0), "parallel must be at least 1, got 0"),
    (lambda: mtjax.denoiser("apd", steps=3), "no setting steps; it has: length, mixture, parallel"),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_mixtures_and_prompts_compile_nothing_new():
  settings = dict(length=12, eos=[3], **BOTH)
  denoise_adaptively(WHOLE, PARAMS, PROMPTS, rule=AdaptiveParallel(parallel=6), **settings)
  before = run.whole._cache_size()
  for mixture, length in ((0.3, 12), ([0.1, 1.0], [12, 9])):
    rule = AdaptiveParallel(mixture, parallel=6)
    settings |= dict(length=length)
    denoise_adaptively(WHOLE, PARAMS, [[2] * 6, [1, 4]], rule=rule, **settings)
  assert run.whole._cache_size() == before


def test_key_heads_of_the_causal_model_are_warned_of_too(monkeypatch):
  # Two devices that are not here, so nothing runs.
  devices = AbstractMesh((1, 2, 1), AXES, axis_types=(AxisType.Auto,) * 3)
  monkeypatch.setattr(Placement, "of", lambda *_: Placement(devices, rows=1, kv_heads=2))
  monkeypatch.setattr(Placement, "run", lambda *_: 1 / 0)
  causal = Model(dataclasses.replace(CAUSAL.config, heads=3, kv_heads=3))
  with (
    pytest.warns(UserWarning, match="3 key/value heads .* all heads of the causal model"),
    pytest.raises(ZeroDivisionError),
  ):
    denoise_adaptively(WHOLE, PARAMS, PROMPTS[:1], causal=causal, causal_params={}, length=4)

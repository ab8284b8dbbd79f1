"""The loop over uniform canvases: rows of a batch, one program, ends, the cache, and refusals."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.diffusion.denoising import replay
from mtjax.diffusion.noising.forward import HybridNoise
from mtjax.diffusion.uniform import (
  AcceptOrRenoise,
  CausalEncoder,
  MixturePosterior,
  NoisePosterior,
  WholeText,
  denoise_uniform,
  stream_uniform,
)
from mtjax.diffusion.uniform.run import NOT_YET
from mtjax.models import CanvasLayer, DiffusionGemmaConfig, Model, TransformerConfig, uniform_layers
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling
from mtjax.types import Exactness
from tests.compiled import forward
from tests.diffusion.tiny_masked import BLOCKS
from tests.diffusion.tiny_masked import MODEL as MASKED

V, W = 13, 4
GEMMA = Model(
  DiffusionGemmaConfig(
    vocab_size=V, dim=16, heads=2, mlp_dim=24, experts=3, top_experts=2, expert_dim=8,
    layers=(CanvasLayer(1, 8, window=5), CanvasLayer(2, 4, rotary_share=0.5, values="keys")),
    canvas_length=W, max_position=48,
  )
)  # fmt: skip
ENCODER = CausalEncoder(GEMMA)
PLAIN = Model(
  TransformerConfig(
    vocab_size=V, dim=16, heads=2, kv_heads=1, head_dim=8, mlp_dim=24, layers=uniform_layers(2),
    max_position=48, predicts="masked", extra_embeddings=1, extra_names=("mask",),
    noise="hybrid",
  )
)  # fmt: skip
WHOLE = WholeText.of(PLAIN, W)


@functools.cache
def params_of(network):
  """Returns weights that are larger than those of initialisation, so that tokens differ."""
  weights = network.model.init(jax.random.key(0))
  if network is ENCODER:  # roundings grow from pass to pass where self-conditioning is strong
    condition = weights["self_conditioning"]["mlp"]
    weights["self_conditioning"]["mlp"] = jax.tree.map(lambda x: 0.1 * x, condition)
  return jax.tree.map(lambda x: 3 * x if x.ndim > 1 else x, weights)


RNG = np.random.default_rng(0)
ROWS = 64
PROMPTS = [RNG.integers(0, V, 1 + row % 8).tolist() for row in range(ROWS)]
LENGTHS = [4 * (1 + row % 4) for row in range(ROWS)]
STEPS = [2 + row % 7 for row in range(ROWS)]
KEYS = jax.random.split(jax.random.key(5), ROWS)
FILTER = Sampling(top_p=0.95)


def accept(rows):
  """Returns settings of `AcceptOrRenoise` that differ from row to row."""
  high = np.linspace(0.2, 1.5, ROWS, dtype=np.float32)[rows]
  return AcceptOrRenoise(
    t_max=high,
    t_min=high / 2,
    gamma=np.linspace(0.05, 3.0, ROWS, dtype=np.float32)[rows],
    stable_passes=np.arange(ROWS)[rows] % 3,
    max_entropy=np.linspace(2.6, 0.2, ROWS, dtype=np.float32)[rows],
  )


def warm(make, **fixed):
  return lambda rows: make(np.linspace(0.5, 1.2, ROWS, dtype=np.float32)[rows], **fixed)


CASES = {
  "encoder": (ENCODER, accept),
  "whole text": (WHOLE, accept),
  "udlm": (WHOLE, warm(NoisePosterior)),
  "gidd": (WHOLE, warm(NoisePosterior, noise=HybridNoise(0.2))),
  "encoder of posteriors": (ENCODER, warm(MixturePosterior)),
}


# `make test-slow` runs the rules that read no more of a row than these do.
@pytest.mark.parametrize(
  "name",
  [
    name if name in ("encoder", "gidd") else pytest.param(name, marks=pytest.mark.slow)
    for name in CASES
  ],
)
def test_ragged_rows_are_those_of_single_runs_bit_for_bit(name):
  network, rule_of = CASES[name]

  def rows(which):
    return denoise_uniform(
      network,
      params_of(network),
      [PROMPTS[row] for row in which],
      length=[LENGTHS[row] for row in which],
      steps=[STEPS[row] for row in which],
      rule=rule_of(np.array(which)),
      sampling=FILTER,
      key=KEYS[np.array(which)],
      eos=[7],
    )

  together = rows(list(range(ROWS)))
  assert len({tuple(row) for row in together.tokens}) > ROWS - 12
  before = None
  for row in range(ROWS):
    alone = rows([row])
    assert alone.tokens[0] == together.tokens[row]
    assert alone.decided_at[0] == together.decided_at[row]
    assert alone.passes[0] == together.passes[row]
    if row == 7:
      before = run.whole._cache_size()
  assert run.whole._cache_size() == before, "two sizes of texts, and nothing compiled after them"
  canvases = -(-np.array([len(row) for row in together.tokens]) // W)
  early = together.passes < canvases * np.array(STEPS)
  assert early.any() == (rule_of is accept) and not early.all()


def single(**settings):
  """Returns a run of one row, by a program that the rows above have compiled."""
  settings = dict(steps=3, key=2, sampling=FILTER) | settings
  return denoise_uniform(ENCODER, params_of(ENCODER), PROMPTS[3:4], **settings)


def test_a_row_ends_with_the_canvas_that_has_an_end_token():
  free = single(length=12)
  token = next(one for one in free.tokens[0][4:8] if one not in free.tokens[0][:4])
  ended = single(length=12, eos=[token])
  first = free.tokens[0].index(token)
  assert ended.tokens[0] == free.tokens[0][: first + 1]
  assert (ended.passes[0], free.passes[0]) == (6, 9)
  counters = ended.counters
  assert (counters["tokens"], counters["forwards"], counters["commit_forwards"]) == (
    first + 1,
    7,
    1,
  )


def test_what_is_beyond_the_length_is_left_out():
  assert single(length=5).tokens[0] == single(length=8).tokens[0][:5]


def test_with_one_token_left_a_canvas_is_its_text_and_ends():
  done = single(length=4, steps=9, sampling=Sampling(top_p=1e-6))
  assert done.passes[0] < 9, "a filter to one token leaves no entropy: a stable text is the end"


def test_the_cache_is_that_of_the_text_read_at_once():
  params, size = params_of(ENCODER), 12
  text = jnp.asarray([RNG.integers(0, V, size).tolist() + [0] * 4])
  start, read, logits = (jax.jit(x) for x in (ENCODER.start, ENCODER.read, ENCODER.logits))
  part = start(params, text, jnp.array([4]))
  for begin in (4, 8):
    part = read(params, part, text[:, begin : begin + W], jnp.array([begin]), jnp.array([W]))
  canvas = jnp.asarray([[1, 2, 3, 4]])
  one, other = (
    logits(params, cache, text, canvas, jnp.array([size]), None)
    for cache in (start(params, text, jnp.array([size])), part)
  )
  np.testing.assert_allclose(one, other, atol=1e-5)
  less = logits(params, start(params, text, jnp.array([8])), text, canvas, jnp.array([size]), None)
  assert np.abs(less - one).max() > 1e-2


def test_a_pass_over_the_whole_text_sees_nothing_behind_the_canvas():
  params, prompt, canvas = params_of(WHOLE), [1, 2, 3], jnp.asarray([[4, V, 5, 6]])
  text = jnp.asarray([[*prompt, 9, 9, 9, 9, 8, 8, 8]])
  ours = jax.jit(WHOLE.logits)(params, None, text, canvas, jnp.array([3]), None)
  alone = jnp.asarray([[*prompt, 4, V, 5, 6]])
  expected = forward(PLAIN, params, frontier_lib.bidirectional(alone)).logits[:, 3:]
  np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("whole text", marks=pytest.mark.slow), "gidd"])
def test_a_stream_ends_with_the_text_of_one_program(name):
  network, rule_of = CASES[name]
  settings = dict(length=8, steps=4, rule=rule_of(np.arange(2)), key=3)
  done, results = denoise_uniform(network, params_of(network), PROMPTS[:2], **settings), []
  frames = list(
    stream_uniform(network, params_of(network), PROMPTS[:2], on_finish=results.append, **settings)
  )
  assert len(frames) == 1 + max(done.passes)
  assert results[0].tokens == done.tokens and results[0].decided_at == done.decided_at
  for row, prompt in enumerate(PROMPTS[:2]):
    here = slice(len(prompt), len(prompt) + 8)
    assert (frames[0][0][row, here] == NOT_YET).all()
    assert frames[-1][0][row, here].tolist() == done.tokens[row]
    assert frames[-1][1][row, here].tolist() == done.decided_at[row]


@pytest.fixture(scope="module", params=["encoder", "gidd"])
def traced(request):
  """Returns the network, what it has done for three rows in two canvases, and its trace."""
  network, rule_of = CASES[request.param]
  settings = dict(length=8, steps=[3, 4, 5], rule=rule_of(np.arange(3)), sampling=FILTER, key=3)
  out = denoise_uniform(network, params_of(network), PROMPTS[:3], trace=True, **settings)
  return network, settings, out


def test_replay_gives_the_samplers_log_probabilities(traced):
  network, _, out = traced
  params, passes = params_of(network), out.trace.passes
  assert np.isfinite(passes.log_prob).all() and (passes.log_prob < -1e-3).sum() > 20
  # The encoder's logits are large, and it adds its roundings to the next pass.
  found = replay(network, params, out.trace)
  np.testing.assert_allclose(found, passes.log_prob, atol=1e-6, rtol=2e-6 * (network is ENCODER))
  # Negative controls: other tokens, other canvases and other parameters.
  token = passes.replace(token=np.where(passes.token < V, (passes.token + 1) % V, passes.token))
  canvas = passes.replace(canvas=np.where(passes.canvas < V, (passes.canvas + 1) % V, V))
  for other in (token, canvas):
    found = replay(network, params, out.trace.replace(passes=other))
    # It may be -inf: a filter may have removed another token.
    assert not np.isnan(found).any() and np.abs(found - passes.log_prob).max() > 0.1
  larger = jax.tree.map(lambda x: 1.1 * x, params)
  assert np.abs(replay(network, larger, out.trace) - passes.log_prob).max() > 1e-2


def test_the_last_pass_over_a_canvas_writes_its_text(traced):
  _, _, out = traced
  for row, prompt in enumerate(PROMPTS[:3]):
    made = np.arange(out.trace.num_passes) < out.passes[row]
    ends = made & ~out.trace.passes.revision.more[:, row]
    assert ends.sum() == 2
    text = [
      event.token
      for event in out.trace.events(row)
      if ends[event.number - 1] and event.kind == "decided"
    ]
    assert text == out.tokens[row]
    kinds = {event.kind for event in out.trace.events(row)}
    assert kinds <= {"decided", "remasked"}
    assert out.trace.events(row)[0].position >= len(prompt)


def test_log_probabilities_are_those_of_the_canvas_that_was_seen():
  """By hand: the network alone, the noise of UDLM, and Bayes (2412.10193, sec. 4)."""
  _, rule_of = CASES["udlm"]
  settings = dict(length=4, steps=3, rule=rule_of(np.arange(1)), key=3)
  out = denoise_uniform(WHOLE, params_of(WHOLE), PROMPTS[2:3], trace=True, **settings)
  begin, temperature = len(PROMPTS[2]), 0.5
  for number in range(3):
    canvas = jnp.asarray(out.trace.passes.canvas[number, :, : begin + 4])
    whole = forward(PLAIN, params_of(WHOLE), frontier_lib.bidirectional(canvas)).logits
    logits = whole[0, begin:]
    x, z = np.asarray(jax.nn.softmax(logits / temperature)), np.asarray(canvas)[0, begin:]
    a, b = (1 - (3 - number) / 3, 1 - (2 - number) / 3)  # alpha at t and at s
    same = np.eye(V)[z]
    joint = (b * x + (1 - b) / V) * ((1 - a / b) / V + (a / b) * same)
    expected = np.log(joint / joint.sum(axis=1, keepdims=True))
    token = out.trace.passes.token[number, 0]
    np.testing.assert_allclose(
      out.trace.passes.log_prob[number, 0], expected[np.arange(4), token], atol=1e-4
    )


def test_the_gradient_of_replay_goes_through_what_a_canvas_tells_the_next_pass(traced):
  network, _, out = traced
  if network is not ENCODER:
    pytest.skip("it tells the next pass nothing")
  params = params_of(network)

  @jax.jit
  def total_and_slope(scale):
    def total(scale):
      condition = jax.tree.map(lambda x: scale * x, params["self_conditioning"])
      return jnp.sum(replay(network, params | dict(self_conditioning=condition), out.trace))

    return jax.value_and_grad(total)(scale)

  _, slope = total_and_slope(1.0)
  (high, _), (low, _) = total_and_slope(1.001), total_and_slope(0.999)
  assert abs(slope) > 1e-2 and float(slope) == pytest.approx(float(high - low) / 2e-3, rel=0.1)


def test_rules_say_what_they_keep():
  for made in (AcceptOrRenoise(), NoisePosterior(), MixturePosterior()):
    assert made.exactness is Exactness.APPROXIMATE and "independently" in made.reason


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(prompts=[]), "there is no prompt"),
    (dict(prompts=[[1], []]), "prompt 1 is empty"),
    (dict(prompts=[[V]]), f"prompt 0 has token ids outside 0..{V - 1}"),
    (dict(length=0), "length must be at least 1, got 0"),
    (dict(length=[4, 4]), "length has 2 values for a batch of 1 rows"),
    (dict(steps=0), "steps must be at least 1, got 0"),
    (dict(length=46), "row 0 has a text of 50 positions, 2 of them its prompt and the rest canvas"),
    (dict(sampling=Sampling(temperature=0.7)), "is a setting of their rule"),
    (dict(sampling=Sampling(repetition_penalty=1.2)), "denoising takes no penalty"),
    (dict(rule=NoisePosterior(noise=HybridNoise())), "and the network has no mask: give the name"),
    (dict(rule=AcceptOrRenoise(gamma=[0.1, 0.2])), "gamma has 2 values for a batch of 1 rows"),
    (dict(key=jax.random.split(jax.random.key(0), 3)), "one key or one per row"),
  ],
)
def test_a_mistake_is_named_before_compilation(changes, message, monkeypatch):
  monkeypatch.setattr(run, "run", None)
  arguments = dict(prompts=[[1, 2]], length=8) | changes
  with pytest.raises(ValueError, match=re.escape(message)):
    denoise_uniform(ENCODER, {}, arguments.pop("prompts"), **arguments)
  with pytest.raises(ValueError, match=re.escape(message)):
    stream_uniform(ENCODER, {}, [[1, 2]] if "prompts" not in changes else changes["prompts"],
                   **arguments)  # fmt: skip


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (dict(t_max=0), "t_max must be above 0.0"),
    (dict(t_min=-0.1), "t_min must be at least 0.0"),
    (dict(t_min=0.9), "t_min must be at most t_max, got 0.9 and 0.8"),
    (dict(t_min=[0.1, 0.9]), "t_min must be at most t_max"),
    (dict(gamma=float("nan")), "gamma must be at least 0.0"),
    (dict(stable_passes=1.5), "stable_passes must be a whole number, got 1.5"),
    (dict(max_entropy=-1), "max_entropy must be at least 0.0"),
  ],
)
def test_a_setting_out_of_range_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    AcceptOrRenoise(**settings)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: CausalEncoder(PLAIN), "needs a DiffusionGemma .* this model predicts 'masked'"),
    (lambda: WholeText(GEMMA, 4), "need a bidirectional model .* predicts 'canvas'"),
    (lambda: WholeText(PLAIN, 0), "canvas_length must be at least 1, got 0"),
    (lambda: WholeText(PLAIN, 4, mask_id=3), "mask_id must be within 13..13, got 3"),
    (lambda: NoisePosterior(0.0), "temperature must be above 0.0"),
  ],
)
def test_networks_that_do_not_fit_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_network_without_a_mask_among_its_extra_embeddings_has_none():
  assert WHOLE.mask_id == V and WholeText.of(MASKED, 4).mask_id is None
  assert BLOCKS.block_length and float(NoisePosterior().mask_share()) == 0

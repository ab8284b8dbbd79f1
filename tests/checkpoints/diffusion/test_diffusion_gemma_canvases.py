"""Uniform canvases compared with transformers: its parts on scripted logits, and `generate`."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import checkpoints
from mtjax.diffusion.candidates import sample_candidates
from mtjax.diffusion.order import LowEntropy
from mtjax.diffusion.random_numbers import Stream, keys_before
from mtjax.diffusion.rule import rule
from mtjax.diffusion.uniform import AcceptOrRenoise, CausalEncoder, WholeText, denoise_uniform
from mtjax.diffusion.uniform.network import uniform_tokens
from mtjax.diffusion.uniform.prepare import prepare_uniform
from mtjax.sampling.categorical import sample_categorical
from tests.checkpoints.diffusion.random_gemma import CANVAS, VOCAB, random_gemma
from tests.diffusion import tiny_masked
from tests.diffusion.views import make_view

pytestmark = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)
TOLERANCE = 1e-4
PROMPTS = np.random.default_rng(0).integers(3, VOCAB, (2, 11)).tolist()
EOS, PAD, STEPS = 9, VOCAB - 1, 10


class OurNumbers:
  """Random numbers of ours in place of torch's, by pass and position, for rows that keep step."""

  def __init__(self, keys, start, vocab):
    self.keys, self.start, self.vocab = keys, start, vocab
    self.passes, self.canvas, self.in_pass = 0, -1, False

  def keys_of(self, stream):
    batch = len(self.keys)
    where = self.start + self.canvas * CANVAS + jnp.arange(CANVAS)
    where = jnp.broadcast_to(where, (batch, CANVAS))
    return keys_before(self.keys, jnp.full(batch, self.passes), where, stream)

  def multinomial(self, probs, num_samples):
    import torch

    assert num_samples == 1
    self.in_pass = True
    log_probs = jnp.log(jnp.asarray(probs.numpy())).reshape(len(self.keys), CANVAS, self.vocab)
    token = jax.vmap(jax.vmap(sample_categorical))(log_probs, self.keys_of(Stream.TOKEN))
    return torch.tensor(np.array(token), dtype=torch.long).reshape(-1, 1)

  def randint(self, low, high, size, device):
    import torch

    assert (low, high, size) == (0, self.vocab, (len(self.keys), CANVAS))
    self.canvas += not self.in_pass
    token = uniform_tokens(self.keys_of(Stream.REVISE if self.in_pass else Stream.NOISE), high)
    self.passes += self.in_pass
    self.in_pass = False
    return torch.tensor(np.array(token), dtype=torch.long)


@functools.partial(jax.jit, static_argnums=0)
def begin(program, inputs):
  return program.begin(inputs)


@functools.partial(jax.jit, static_argnums=0)
def forward(program, inputs, state):
  return program.stages(inputs)["forward"](state, None)


@functools.partial(jax.jit, static_argnums=0)
def decide(program, inputs, state, logits, cache):
  return program.stages(inputs)["decide"](state, (logits, cache))[0]


# Their parts on scripted logits.

SCRIPTED = WholeText(tiny_masked.MODEL, CANVAS)
SHARP = dict(t_max=0.8, t_min=0.3, gamma=0.6, stable_passes=1, max_entropy=0.4)


def scripted_logits(seed, sharpness):
  """Returns logits [passes, rows, positions, V] that grow sure, at different times per row."""
  rng = np.random.default_rng(seed)
  first = rng.normal(size=(4, CANVAS, tiny_masked.V))
  noise = rng.normal(size=(STEPS, *first.shape))
  growth = np.linspace(0, 1, STEPS)[:, None, None, None] * np.array([1, 2, 4, 8])[:, None, None]
  return (sharpness * (growth * first + noise * np.maximum(1 - growth, 0))).astype(np.float32)


def their_passes(
  logits, keys, monkeypatch, t_max, t_min, gamma, stable_passes, max_entropy, sticky=False
):
  """Returns canvases before each pass, texts after it, and which rows are done then.

  `sticky`, which is wrong: positions that a pass has accepted stay accepted, with their tokens.
  """
  import torch
  from transformers.models.diffusion_gemma import generation_diffusion_gemma as theirs

  vocab, numbers = logits.shape[-1], OurNumbers(keys, 3, logits.shape[-1])
  config = theirs.EntropyBoundSamplerConfig(entropy_bound=gamma)
  sampler = theirs.EntropyBoundSampler(config, CANVAS, vocab, STEPS)
  warm = theirs.LinearTemperatureScheduleLogitsProcessor(t_min, t_max, STEPS)
  stop = theirs.StableAndConfidentStoppingCriteria(stable_passes, max_entropy)
  out = []
  with monkeypatch.context() as patch:
    patch.setattr(torch, "randint", numbers.randint)
    canvas = sampler.initialize_canvas(len(keys), None)
    for number, raw in enumerate(logits):
      step = torch.tensor(STEPS - number, dtype=torch.int32)
      processed = warm(None, torch.tensor(raw), step)
      probs = torch.softmax(processed, dim=-1).view(-1, vocab)
      sampled = numbers.multinomial(probs, 1).view(len(keys), CANVAS)
      text = torch.argmax(processed, dim=-1)
      before = sampler.accepted_token_mask
      after = sampler.accept_canvas(canvas, sampled, processed, step)
      if sticky and before is not None:
        after = torch.where(before, canvas, after)
        sampler.accepted_token_mask = before | sampler.accepted_token_mask
      after = sampler.renoise_canvas(after, step)
      out.append((canvas.numpy(), text.numpy(), stop(text, processed).numpy()))
      canvas = after
  return [np.array(x) for x in zip(*out, strict=True)]


def our_passes(logits, keys, made):
  """Returns the same of `made`, a rule; rows that are done keep their state."""
  program, inputs, _ = prepare_uniform(
    SCRIPTED, {}, [[1, 2, 3]] * len(keys), length=CANVAS, steps=STEPS, rule=made, sampling=None,
    key=keys, eos=(),
  )  # fmt: skip
  state, out = begin(program, inputs), []
  for raw in logits:
    before = np.array(state.canvas)
    state = decide(program, inputs, state, jnp.asarray(raw), None)
    out.append((before, np.array(state.token[:, 3 : 3 + CANVAS]), np.array(state.finished)))
  return [np.array(x) for x in zip(*out, strict=True)]


def agree(ours, theirs):
  """Returns true if rows have the same canvases and texts up to their end, at the same pass."""
  ends = np.argmax(theirs[2], axis=0)
  ends = np.where(theirs[2].any(axis=0), ends, STEPS - 1)
  if not np.array_equal(np.argmax(ours[2], axis=0), ends):
    return False
  return all(
    np.array_equal(one[: end + 1, row], other[: end + 1, row])
    for row, end in enumerate(ends)
    for one, other in zip(ours[:2], theirs[:2], strict=True)
  )


SCRIPTS = {
  "sharp": SHARP,
  "two stable passes": SHARP | dict(stable_passes=2),
  "confidence alone": SHARP | dict(stable_passes=0, max_entropy=0.15),
  "published": dict(t_max=0.8, t_min=0.4, gamma=0.1, stable_passes=1, max_entropy=0.005),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripted_passes_are_those_of_transformers(name, monkeypatch):
  keys, ends = jax.random.split(jax.random.key(4), 4), []
  for seed in range(4):
    logits = scripted_logits(seed, 3.0)
    theirs = their_passes(logits, keys, monkeypatch, **SCRIPTS[name])
    assert agree(our_passes(logits, keys, AcceptOrRenoise(**SCRIPTS[name])), theirs)
    ends.append(theirs[2].any(axis=0).sum())
  assert name == "published" or 0 < sum(ends) < 16, "some rows end early, and some do not"


@rule
class Kept(AcceptOrRenoise):
  """Wrong: acceptance does not begin anew, and a token stays while it is the most probable one."""

  def accepted(self, view, candidates):
    return super().accepted(view, candidates) | (view.token == jnp.argmax(view.logits, axis=-1))


@rule
class WholeSum(AcceptOrRenoise):
  """Wrong: the sum of entropies has the largest one in it."""

  def accepted(self, view, candidates):
    entropy = -LowEntropy().score(view, candidates)
    total = jnp.sum(jnp.where(entropy[:, :, None] >= entropy[:, None], entropy[:, None], 0), -1)
    return total <= self.gamma[:, None]


@rule
class Unsure(AcceptOrRenoise):
  """Wrong: a canvas ends when it is stable, however unsure the network is."""

  def done(self, view, unchanged):
    return unchanged >= self.stable_passes


@rule
class Unstable(AcceptOrRenoise):
  """Wrong: a canvas ends when the network is sure, although the text has just changed."""

  def done(self, view, unchanged):
    return super().done(view, jnp.full_like(unchanged, 99))


@rule
class Upwards(AcceptOrRenoise):
  """Wrong: the temperature counts the passes that were made."""

  def temperature_at(self, step, steps):
    return super().temperature_at(steps - step - 1, steps)


@rule
class Sampled(AcceptOrRenoise):
  """Wrong: the text is the canvas after the pass."""

  greedy_text = False


@pytest.mark.parametrize("wrong", [Kept, WholeSum, Unsure, Unstable, Upwards, Sampled])
def test_a_rule_that_differs_is_noticed(wrong, monkeypatch):
  keys, logits = jax.random.split(jax.random.key(4), 4), scripted_logits(0, 3.0)
  theirs = their_passes(logits, keys, monkeypatch, **SHARP)
  assert agree(our_passes(logits, keys, AcceptOrRenoise(**SHARP)), theirs)
  assert not agree(our_passes(logits, keys, wrong(**SHARP)), theirs)


def test_acceptance_that_lasts_is_noticed(monkeypatch):
  keys, logits = jax.random.split(jax.random.key(4), 4), scripted_logits(0, 3.0)
  ours = our_passes(logits, keys, AcceptOrRenoise(**SHARP))
  assert agree(ours, their_passes(logits, keys, monkeypatch, **SHARP))
  lasting = their_passes(logits, keys, monkeypatch, sticky=True, **SHARP)
  assert not np.array_equal(ours[0], lasting[0]) and not agree(ours, lasting)


def test_accepted_positions_are_those_of_the_entropy_bound_sampler():
  import torch
  from transformers.models.diffusion_gemma import generation_diffusion_gemma as theirs

  rng = np.random.default_rng(3)
  scale = rng.uniform(0.1, 12, (64, CANVAS, 1))
  logits = (scale * rng.normal(size=(64, CANVAS, 13))).astype(np.float32)
  counts = set()
  for gamma in (1e-6, 0.1, 1.0, 20.0):
    sampler = theirs.EntropyBoundSampler(theirs.EntropyBoundSamplerConfig(gamma), CANVAS, 13, 1)
    nothing = torch.zeros(64, CANVAS, dtype=torch.long)
    sampler.accept_canvas(nothing, nothing, torch.tensor(logits), 1)
    view = make_view(logits)
    ours = AcceptOrRenoise(gamma=gamma).for_rows(64).accepted(view, sample_candidates(view))
    np.testing.assert_array_equal(np.array(ours), sampler.accepted_token_mask.numpy())
    counts |= {*np.array(ours).sum(axis=1).tolist()}
  assert {1, CANVAS} < counts


def test_temperatures_are_those_of_the_linear_schedule():
  import torch
  from transformers.models.diffusion_gemma import generation_diffusion_gemma as theirs

  made = AcceptOrRenoise(t_max=0.8, t_min=0.25).for_rows(48)
  ours = made.temperature_at(jnp.arange(48), jnp.full(48, 48))
  warm = theirs.LinearTemperatureScheduleLogitsProcessor(0.25, 0.8, 48)
  one = torch.ones(())
  steps = torch.arange(48, 0, -1, dtype=torch.int32)
  expected = [float(1 / warm(None, one, step)) for step in steps]
  np.testing.assert_allclose(ours, expected, rtol=2e-7)


# The whole of `generate`.


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
  """Returns a random model of transformers, and ours of the same weights."""
  model, folder = random_gemma(conditioning=0.1), tmp_path_factory.mktemp("diffusion_gemma")
  model.save_pretrained(folder)
  ours, params = checkpoints.load(folder)
  return model, CausalEncoder(ours), params


def generate(model, prompts, keys, monkeypatch, rule):
  """Returns what transformers generates, and the canvases and logits of its passes."""
  import torch
  from transformers.models.diffusion_gemma import generation_diffusion_gemma as theirs

  numbers, passes = OurNumbers(keys, len(prompts[0]), VOCAB), []
  forward = model.forward

  def seen(**inputs):
    output = forward(**inputs)
    passes.append((inputs["decoder_input_ids"].numpy().copy(), output.logits.numpy().copy()))
    return output

  with monkeypatch.context() as patch:
    patch.setattr(torch, "multinomial", numbers.multinomial)
    patch.setattr(torch, "randint", numbers.randint)
    patch.setattr(model, "forward", seen)
    out = model.generate(
      torch.tensor(prompts),
      sampler_config=theirs.EntropyBoundSamplerConfig(entropy_bound=rule["gamma"]),
      max_new_tokens=3 * CANVAS,
      max_denoising_steps=STEPS,
      t_max=rule["t_max"],
      t_min=rule["t_min"],
      stability_threshold=rule["stable_passes"],
      confidence_threshold=rule["max_entropy"],
      eos_token_id=EOS,
      pad_token_id=PAD,
      disable_compile=True,
    )
  texts = [row[: row.index(EOS) + 1] if EOS in row else row
           for row in out.sequences[:, len(prompts[0]) :].tolist()]  # fmt: skip
  return texts, out.tokens_per_forward.numpy(), [np.array(x) for x in zip(*passes, strict=True)]


def passes_of(network, params, prompts, **settings):
  """Returns the canvases and logits of our passes."""
  program, inputs, _ = prepare_uniform(network, params, prompts, sampling=None, **settings)
  state, out = begin(program, inputs), []
  while not np.all(state.finished):
    logits, cache = forward(program, inputs, state)
    out.append((np.array(state.canvas), np.array(logits)))
    state = decide(program, inputs, state, logits, cache)
  return [np.array(x) for x in zip(*out, strict=True)]


RULES = {
  "published": dict(t_max=0.8, t_min=0.4, gamma=0.1, stable_passes=1, max_entropy=0.005),
  "early": dict(t_max=0.3, t_min=0.05, gamma=20.0, stable_passes=1, max_entropy=1.0),
  "no stability": dict(t_max=0.3, t_min=0.05, gamma=2.0, stable_passes=0, max_entropy=0.7),
}


def settings_of(name, keys):
  made = AcceptOrRenoise(**RULES[name])
  return dict(length=3 * CANVAS, steps=STEPS, rule=made, key=keys, eos=[EOS])


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("name", RULES)
def test_generate_has_the_canvases_passes_and_tokens_of_transformers(
  oracle, monkeypatch, name, row
):
  (model, network, params), prompts = oracle, [PROMPTS[row]]
  keys = jax.random.split(jax.random.key(row), 1)
  texts, speeds, theirs = generate(model, prompts, keys, monkeypatch, RULES[name])
  with jax.default_matmul_precision("highest"):
    done = denoise_uniform(network, params, prompts, **settings_of(name, keys))
    ours = passes_of(network, params, prompts, **settings_of(name, keys))
  np.testing.assert_array_equal(ours[0], theirs[0])
  assert np.abs(ours[1] - theirs[1]).max() <= TOLERANCE
  assert done.tokens == texts and done.passes.tolist() == [len(theirs[0])]
  kept = sum(token != PAD for token in done.tokens[0])  # they count no token of this id
  assert kept / done.passes[0] == pytest.approx(float(speeds[0]))
  assert done.counters["forwards"] == done.passes[0] + done.counters["commit_forwards"]


def test_rows_of_a_batch_of_transformers_are_ours(oracle, monkeypatch):
  model, network, params = oracle
  keys = jax.random.split(jax.random.key(7), 2)
  texts, _, theirs = generate(model, PROMPTS, keys, monkeypatch, RULES["published"])
  with jax.default_matmul_precision("highest"):
    done = denoise_uniform(network, params, PROMPTS, **settings_of("published", keys))
  assert done.tokens == texts and len(theirs[0]) == max(done.passes)


class Unconditioned(CausalEncoder):
  """Wrong: no pass tells the next one what it predicted."""

  def signal(self, params, logits):
    return self.no_signal(len(logits))


class Uncommitted(CausalEncoder):
  """Wrong: finished canvases are not read."""

  commits = False


@pytest.mark.parametrize("wrong", [Unconditioned, Uncommitted])
def test_a_network_that_differs_is_noticed(oracle, monkeypatch, wrong):
  model, network, params = oracle
  keys = jax.random.split(jax.random.key(0), 1)
  theirs = generate(model, PROMPTS[:1], keys, monkeypatch, RULES["published"])[2]
  with jax.default_matmul_precision("highest"):
    ours = passes_of(wrong(network.model), params, PROMPTS[:1], **settings_of("published", keys))
  passes = min(len(ours[1]), len(theirs[1]))
  assert np.abs(ours[1][:passes] - theirs[1][:passes]).max() > 100 * TOLERANCE

"""Block buffers against a plain program of their rules, over dense logits of a tiny network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax.diffusion import BlockPlan, DecidingPolicy
from mtjax.diffusion.denoising import denoise, denoise_by_blocks, replay, stream_by_blocks
from mtjax.diffusion.denoising.caches import ExactBlocks
from mtjax.diffusion.denoising.machines import BlockBuffer, Pipeline
from mtjax.diffusion.denoising.machines.in_flight import BlocksInFlight
from mtjax.diffusion.denoising.machines.passes import OverFinalBlocks, WholeCanvas
from mtjax.diffusion.order import MaxProbability
from mtjax.diffusion.revise import EditTokens, KeepDecided
from mtjax.diffusion.rule import rule
from mtjax.diffusion.traces.frames import trace_frames
from mtjax.diffusion.transfer import Threshold
from mtjax.rounds import run
from mtjax.sampling.logits import Sampling
from tests.diffusion.tiny_masked import BLOCKS, MASK, MODEL, PARAMS, PROMPTS

LENGTH, SIZE = 12, 24
EDITS = dict(add=0.25, stability=0.75, activate=0.5, threshold=0.45, edit=0.2, max_post_steps=2)
MACHINES = {
  "plain": dict(add=0.25, activate=0.5, threshold=0.35, in_flight=3),
  "two": dict(add=0.5, activate=1.0, threshold=0.4, in_flight=2),
  "edited": dict(in_flight=3, **EDITS),
}


@jax.jit
def dense(canvas, end):
  output = MODEL.forward(PARAMS, BLOCKS.canvas(canvas, end))
  return jax.nn.softmax(BLOCKS.logits(output))[0]


def buffer_in_numpy(prompt, machine, eos=()):
  """Returns text, passes of decisions, and their number, block by block and pass by pass."""
  x = np.full(SIZE, MASK)
  x[: len(prompt)] = prompt
  begin, size = len(prompt) // 4 * 4, 4
  count = -(-(len(prompt) + LENGTH - begin) // size)
  end = begin + count * size
  blocks = [np.arange(begin + k * size, begin + (k + 1) * size) for k in range(count)]
  own = [block[block >= len(prompt)] for block in blocks]
  at, final, post = np.zeros(SIZE, int), [False] * count, [0] * count
  left, begun, passes, stable = 0, 1, 0, 1.0

  def progress(k):
    return 1.0 if k < 0 else np.mean(x[own[k]] != MASK)

  while True:
    ended = np.isin(x[len(prompt) : end], eos).any()
    fits = begun - left < machine.in_flight
    if begun < count and progress(begun - 1) >= machine.add and stable >= machine.stability:
      begun += fits and not ended
    passes += 1
    p = np.array(dense(jnp.asarray(x)[None], jnp.array([blocks[begun - 1][-1] + 1])))
    best, sure = p.argmax(-1), p.max(-1)
    before, was = list(final), x.copy()
    activated = [progress(k - 1) >= machine.activate for k in range(begun)]
    for k in range(left, begun):
      if final[k]:
        continue
      masked = was[own[k]] == MASK
      chosen = own[k][masked & (sure[own[k]] > machine.threshold)]
      if masked.any() and not chosen.size and activated[k]:
        chosen = own[k][[np.where(masked, sure[own[k]], -1).argmax()]]
      edited = own[k][:0]
      if machine.edit < 1:
        differs = ~masked & (best[own[k]] != was[own[k]])
        edited = own[k][differs & (sure[own[k]] > machine.edit)]
      for place in (chosen, edited):
        x[place], at[place] = best[place], passes
      post[k] += not masked.any()
      late = post[k] >= machine.max_post_steps
      if (x[own[k]] != MASK).all():
        final[k] = machine.edit >= 1 or not (chosen.size or edited.size) or late
    last = own[begun - 1]
    known = last[was[last] != MASK] if not before[begun - 1] else last[:0]
    stable = np.mean(best[known] == was[known]) if known.size else 1.0
    while left < count and before[left]:
      left += 1
    whole = 0
    while whole < count and final[whole]:
      whole += 1
    text = x[len(prompt) : begin + whole * size]
    if whole == count or np.isin(text, eos).any():
      break
  here = slice(len(prompt), len(prompt) + LENGTH)
  return x[here].tolist(), at[here].tolist(), passes


@pytest.mark.parametrize("name", MACHINES)
def test_a_buffer_does_what_its_rules_say(name):
  machine = BlockBuffer(**MACHINES[name])
  out = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, length=LENGTH, machine=machine, trace=True)
  wanted = [buffer_in_numpy(prompt, machine) for prompt in PROMPTS]
  assert out.tokens == [tokens for tokens, _, _ in wanted]
  assert out.decided_at == [at for _, at, _ in wanted]
  assert out.passes.tolist() == [passes for _, _, passes in wanted]
  np.testing.assert_allclose(
    replay(BLOCKS, PARAMS, out.trace), out.trace.passes.log_prob, atol=1e-6
  )
  *_, last = trace_frames(out.trace, PROMPTS, LENGTH)
  assert last.tokens == out.tokens and last.decided_at == out.decided_at
  edits = [event for event in out.trace.events(0) if event.kind == "edited"]
  assert bool(edits) == (name == "edited"), "the case must have edits"


def test_what_is_asked_of_the_buffer_changes_what_it_does():
  """Negative control: the test above would see a machine without stability, or without edits."""
  machine = BlockBuffer(**MACHINES["edited"])
  passes = [buffer_in_numpy(prompt, machine) for prompt in PROMPTS]
  others = dict(stability=0.0, edit=1.0, add=1.0, max_post_steps=16, activate=1.0, threshold=0.9)
  for changed in others.items():
    other = dataclasses.replace(machine, **dict([changed]))
    assert [buffer_in_numpy(prompt, other) for prompt in PROMPTS] != passes, changed


@pytest.mark.parametrize("revise", [KeepDecided(), EditTokens(0.2, 2)])
def test_a_buffer_of_one_block_is_the_loop_of_one_block(revise):
  """Two programs that share no rule: the loop's passes, and one that commits each block."""
  edits = isinstance(revise, EditTokens)
  more = dict(edit=0.2, max_post_steps=2) if edits else {}
  machine = BlockBuffer(threshold=0.35, in_flight=1, **more)
  policy = DecidingPolicy(MaxProbability(), Threshold(0.35), revise)
  plan = BlockPlan(LENGTH, 4, LENGTH)
  loop = denoise(BLOCKS, PARAMS, PROMPTS, plan=plan, policy=policy, cache=ExactBlocks())
  out = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, length=LENGTH, machine=machine)
  assert out.tokens == loop.tokens
  # Both texts are in 4 blocks, the first of which holds the end of the prompt.
  assert out.passes.tolist() == (loop.passes + 3).tolist()


class LateCanvas(WholeCanvas):
  """Whole canvases, with blocks that leave one pass after they are final, as cached ones do."""

  def leaving(self, before, after):
    return before


class EarlyCommit(OverFinalBlocks):
  """Negative control: keys of blocks are kept from the pass that decided them."""

  def leaving(self, before, after):
    return after

  def logits(self, network, params, token, kept, window, end, final, soften):
    every = jnp.ones_like(final).at[:, 1:].set(False)
    return super().logits(network, params, token, kept, window, end, every, soften)


@rule
class OverWhole(BlockBuffer):
  def program(self, network, score, num_blocks):
    return BlocksInFlight(network, min(self.in_flight, num_blocks), score, LateCanvas())


@rule
class Early(BlockBuffer):
  def program(self, network, score, num_blocks):
    return BlocksInFlight(network, min(self.in_flight, num_blocks), score, EarlyCommit())


def logits_seen(out):
  return np.asarray(out.trace.passes.log_prob)


def test_kept_keys_are_exact_and_those_of_masks_are_not():
  settings = dict(length=LENGTH, sampling=Sampling(temperature=1.0), key=5, trace=True)
  chosen = MACHINES["edited"]
  cached = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, machine=BlockBuffer(**chosen), **settings)
  whole = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, machine=OverWhole(**chosen), **settings)
  assert cached.tokens == whole.tokens and cached.decided_at == whole.decided_at
  np.testing.assert_allclose(logits_seen(cached), logits_seen(whole), atol=1e-5)
  wrong = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, machine=Early(**chosen), **settings)
  same = min(len(logits_seen(wrong)), len(logits_seen(whole)))
  assert np.abs(logits_seen(wrong)[:same] - logits_seen(whole)[:same]).max() > 1e-3


def test_a_row_of_a_buffer_is_the_same_alone_and_settings_differ_per_row():
  machine = BlockBuffer(**MACHINES["edited"] | dict(threshold=[0.3, 0.6], edit=[1.0, 0.3]))
  keys = jax.random.split(jax.random.key(0), 2)
  settings = dict(length=LENGTH, sampling=Sampling(temperature=0.7))
  both = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, machine=machine, key=keys, **settings)
  one = dataclasses.replace(machine, threshold=0.6, edit=0.3)
  alone = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS[1:], machine=one, key=keys[1:], **settings)
  assert alone.tokens[0] == both.tokens[1] and alone.decided_at[0] == both.decided_at[1]


def test_a_buffer_ends_with_the_block_that_has_an_end():
  machine = BlockBuffer(**MACHINES["plain"])
  plain = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS[1:], length=LENGTH, machine=machine)
  eos = plain.tokens[0][2]
  out = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS[1:], length=LENGTH, machine=machine, eos=[eos])
  tokens, _, passes = buffer_in_numpy(PROMPTS[1], machine, [eos])
  assert out.tokens[0] == tokens[: tokens.index(eos) + 1] and out.passes.tolist() == [passes]


@pytest.mark.parametrize("machine", [Pipeline(in_flight=2), BlockBuffer(**MACHINES["plain"])])
def test_frames_end_with_the_text(machine):
  results, settings = [], dict(length=LENGTH, machine=machine)
  states = stream_by_blocks(BLOCKS, PARAMS, PROMPTS, on_finish=results.append, **settings)
  frames = [(token, at) for token, at in states]
  (out,) = results
  assert len(frames) == 1 + max(out.passes)
  for row, prompt in enumerate(PROMPTS):
    here = slice(len(prompt), len(prompt) + LENGTH)
    assert frames[-1][0][row, here].tolist() == out.tokens[row]
    assert frames[-1][1][row, here].tolist() == out.decided_at[row]
    assert (frames[0][0][row, here] == MASK).all()


def test_settings_and_prompts_compile_nothing_new():
  settings = dict(length=LENGTH, eos=[3])
  first = BlockBuffer(**MACHINES["two"])
  denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, machine=first, **settings)
  before = run.whole._cache_size()
  others = [
    dataclasses.replace(first, threshold=0.6, edit=[0.5, 1.0]),
    dataclasses.replace(first, stability=[0.5, 0.1], max_post_steps=3, add=0.7),
  ]
  for machine in others:
    denoise_by_blocks(BLOCKS, PARAMS, [[2, 7], [1] * 5], machine=machine, **settings)
  assert run.whole._cache_size() == before

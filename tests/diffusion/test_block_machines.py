"""Machines of blocks with scripted logits: pass counts of D2F's pipeline and of Fast-dLLM v2."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.diffusion.denoising import (
  MaskedNetwork,
  denoise_by_blocks,
  replay,
)
from mtjax.diffusion.denoising.machines import BlockBuffer, Pipeline, SubBlocks
from mtjax.diffusion.traces.frames import trace_frames
from mtjax.models import Model
from mtjax.sampling.logits import Sampling
from mtjax.types import LayerKV, Output
from tests.diffusion.tiny_masked import BLOCKS, CONFIG, MASK, MODEL, PARAMS, PROMPTS, V

SIZE = 96


class ScriptedModel(Model):
  """Entry i predicts token 1 + i % 9 with probability params[i]: a model of its positions alone."""

  def forward(self, params, frontier, cache=None, rows=None):
    position = frontier.position
    p = params[position][:, :, None]
    best = jnp.arange(V) == (1 + position % 9)[:, :, None]
    logits = jnp.log(jnp.where(best, p, (1 - p) / (V - 2)))
    kv = jnp.zeros((*position.shape, 1))[:, None]
    if rows is not None:
      logits = jnp.take_along_axis(logits, rows[:, :, None], axis=1)
    return Output(logits, kv[:, 0], (LayerKV(kv, kv),))

  def allocate(self, batch, capacity, dtype=None):
    empty = jnp.zeros((batch, 1, capacity, 1))
    zero = jnp.zeros((batch,), jnp.int32)
    return KVCache((LayerKV(empty, empty),), jnp.zeros((batch, capacity), jnp.int32), zero)


SCRIPTED = ScriptedModel(dataclasses.replace(CONFIG, max_position=SIZE))
ALIGNED = MaskedNetwork(SCRIPTED, MASK, block_length=4)
SHIFTED = MaskedNetwork(SCRIPTED, MASK, shifted=True, block_length=32)
SURE, UNSURE = np.full(SIZE, 0.97, np.float32), np.full(SIZE, 0.5, np.float32)


def text(begin, length, shift=0):
  return [1 + (position - shift) % 9 for position in range(begin, begin + length)]


def pipeline_in_numpy(p, begin, length, block, pipeline, in_flight):
  """Returns when each position is decided, by the rules of D2F's `generate` (2508.09192)."""
  at, begun, passes = np.zeros(length, int), 1, 0
  while not at.all():
    passes += 1
    blocks = at.reshape(-1, block)
    front = int(np.argmax((blocks == 0).any(1)))
    progress = (blocks > 0).mean(1)
    if begun < len(blocks) and progress[begun - 1] >= pipeline.add and begun - front < in_flight:
      begun += 1
    new = np.zeros_like(blocks, bool)
    for number in range(begun):
      here = p[begin + number * block :][:block]
      open_ = blocks[number] == 0
      new[number] = open_ & (here > pipeline.threshold)
      activated = number == 0 or progress[number - 1] >= pipeline.activate
      if open_.any() and activated and not new[number].any():
        new[number, np.where(open_, here, -1).argmax()] = True
    at[new.ravel()] = passes
  return at.tolist()


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_pipeline_decides_as_the_published_one(in_flight):
  rng = np.random.default_rng(0)
  p = rng.choice([0.3, 0.5, 0.7, 0.85, 0.95], SIZE) + rng.uniform(0.0, 0.04, SIZE)  # no ties
  p = p.astype(np.float32)
  pipeline = Pipeline(add=0.25, activate=0.75, threshold=0.9, in_flight=in_flight)
  lengths = [16, 24]
  out = denoise_by_blocks(ALIGNED, p, [[1] * 4, [1] * 8], length=lengths, machine=pipeline)
  for row, begin in enumerate([4, 8]):
    wanted = pipeline_in_numpy(p, begin, lengths[row], 4, pipeline, in_flight)
    assert out.decided_at[row] == wanted and out.passes[row] == max(wanted)
    assert out.tokens[row] == text(begin, lengths[row])


def test_a_sure_pipeline_needs_a_pass_per_block_and_an_unsure_one_a_pass_per_token():
  pipeline = Pipeline(add=[0.1, 0.5], activate=1.0)
  sure = denoise_by_blocks(ALIGNED, SURE, [[1] * 4] * 2, length=16, machine=pipeline)
  assert sure.passes.tolist() == [4, 4]
  # Blocks that have begun wait to be activated: every pass decides the best position of one block.
  unsure = denoise_by_blocks(ALIGNED, UNSURE, [[1] * 4] * 2, length=16, machine=pipeline)
  assert unsure.passes.tolist() == [16, 16]
  # Activated at half of the block before, two or three blocks decide one position each per pass.
  early = denoise_by_blocks(
    ALIGNED, UNSURE, [[1] * 4] * 2, length=16, machine=Pipeline(add=0.1, activate=0.5)
  )
  assert early.passes.tolist() == [10, 10]


def test_a_pipeline_ends_with_the_block_that_has_an_end():
  eos = text(4, 8)[5]
  out = denoise_by_blocks(ALIGNED, SURE, [[1] * 4], length=16, machine=Pipeline(), eos=[eos])
  assert out.tokens == [text(4, 6)] and out.passes.tolist() == [2]


def test_entries_after_the_canvas_end_no_pipeline():
  """They hold token 0, an end token of many tokenizers, which this model never says."""
  out = denoise_by_blocks(ALIGNED, SURE, [[1] * 4], machine=Pipeline(), length=16, eos=[0])
  assert out.tokens == [text(4, 16)]


def test_a_pipeline_row_is_the_same_alone():
  pipeline = Pipeline(add=0.25, activate=0.5, threshold=0.35)
  settings = dict(length=8, machine=pipeline, sampling=Sampling(temperature=1.0))
  keys = jax.random.split(jax.random.key(0), 2)
  both = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, key=keys, **settings)
  one = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS[1:], key=keys[1:], **settings)
  assert one.tokens[0] == both.tokens[1] and one.decided_at[0] == both.decided_at[1]


def test_a_sure_block_of_fast_dllm_v2_yields_1_and_31_tokens_in_4_and_1_passes():
  out = denoise_by_blocks(SHIFTED, SURE, [[1] * 32, [1] * 20], length=32, machine=SubBlocks(0.9))
  # The prompt of 32 is committed by the pass that predicts the first token. Each first token of the
  # other three sub-blocks is a mask: the whole block is computed.
  assert out.passes[0] == 1 + 4
  assert out.decided_at[0] == [1, *[2] * 7, *[3] * 8, *[4] * 8, *[5] * 8]
  assert out.tokens == [text(32, 32, 1), text(20, 32, 1)]
  # The prompt of 20 ends in the third sub-block; its second block is one like the first row's.
  assert out.decided_at[1][:13] == [*[1] * 4, *[2] * 8, 3]
  assert out.passes[1] == 2 + 1 + 4
  assert out.counters["whole_block_forwards"] == 4 + 2 + 4
  assert out.counters["commit_forwards"] == 1 + 1


def test_an_unsure_block_needs_31_passes_and_refreshes_while_a_first_token_is_masked():
  first_last = UNSURE.copy()
  first_last[np.arange(SIZE) % 8 == 7] = (
    0.4  # the entry before a sub-block predicts its first token
  )
  best_first = UNSURE.copy()
  best_first[np.arange(SIZE) % 8 == 7] = 0.6
  for p, refreshes in [(best_first, 1 + 3), (first_last, 1 + 3 * 8)]:
    out = denoise_by_blocks(SHIFTED, p, [[1] * 32], length=32, machine=SubBlocks())
    assert out.passes.tolist() == [1 + 31]
    assert out.counters["whole_block_forwards"] == refreshes
    assert out.tokens == [text(32, 32, 1)]


def test_a_threshold_per_row():
  out = denoise_by_blocks(SHIFTED, UNSURE, [[1] * 32] * 2, length=32, machine=SubBlocks([0.9, 0.4]))
  assert out.passes.tolist() == [32, 5]


SMALL = MaskedNetwork(MODEL, MASK, shifted=True, block_length=4)
CANVAS = 24


@jax.jit
def dense(canvas, end):
  """Returns logits, keys and values of a whole canvas."""
  output = MODEL.forward(PARAMS, SMALL.canvas(canvas, end))
  return SMALL.logits(output)[0], output.kv


@functools.partial(jax.jit, static_argnames="width")
def over_memory(canvas, memory, seen, begin, width):
  """Returns logits, keys and values of entries that see each other and the `seen` ones."""
  path = jnp.argsort(~seen, stable=True)[None]
  count = jnp.sum(seen)[None]
  place = jnp.arange(CANVAS)[None]
  cache = MODEL.allocate(1, CANVAS).commit(memory, place, path, count)
  position = begin + jnp.arange(width)[None]
  frontier = frontier_lib.bidirectional(jnp.take_along_axis(canvas, position, axis=1))
  output = MODEL.forward(PARAMS, frontier.replace(position=position), cache)
  return jax.nn.softmax(SMALL.logits(output)[0]), output.kv


def _put(place, old, new):
  return old.at[:, :, place].set(new)


def sub_blocks_in_numpy(prompt, length, sub, threshold):
  """Returns the text, its passes and the number of whole ones, as Fast-dLLM v2's loop has them."""
  block, x = 4, np.full(CANVAS, MASK)
  x[: len(prompt)] = prompt
  end = -(-(len(prompt) + length) // block) * block
  at, passes, wholes = np.zeros(CANVAS, int), 0, 0
  begin = len(prompt) // block * block - block * (len(prompt) % block == 0)
  fresh, stale = True, None
  while begin < end:
    # Finished blocks anew, from a pass over the text: their keys are to be exact.
    clean = dense(jnp.asarray(x)[None], jnp.array([begin]))[1]
    stale = clean if fresh else stale
    final = (jnp.arange(CANVAS) < begin)[:, None]
    memory = jax.tree.map(functools.partial(jnp.where, final), clean, stale)
    masked = x == MASK
    open_ = np.flatnonzero(masked[begin : begin + block])
    if not open_.size and begin + block >= end:
      break
    passes += 1
    start = begin + (open_[0] // sub * sub if open_.size else 0)
    whole = fresh or not open_.size or masked[start]
    first, width = (begin, block) if whole else (start, sub)
    seen = np.arange(CANVAS) < begin + block
    seen[first : first + width] = False
    p, kv = over_memory(jnp.asarray(x)[None], memory, seen, first, width)
    place = first + np.arange(width)
    stale = jax.tree.map(functools.partial(_put, place), memory, kv)
    p, fresh = np.array(p), False
    if not open_.size:
      x[begin + block], at[begin + block] = p[-1].argmax(), passes
      begin, fresh = begin + block, True
      continue
    wholes += whole
    here = start + np.arange(sub)
    shifted = p[np.maximum(here - 1 - first, 0)]
    confidence = np.where(masked[here], shifted.max(-1), -1)
    chosen = masked[here] & (confidence > threshold)
    chosen[confidence.argmax()] = True
    x[here[chosen]], at[here[chosen]] = shifted.argmax(-1)[chosen], passes
  span = slice(len(prompt), len(prompt) + length)
  return x[span].tolist(), at[span].tolist(), int(wholes)


@pytest.mark.parametrize("sub", [4, 2])
def test_sub_blocks_decide_as_the_published_loop(sub):
  prompts, threshold = [[1, 2, 3, 4], [4, 5, 6, 7, 8, 1]], 0.5
  out = denoise_by_blocks(
    SMALL, PARAMS, prompts, length=12, machine=SubBlocks(threshold, sub_block=sub), trace=True
  )
  wanted = [sub_blocks_in_numpy(prompt, 12, sub, threshold) for prompt in prompts]
  assert out.tokens == [tokens for tokens, _, _ in wanted]
  assert out.decided_at == [at for _, at, _ in wanted]
  assert out.counters["whole_block_forwards"] == sum(wholes for _, _, wholes in wanted)
  if sub < 4:
    assert out.counters["whole_block_forwards"] + 5 < out.passes.sum(), "the case must have parts"
  *_, last = trace_frames(out.trace, prompts, 12)
  assert last.tokens == out.tokens and last.decided_at == out.decided_at
  again = replay(SMALL, PARAMS, out.trace)
  np.testing.assert_allclose(again, out.trace.passes.log_prob, atol=1e-6)


def test_a_sub_block_row_is_the_same_alone():
  prompts = [[1, 2, 3, 4], [4, 5, 6, 7, 8, 1]]
  keys = jax.random.split(jax.random.key(4), 2)
  settings = dict(
    length=12, machine=SubBlocks(0.5, sub_block=2), sampling=Sampling(temperature=1.0)
  )
  both = denoise_by_blocks(SMALL, PARAMS, prompts, key=keys, **settings)
  alone = denoise_by_blocks(SMALL, PARAMS, prompts[1:], key=keys[1:], **settings)
  assert alone.tokens[0] == both.tokens[1] and alone.decided_at[0] == both.decided_at[1]


def test_a_pipeline_is_traced_and_replayed():
  pipeline = Pipeline(add=0.25, activate=0.5, threshold=0.35)
  settings = dict(length=8, machine=pipeline, sampling=Sampling(temperature=1.0), key=2)
  plain = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, **settings)
  out = denoise_by_blocks(BLOCKS, PARAMS, PROMPTS, trace=True, **settings)
  assert out.tokens == plain.tokens and out.decided_at == plain.decided_at
  again = replay(BLOCKS, PARAMS, out.trace)
  np.testing.assert_allclose(again, out.trace.passes.log_prob, atol=1e-6)
  for row, prompt in enumerate(PROMPTS):
    # The last block of a block-causal network is whole: a position more than the text has.
    events = sorted(out.trace.events(row), key=lambda event: event.position)[:8]
    assert [event.token for event in events] == out.tokens[row]
    assert [event.number for event in events] == out.decided_at[row]
    assert events[0].position == len(prompt)
  assert len(set(out.trace.passes.end[:, 0].tolist())) > 1, "blocks begin one after the other"


def run_small(machine, network=SMALL, length=8):
  return denoise_by_blocks(network, PARAMS, PROMPTS, length=length, machine=machine)


@pytest.mark.parametrize(
  "call,message",
  [
    (lambda: Pipeline(in_flight=0), "in_flight must be at least 1, got 0"),
    pytest.param(
      lambda: Pipeline(in_flight=1.5),
      "in_flight must be a whole number, got 1.5",
      marks=pytest.mark.ill_typed,
    ),
    (lambda: run_small(Pipeline(), MaskedNetwork(MODEL, MASK)), "needs a block-causal network"),
    (lambda: run_small(BlockBuffer(), MaskedNetwork(MODEL, MASK)), "needs a block-causal network"),
    (lambda: run_small(Pipeline(), length=6), "multiple of block_length"),
    (lambda: Pipeline(threshold=0.0), "threshold must be above 0.0, at most 1.0"),
    (lambda: run_small(SubBlocks(), BLOCKS), "needs a network with shifted"),
    (
      lambda: run_small(SubBlocks(sub_block=3)),
      "sub_block must divide the network's blocks of 4 positions, got 3",
    ),
    (lambda: SubBlocks(1.5), "threshold must be above 0.0, at most 1.0: got 1.5"),
  ],
)
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call()

"""Traces of filling: those of all denoising loops, replayed with the decisions that they have."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from mtjax import frontier as frontier_lib
from mtjax.anysubset import (
  Confidence,
  SelfDraft,
  Sequential,
  SlidingWindow,
  fill,
  make_canvas,
)
from mtjax.anysubset.canvas import query_entries
from mtjax.diffusion.denoising import replay
from mtjax.diffusion.traces.filled import trace_of
from mtjax.diffusion.traces.frames import trace_frames
from mtjax.models import Model
from mtjax.sampling.logits import Sampling
from tests.compiled import Compiled, forward
from tests.constraints.toys import dfa_of

F = Compiled(frontier_lib)
END, START, LENGTH = 2, [3, 1, 1], 6
ALTERNATING = dfa_of([{0: 1}, {1: 0}], {0, 1}, 3)  # 0, 1, 0, 1, ... of any length
PHASED, WINDOW = SelfDraft(3), SlidingWindow(4, 0.45)
# The second row is greedy; the third has a constraint.
WARM = Sampling(temperature=[0.9, 0.0, 0.9], top_k=[0, 2, 0])


def canvas_of(config):
  place, start = np.arange(max(START) + LENGTH), np.array(START)[:, None]
  valid = place < start + LENGTH
  token = np.random.default_rng(0).integers(0, 2, valid.shape)
  return make_canvas(config, token, valid & (place >= start), valid)


@pytest.fixture(scope="module")
def traces(tiny):
  """Returns what gives, for a method, what it has filled and its trace."""
  return functools.cache(functools.partial(traced_run, *tiny))


def traced_run(model, params, method):
  """Returns what a method has filled, and its trace."""
  filled = fill(
    model, params, canvas_of(model.config), method=method, sampling=WARM, key=5, eos=[END],
    constraint=[None, None, ALTERNATING], history=True,
  )  # fmt: skip
  return filled, trace_of(model, method, filled)


def read(model, params, token, position, rank, place, place_rank):
  """Returns the output at contents with ranks, and then at queries of `place`."""
  contents = F.content(*map(jnp.asarray, (token, position, rank)))
  place, place_rank = jnp.asarray(place), jnp.asarray(place_rank)
  queries = jax.jit(query_entries, static_argnums=0)(model.config, place, place_rank)
  return forward(model, params, F.concatenate(contents, queries))


def warm(config):
  """Returns (model, params) with weights so large that entries depend on each other."""
  model = Model(config)
  return model, jax.tree.map(lambda x: 4 * x if x.ndim == 2 else x, model.init(jax.random.key(0)))


@pytest.fixture(params=[PHASED, Confidence(per_pass=2), WINDOW], ids=str)
def traced(request, tiny, traces):
  """Returns (model, params), what was filled by a method, and its trace."""
  return tiny, *traces(request.param)


def test_replay_gives_the_samplers_log_probabilities(traced):
  (model, params), _, trace = traced
  log_prob = trace.passes.log_prob
  assert (log_prob < -1e-3).sum() > LENGTH and np.isfinite(log_prob).all()
  np.testing.assert_allclose(replay(model, params, trace), log_prob, atol=1e-6)
  # Negative controls: other parameters and other tokens have other probabilities.
  larger = jax.tree.map(lambda x: 1.1 * x, params)
  assert np.abs(replay(model, larger, trace) - log_prob).max() > 1e-3
  first = trace.passes.token.copy()
  first[0, 0] = 1 - np.minimum(first[0, 0], 1)
  other = trace.replace(passes=trace.passes.replace(token=first))
  assert np.abs(replay(model, params, other) - log_prob).max() > 1e-2


def test_other_parameters_keep_the_order_within_a_pass(tiny):
  """Two tokens of one pass must differ: the first has a probability, and the second one has 1."""
  model, params = tiny
  rows, method = 24, Confidence(per_pass=2)
  text = np.random.default_rng(1).integers(0, 2, (rows, 6))
  is_target = np.tile([False, True, True, False, False, False], (rows, 1))
  canvas = make_canvas(model.config, text, is_target)
  differ = dfa_of([{0: 1, 1: 2}, {1: 3}, {0: 3}, {}], {3}, 3)
  settings = dict(method=method, sampling=Sampling(temperature=1.0), key=3, constraint=differ)
  trace = trace_of(model, method, fill(model, params, canvas, history=True, **settings))
  passes = trace.passes
  assert passes.index.shape == (1, rows, 2)
  np.testing.assert_array_equal(passes.token.sum(axis=2), 1)
  other = model.init(jax.random.key(1))
  other = jax.tree.map(lambda x: x * 4 if x.ndim == 2 else x, other)
  own = trace_of(model, method, fill(model, other, canvas, history=True, **settings)).passes.index
  assert (own != passes.index).any() and (own == passes.index).any()
  # One query per row, which sees the context alone.
  place = passes.index[0, :, :1] + 1
  context = np.tile([[0, 1, 4, 5, 6]], (rows, 1))
  token = np.take_along_axis(np.asarray(canvas.token), context, axis=1)
  output = read(model, other, token, context, np.zeros_like(context), place, np.ones_like(place))
  log_p = log_softmax(np.asarray(output.logits)[:, -1, :2], axis=1)
  expected = np.take_along_axis(log_p, passes.token[0, :, :1], axis=1)
  found = replay(model, other, trace)[0]
  np.testing.assert_allclose(found, np.pad(expected, ((0, 0), (0, 1))), atol=1e-5)


def test_events_and_frames_lead_from_the_masks_to_the_text(traced):
  (model, _), filled, trace = traced
  sink = 1
  frames = list(trace_frames(trace, [[0] * n for n in START], LENGTH))
  assert len(frames) == 1 + filled.forwards.max() == 1 + trace.num_passes
  for row, start in enumerate(START):
    token, at = np.full(LENGTH, -1), np.zeros(LENGTH, int)
    for number, frame in enumerate(frames):
      for event in trace.events(row):
        if event.number == number:
          assert event.kind == "decided" and token[event.position - start] == -1
          token[event.position - start], at[event.position - start] = event.token, number
      assert frame.tokens[row] == [None if one < 0 else one for one in token.tolist()]
      assert frame.decided_at[row] == at.tolist()
    here = slice(sink + start, sink + start + LENGTH)
    assert at.tolist() == filled.decided_at[row, here].tolist()
    assert token[at > 0].tolist() == filled.token[row, here][at > 0].tolist()
    seen = trace.passes.canvas[0, row, start : start + LENGTH]
    assert (seen == trace.mask_id).all()


def test_log_probabilities_are_those_of_what_a_pass_saw(traced):
  """One pass over all entries, where each query sees the entries that its pass had read."""
  (model, params), filled, trace = traced
  row, canvas = 0, filled.problem.canvas
  events = trace.events(row)
  if isinstance(trace.program.method, SelfDraft):
    # A draft that was verified also saw the drafts before it.
    order = np.asarray(filled.problem.order)[row].tolist()
    events = sorted(events, key=lambda event: order.index(event.position + 1))
  else:
    # What one pass has decided is read from left to right.
    events = sorted(events, key=lambda event: (event.number, event.position))
  place = np.array([[event.position + 1 for event in events]])
  number = np.array([event.number for event in events])
  first = [int(np.argmax(number == n)) for n in number]
  seen = np.arange(len(events)) if isinstance(trace.program.method, SelfDraft) else np.array(first)
  context = np.flatnonzero(canvas.is_context[row])[None]
  known = np.asarray(canvas.token)[row][context]
  token = np.concatenate([known, np.array([[e.token for e in events]])], axis=1)
  position = np.concatenate([context, place], axis=1)
  rank = np.array([[*[0] * context.size, *range(1, len(events) + 1)]])
  output = read(model, params, token, position, rank, place, seen[None] + 1)
  log_p = log_softmax(np.asarray(output.logits)[0, rank.size :] / 0.9, axis=1)
  expected = [log_p[n, event.token] for n, event in enumerate(events)]
  np.testing.assert_allclose([event.log_prob for event in events], expected, atol=1e-5)


def test_the_gradient_of_a_method_with_two_passes_per_round(tiny, traces):
  model, params = tiny
  _, trace = traces(PHASED)
  keys = jax.random.split(jax.random.key(7), len(jax.tree.leaves(params)))
  keys = jax.tree.unflatten(jax.tree.structure(params), list(keys))
  along = jax.tree.map(lambda key, x: 0.1 * jax.random.normal(key, x.shape) * x, keys, params)

  @jax.jit
  def total_and_slope(size):
    def total(size):
      moved = jax.tree.map(lambda x, d: x + size * d, params, along)
      return jnp.sum(replay(model, moved, trace))

    return jax.value_and_grad(total)(size)

  _, gradient = total_and_slope(0.0)
  (high, _), (low, _) = total_and_slope(1e-3), total_and_slope(-1e-3)
  assert abs(gradient) > 0.1
  assert float(gradient) == pytest.approx(float(high - low) / 2e-3, rel=3e-2)


def test_a_single_stream_is_replayed(tiny):
  model, params = warm(dataclasses.replace(tiny[0].config, target_conditioning="added"))
  filled = fill(
    model, params, canvas_of(model.config), method=Sequential(), sampling=WARM, key=5, history=True
  )
  trace = trace_of(model, Sequential(), filled)
  np.testing.assert_allclose(replay(model, params, trace), trace.passes.log_prob, atol=1e-6)


def test_a_method_that_knows_no_script_has_no_log_probability(tiny, traces):
  """It samples anew under other tokens than its own: the trace is not its run any more."""

  @dataclasses.dataclass(frozen=True)
  class Deaf(SlidingWindow):
    def step(self, model, params, problem, state):
      return super().step(model, params, problem.replace(script=None), state)

  model, params = tiny
  _, trace = traces(WINDOW)
  trace = trace.replace(program=dataclasses.replace(trace.program, method=Deaf(4, 0.45)))
  np.testing.assert_allclose(replay(model, params, trace), trace.passes.log_prob, atol=1e-6)
  other = trace.passes.replace(token=1 - np.minimum(trace.passes.token, 1))
  assert np.isnan(replay(model, params, trace.replace(passes=other))).any()


def test_a_trace_needs_a_history(tiny):
  model, params = tiny
  filled = fill(model, params, canvas_of(model.config), method=Sequential())
  with pytest.raises(ValueError, match="fill with history=True"):
    trace_of(model, Sequential(), filled)

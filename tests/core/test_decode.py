"""Autoregressive decoding: the same text however it is batched, cut, streamed or bucketed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtjax import frontier as F
from mtjax.decode import generation as decode
from mtjax.decode.generation import generate, stream
from mtjax.decode.method import Autoregressive
from mtjax.models import Model, XLNetConfig
from mtjax.rounds import prefill
from mtjax.rounds import run as run_lib
from mtjax.rounds import state as rounds
from mtjax.rounds.size_buckets import SIZES, bucket
from mtjax.rounds.stop_strings import StopStrings
from mtjax.sampling.logits import Sampling

PROMPTS = [[1, 2, 3], [9, 8, 7, 6, 5, 4], [11]]


def _greedy(model, params, forward, prompt, steps):
  """Returns greedy tokens of the plain program, which runs the whole text again for each."""
  text = list(prompt)
  for _ in range(steps):
    padded = jnp.asarray([text + [0] * (32 - len(text))])
    text.append(int(jnp.argmax(forward(params, F.causal(padded)).logits[0, len(text) - 1])))
  return text[len(prompt) :]


def test_greedy_equals_running_the_whole_text_again(causal):
  model, params, forward = causal
  result = generate(model, params, PROMPTS, max_tokens=12)
  for prompt, tokens in zip(PROMPTS, result.tokens, strict=True):
    assert tokens == _greedy(model, params, forward, prompt, 12)
  assert result.finish == ["length"] * 3
  assert result.counters["target_forwards"] == 36 and result.counters["tokens"] == 36


def test_a_row_does_not_depend_on_who_else_is_in_the_batch(causal):
  model, params, _ = causal
  keys = jax.random.split(jax.random.key(5), 3)
  settings = dict(sampling=Sampling(temperature=1.0, top_p=0.95), max_tokens=10)
  together = generate(model, params, PROMPTS, key=keys, **settings).tokens
  for row, prompt in enumerate(PROMPTS):
    assert generate(model, params, [prompt], key=keys[row : row + 1], **settings).tokens == [
      together[row]
    ]
  other = generate(model, params, PROMPTS, key=jax.random.split(jax.random.key(6), 3), **settings)
  assert other.tokens != together


def test_greedy_and_sampled_rows_in_one_batch(causal):
  model, params, _ = causal
  greedy = generate(model, params, PROMPTS, max_tokens=8).tokens
  mixed = generate(
    model, params, PROMPTS, max_tokens=8, sampling=Sampling(temperature=(0.0, 2.0, 0.0))
  ).tokens
  assert mixed[0] == greedy[0] and mixed[2] == greedy[2] and mixed[1] != greedy[1]


def test_limits_and_eos_end_each_row_on_its_own(causal):
  model, params, _ = causal
  free = generate(model, params, PROMPTS, max_tokens=10).tokens
  limited = generate(model, params, PROMPTS, max_tokens=[1, 10, 4])
  assert limited.tokens == [free[0][:1], free[1], free[2][:4]]
  eos = free[1][3]
  ended = generate(model, params, PROMPTS, max_tokens=10, eos=(eos,))
  for row, tokens in enumerate(free):
    at = tokens.index(eos) + 1 if eos in tokens else 10
    assert ended.tokens[row] == tokens[:at]
    assert ended.finish[row] == ("eos" if eos in tokens else "length")


def test_stop_strings_end_a_row_inside_the_program(causal):
  model, params, _ = causal
  free = generate(model, params, PROMPTS, max_tokens=10).tokens
  pieces = [bytes([token]) for token in range(48)]
  stop = StopStrings.compile([bytes(free[1][2:4])], pieces)
  ended = generate(model, params, PROMPTS, max_tokens=10, stop=stop)
  text = bytes(free[1])
  assert ended.tokens[1] == free[1][: text.index(bytes(free[1][2:4])) + 2]
  assert ended.finish[1] == "stop"


@pytest.mark.parametrize("every", [1, 3, 100])
def test_stream_emits_what_generate_does(causal, every):
  model, params, _ = causal
  settings = dict(sampling=Sampling(temperature=1.0), max_tokens=[9, 5, 7], key=3)
  whole = generate(model, params, PROMPTS, **settings)
  done = []
  parts = list(stream(model, params, PROMPTS, every=every, on_finish=done.append, **settings))
  assert [sum((part[row] for part in parts), []) for row in range(3)] == whole.tokens
  assert done[0].finish == whole.finish
  assert max(len(row) for part in parts for row in part) <= every


def test_chunked_prefill_equals_one_prefill(causal, monkeypatch):
  model, params, _ = causal
  prompts = [list(np.random.default_rng(0).integers(0, 48, n)) for n in (5, 16, 13)]
  whole = generate(model, params, prompts, max_tokens=6)
  monkeypatch.setattr(prefill, "PREFILL_CHUNK", 6)
  # Another model, with the same network: no other test has compiled its programs.
  chunked = Model(dataclasses.replace(model.config, max_position=250))
  assert generate(chunked, params, prompts, max_tokens=6).tokens == whole.tokens


def test_no_compilation_inside_a_bucket(causal):
  model, params, _ = causal
  generate(model, params, [[1] * 20, [2] * 18], max_tokens=20)
  before = run_lib.whole._cache_size()
  generate(model, params, [[1] * 24, [2]], max_tokens=[24, 17])
  assert run_lib.whole._cache_size() == before
  generate(model, params, [[1] * 25, [2]], max_tokens=20)
  assert run_lib.whole._cache_size() == before + 1, "the count could not see a compilation"


def test_values_of_sampling_settings_cost_no_compilation(causal):
  model, params, _ = causal
  for temperature, seed in ((0.7, 1), (1.3, 2)):
    generate(
      model, params, PROMPTS, max_tokens=8, sampling=Sampling(temperature=temperature), key=seed
    )
    before = run_lib.whole._cache_size()
  generate(model, params, PROMPTS, max_tokens=8, sampling=Sampling(temperature=0.9), key=5)
  assert run_lib.whole._cache_size() == before


def test_a_model_of_any_order_is_refused(causal):
  """The logits of an any-subset model at an entry are no distribution of the next token."""
  model, params, _ = causal
  for other in (
    dataclasses.replace(model.config, predicts="any_subset"),
    XLNetConfig(vocab_size=48, dim=16, heads=2, head_dim=8, mlp_dim=32, depth=2),
  ):
    for run in (generate, stream):
      with pytest.raises(ValueError, match="the model is an any-subset model"):
        run(Model(other), params, [[1]])


def test_finished_rows_are_frozen(causal):
  model, params, _ = causal
  job = decode.prepare(model, PROMPTS, [1, 5, 1], None, 0, (), None)
  program, inputs = (
    decode.DecodeProgram(model, Autoregressive(), job.capacity, job.max_new),
    (params, None, *job.arrays),
  )
  state, unfinished = run_lib.begin(program, inputs)
  assert unfinished
  after, unfinished = run_lib.advance(program, inputs, state, 3)
  assert unfinished
  np.testing.assert_array_equal(after.count, [1, 4, 1])
  np.testing.assert_array_equal(after.cache.length, [3, 9, 1])
  np.testing.assert_array_equal(after.rounds, [0, 3, 0])
  assert after.finish[1] == rounds.Finish.RUNNING


def test_penalties_reach_the_loop(causal):
  model, params, _ = causal
  sampling = Sampling(presence_penalty=1e6)
  tokens = generate(model, params, PROMPTS, max_tokens=20, sampling=sampling).tokens
  assert all(len(set(row)) == 20 for row in tokens), "no token may come twice"


@pytest.mark.parametrize("length", [1, 16, 17, 33, 100, 5000, 40000])
def test_buckets_are_large_enough_and_not_much_larger(length):
  size = bucket(length)
  assert length <= size <= max(16, 1.5 * length)
  assert bucket(size) == size


def test_bucket_limits():
  assert bucket(40, maximum=50) == 48 and bucket(49, maximum=50) == 50
  with pytest.raises(ValueError, match="at most 50, got"):
    bucket(51, maximum=50)
  assert SIZES[0] == 16


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (dict(prompts=[]), "no prompt"),
    (dict(prompts=[[1], []]), "prompt 1 is empty"),
    (dict(prompts=[[48]]), "outside 0..47"),
    (dict(prompts=[[1]], max_tokens=0), "max_tokens must be at least 1"),
    (dict(prompts=[[1]], max_tokens=[1, 2]), "2 values of max_tokens for 1 prompts"),
    (dict(prompts=[[1] * 250], max_tokens=7), "257, and the model has 256 positions"),
    (dict(prompts=[[1]], sampling=Sampling(temperature=-1.0)), "temperature"),
    (dict(prompts=[[1]], eos=(99,)), "eos names tokens"),
    (dict(prompts=[[1]], key=jax.random.split(jax.random.key(0), 2)), "for a batch of 1"),
  ],
)
def test_refusals_come_before_compilation(causal, arguments, message):
  model, params, _ = causal
  before = run_lib.whole._cache_size()
  with pytest.raises(ValueError, match=message):
    generate(model, params, **arguments)
  with pytest.raises(ValueError, match=message):
    stream(model, params, **arguments)
  assert run_lib.whole._cache_size() == before


@pytest.mark.parametrize("batch", [1, 3])
def test_the_cache_is_committed_in_place(causal, batch):
  """A copy of the cache in every round would make long contexts slow."""
  model, params, _ = causal
  job = decode.prepare(model, PROMPTS[:batch], 24, None, 0, (), None)
  inputs = (params, None, *job.arrays)
  lowered = run_lib.whole.lower(
    decode.DecodeProgram(model, Autoregressive(), job.capacity, job.max_new), inputs
  )
  program = lowered.compile().as_text()
  loops = program[: program.index("\nENTRY")]
  cache = f"f32[{batch},2,{job.capacity},8]"
  assert cache in loops, "the test no longer knows the cache's shape"
  copies = [line for line in loops.split("\n") if f"= {cache}" in line and " copy(" in line]
  assert not copies, f"{len(copies)} copies of the cache a round, for example {copies[0]}"


def test_compilation_is_not_counted_as_decoding(causal):
  model, params, _ = causal
  first, again = (generate(model, params, [[3, 1]], max_tokens=70).counters for _ in range(2))
  assert first["compile_seconds"] > 0 and again["compile_seconds"] == 0
  # A compilation takes a second or more here, the decoding of a tiny model milliseconds.
  assert first["seconds"] < 0.5 * (first["seconds"] + first["compile_seconds"])

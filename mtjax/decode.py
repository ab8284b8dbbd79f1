"""Generation: prefill, then rounds of propose, forward, accept, commit in one XLA program."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from mtjax import frontier as frontier_lib
from mtjax import rounds
from mtjax.buckets import bucket
from mtjax.models import Model, Params
from mtjax.rounds import DecodeState, Finish, Request
from mtjax.sampling import History, Sampling, draw, process
from mtjax.stopping import StopStrings

PREFILL_CHUNK = 512


@dataclasses.dataclass(frozen=True)
class Generation:
  """What came out, and what it cost. Tokens include a final end-of-sequence token, if any."""

  tokens: list[list[int]]
  finish: list[str]  # "eos", "stop" or "length", one a row
  counters: dict[str, int | float]


def autoregressive(model: Model, params: Params, request: Request, state: DecodeState):
  """One token a round: the last token is the frontier, its successor is drawn and emitted.

  Exactness.LOSSLESS by definition; this is the law that other decoders are compared with.
  """
  frontier = frontier_lib.causal(state.last[:, None], start=state.cache.length)
  output = model.forward(params, frontier, state.cache)
  active = state.active
  cache = state.cache.commit(
    output.kv, frontier.position, jnp.zeros_like(frontier.token), active.astype(jnp.int32)
  )
  law = process(output.logits, request.rules, state.history)[:, 0]
  token = draw(law, request.key, state.count) if _samples(request) else jnp.argmax(law, axis=-1)
  state = state.replace(cache=cache, rounds=state.rounds + active)
  return rounds.emit(state, request, token.astype(jnp.int32)[:, None], jnp.ones_like(token))[0]


def prefill(
  model: Model, params: Params, request: Request, prompt, length, *, capacity: int, room: int
) -> DecodeState:
  """Commits the prompts, `PREFILL_CHUNK` entries at a time, and emits the first token of each row.

  prompt [B, P] is padded on the right, length [B] >= 1. Logits are computed for one entry a row.
  """
  batch, size = prompt.shape
  chunk = min(size, PREFILL_CHUNK)
  padded = jnp.pad(prompt, ((0, 0), (0, -size % chunk)))
  cache = model.allocate(batch, capacity)
  path = jnp.broadcast_to(jnp.arange(chunk), (batch, chunk))

  def part(index, carry):
    cache, last_logits = carry
    begin = index * chunk
    token = jax.lax.dynamic_slice_in_dim(padded, begin, chunk, axis=1)
    here = jnp.clip(length - begin, 0, chunk)
    frontier = frontier_lib.causal(token, start=begin, length=here)
    final = length - 1 - begin
    rows = jnp.clip(final, 0, chunk - 1)[:, None]
    # The first chunk sees nothing committed: no attention over an empty cache.
    output = model.forward(params, frontier, None if size == chunk else cache, rows)
    cache = cache.commit(output.kv, frontier.position, path, here)
    ends = ((final >= 0) & (final < chunk))[:, None, None]
    return cache, jnp.where(ends, output.logits, last_logits)

  start = (cache, jnp.zeros((batch, 1, model.config.vocab_size), jnp.float32))
  cache, logits = jax.lax.fori_loop(0, padded.shape[1] // chunk, part, start)
  history = None
  if request.rules.needs_history:
    history = History.of_prompt(prompt, length, model.config.vocab_size)
  state = DecodeState(
    cache=cache,
    tokens=jnp.zeros((batch, room), jnp.int32),
    count=jnp.zeros((batch,), jnp.int32),
    finish=jnp.zeros((batch,), jnp.int32),
    stop_state=jnp.zeros((batch,), jnp.int32),
    rounds=jnp.zeros((batch,), jnp.int32),
    history=history,
  )
  law = process(logits, request.rules, history)[:, 0]
  token = draw(law, request.key, state.count) if _samples(request) else jnp.argmax(law, axis=-1)
  return rounds.emit(state, request, token.astype(jnp.int32)[:, None], jnp.ones_like(token))[0]


@functools.partial(jax.jit, static_argnames=("model", "capacity", "room"))
def _start(model, params, request, prompt, length, *, capacity, room):
  return prefill(model, params, request, prompt, length, capacity=capacity, room=room)


@functools.partial(jax.jit, static_argnames=("model",), donate_argnames=("state",))
def _continue(model, params, request, state, most):
  return rounds.run(functools.partial(autoregressive, model, params, request), state, most)


@functools.partial(jax.jit, static_argnames=("model", "capacity", "room"))
def _generate(model, params, request, prompt, length, *, capacity, room):
  state = prefill(model, params, request, prompt, length, capacity=capacity, room=room)
  return rounds.run(functools.partial(autoregressive, model, params, request), state, None)


def generate(
  model: Model,
  params: Params,
  prompts: Sequence[Sequence[int]],
  *,
  max_tokens: int | Sequence[int] = 128,
  sampling: Sampling | None = None,
  key: PRNGKeyArray | int = 0,
  eos: Sequence[int] = (),
  stop: StopStrings | None = None,
) -> Generation:
  """Continues each prompt by up to `max_tokens` tokens: prefill and all rounds in one program.

  `key`: a seed or key, folded with the row index, or a [B] array of keys, one a row. `eos`: token
  ids that end a row. `stop`: compiled stop strings; the token in which one ends is the last.
  Lengths are rounded up to the sizes of `mtjax.buckets`: prompts and limits may change within
  one without compiling again.

  Raises ValueError, before compilation, for no prompt, an empty prompt, ids outside the
  vocabulary, max_tokens < 1, prompt + max_tokens beyond the model's positions, and settings out
  of their range.
  """
  job = _prepare(model, prompts, max_tokens, sampling, key, eos, stop)
  begin = time.perf_counter()
  state = _generate(model, params, *job.arrays, capacity=job.capacity, room=job.room)
  state = jax.block_until_ready(state)
  return _collect(job, state, time.perf_counter() - begin)


def stream(
  model: Model,
  params: Params,
  prompts: Sequence[Sequence[int]],
  *,
  every: int = 8,
  on_finish: Callable[[Generation], None] | None = None,
  **settings,
) -> Iterator[list[list[int]]]:
  """The rounds of `generate`, stepped from Python: yields each row's new tokens.

  `every` rounds run between two yields (the first token comes alone, after prefill). Takes the
  settings of `generate`, emits the same tokens, raises the same errors, at once rather than on
  the first `next`. `on_finish` receives the whole Generation at the end.
  """
  if every < 1:
    raise ValueError(f"every must be at least 1, got {every}")
  defaults = dict(max_tokens=128, sampling=None, key=0, eos=(), stop=None)
  unknown = sorted(set(settings) - set(defaults))
  if unknown:
    raise TypeError(f"stream() got unexpected settings {unknown}; it takes {sorted(defaults)}")
  job = _prepare(model, prompts, **{**defaults, **settings})
  return _stream(model, params, job, every, on_finish)


def _stream(model, params, job, every, on_finish):
  begin = time.perf_counter()
  state = _start(model, params, *job.arrays, capacity=job.capacity, room=job.room)
  shown = np.zeros(job.batch, int)
  while True:
    tokens, count, finish = (np.asarray(x) for x in (state.tokens, state.count, state.finish))
    yield [tokens[row, shown[row] : count[row]].tolist() for row in range(job.batch)]
    shown = count.copy()
    if np.all(finish != Finish.RUNNING):
      break
    state = _continue(model, params, job.arrays[0], state, every)
  if on_finish is not None:
    on_finish(_collect(job, state, time.perf_counter() - begin))


@dataclasses.dataclass(frozen=True)
class _Job:
  """Checked arguments of a generation, as arrays of static size."""

  arrays: tuple  # Request, prompt [B, P], length [B]
  lengths: list[int]
  capacity: int
  room: int

  @property
  def batch(self) -> int:
    return len(self.lengths)


def _prepare(model, prompts, max_tokens, sampling, key, eos, stop) -> _Job:
  vocab, most = model.config.vocab_size, model.config.max_position
  prompts = [list(map(int, prompt)) for prompt in prompts]
  if not prompts:
    raise ValueError("there is no prompt")
  limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
  if len(limits) != len(prompts):
    raise ValueError(f"{len(limits)} values of max_tokens for {len(prompts)} prompts")
  for row, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
    if not prompt:
      raise ValueError(f"prompt {row} is empty: give it at least one token (the model's BOS, say)")
    if min(prompt) < 0 or max(prompt) >= vocab:
      raise ValueError(f"prompt {row} has token ids outside 0..{vocab - 1}")
    if limit < 1:
      raise ValueError(f"max_tokens must be at least 1, got {limit} for prompt {row}")
    if len(prompt) + limit > most:
      raise ValueError(
        f"prompt {row} has {len(prompt)} tokens; with max_tokens {limit} that makes "
        f"{len(prompt) + limit}, and the model has {most} positions"
      )
  outside = [token for token in eos if not 0 <= token < vocab]
  if outside:
    raise ValueError(f"eos names tokens {outside} outside a vocabulary of {vocab}")
  lengths = [len(prompt) for prompt in prompts]
  size = bucket(max(lengths), most=most)
  room = bucket(max(limits), most=most)
  padded = np.zeros((len(prompts), size), np.int32)
  for row, prompt in enumerate(prompts):
    padded[row, : len(prompt)] = prompt
  request = Request(
    rules=(sampling or Sampling()).rules(len(prompts), vocab),
    limit=jnp.asarray(limits, jnp.int32),
    eos=jnp.asarray(tuple(eos) or (-1,), jnp.int32),
    key=_row_keys(key, len(prompts)),
    stop=stop,
  )
  arrays = (request, jnp.asarray(padded), jnp.asarray(lengths, jnp.int32))
  return _Job(arrays, lengths, capacity=min(size + room, most), room=room)


def _row_keys(key, batch):
  if isinstance(key, int):
    key = jax.random.key(key)
  if key.ndim == 0:
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch))
  if key.shape != (batch,):
    raise ValueError(f"keys of shape {key.shape} for a batch of {batch}")
  return key


def _samples(request: Request) -> bool:
  return request.rules.temperature is not None


def _collect(job: _Job, state: DecodeState, seconds: float) -> Generation:
  tokens, count, finish = (np.asarray(x) for x in (state.tokens, state.count, state.finish))
  per_row = np.asarray(state.rounds)
  emitted = int(count.sum())
  # The prefill is a target forward too: it emits each row's first token.
  forwards = int(per_row.sum()) + job.batch
  return Generation(
    tokens=[tokens[row, : count[row]].tolist() for row in range(job.batch)],
    finish=[Finish(int(value)).name.lower() for value in finish],
    counters=dict(
      prompt_tokens=sum(job.lengths),
      tokens=emitted,
      target_forwards=forwards,
      draft_forwards=0,
      entries=sum(job.lengths) + int(per_row.sum()),
      tokens_per_forward=emitted / forwards,
      seconds=seconds,
      tokens_per_second=emitted / seconds,
    ),
  )

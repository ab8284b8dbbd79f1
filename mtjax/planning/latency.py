"""The latency profile of a drafter, measured on this device."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax.cache import KVCache
from mtjax.decode.generation import stream
from mtjax.decode.method import Autoregressive, Method
from mtjax.decode.speculative import Speculative
from mtjax.draft import Drafter
from mtjax.models import Model, Params
from mtjax.planning.identity import identity
from mtjax.planning.texts import BUNDLED_TEXTS
from mtjax.rounds.prefill import commit_prompt
from mtjax.rounds.size_buckets import bucket
from mtjax.text import TextModel
from mtjax.tuning.profiles import LatencyCurve, LatencyProfile, fit_curve
from mtjax.verify import Verifier

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEPS = (1, 3, 7)
_SAMPLE = 0.02  # least seconds of a timed loop, so that its start weighs little
_EVERY = 4  # rounds between two looks at the clock
_REPEATS = 7  # of everything, in turn: other work on the machine slows all alike
_LEAST = 3

Progress = Callable[[str], None]


def _silent(_: str) -> None:
  pass


@dataclasses.dataclass(frozen=True)
class _Timed:
  """Something to time: `run` returns the seconds of one unit of work, of several samples."""

  kind: str  # "verify", "plain" or a number of steps
  amount: int
  run: Callable[[], list[float]]


def measure_latency(
  text: TextModel,
  drafter: Callable[[int], Drafter],
  drafter_params: PyTree = None,
  *,
  name: str,
  batches: Sequence[int] = (1,),
  contexts: Sequence[int] = (256,),
  sizes: Sequence[int] = SIZES,
  steps: Sequence[int] = STEPS,
  verifier: str | Verifier = "sample_match",
  seconds: float = 120.0,
  progress: Progress = _silent,
  of: Mapping[str, str] | None = None,
) -> LatencyProfile:
  """Returns how long the parts of a round take here, for each batch size and length of context.

  verify(n): forward passes of the target over n entries per row after a full context, in one
  compiled loop. plain: rounds of plain decoding. draft(d): what rounds with chains of d drafts take
  beyond verify(d + 1) and what plain decoding has beyond verify(1), which is the fixed cost. So the
  sum of the parts is the time of whole rounds, drafting, verifying and committing included. Times
  are medians; all parts are measured in turn, so that other work on the machine slows all alike.

  drafter: from a number of steps to the drafter of chains of so many drafts, such as
  `lambda steps: ModelChain(model, steps)`. name: of the drafter, as the profile has it. contexts:
  tokens per row that are committed; a curve holds up to so many. sizes: of the target's pass; 1 and
  the sizes that the steps need are measured in any case. seconds: for all of it. Compiling counts:
  when two thirds are gone, sizes and steps that are not compiled yet are left out, the largest
  first to go, but never those that a curve needs (1 entry, the fewest steps). of: replaces
  `identity`, to which "verifier" is added. Raises ValueError for sizes and steps below 1, and for a
  context that the model lacks.
  """
  _check(text.model, batches, contexts, sizes, steps)
  begin, curves = time.perf_counter(), []
  cells = [(batch, context) for context in sorted(set(contexts)) for batch in sorted(set(batches))]
  for number, (batch, context) in enumerate(cells):
    until = begin + seconds * (number + 1) / len(cells)
    bench = _Bench(text, drafter, drafter_params, verifier, batch, context)
    curves.append(_curve(bench, sizes, steps, until, progress))
  of = {**(of or identity(text, name, drafter_params)), "verifier": str(verifier)}
  return LatencyProfile(of, tuple(curves))


def _check(model: Model, batches, contexts, sizes, steps) -> None:
  for what, values in dict(batches=batches, contexts=contexts, sizes=sizes, steps=steps).items():
    if not values or min(values) < 1:
      raise ValueError(f"{what} must be one or more numbers of at least 1, got {list(values)}")
  longest, positions = max(contexts), model.config.max_position
  if longest + max(*sizes, max(steps) + 1) > positions:
    raise ValueError(
      f"contexts of {longest} tokens with {max(*sizes, max(steps) + 1)} entries after them do not "
      f"fit the model's {positions} positions: give shorter contexts, or smaller sizes"
    )


@dataclasses.dataclass(frozen=True)
class _Bench:
  """What is timed at one batch size and one length of context."""

  text: TextModel
  drafter: Callable[[int], Drafter]
  drafter_params: PyTree
  verifier: str | Verifier
  batch: int
  context: int

  @property
  def tokens(self) -> list[int]:
    """The text of the context: calibration prompts, repeated, as random tokens draft badly."""
    vocab = self.text.model.config.vocab_size
    found = [
      token
      for prompts in BUNDLED_TEXTS.values()
      for prompt in prompts
      for token in self.text.tokenizer.encode(prompt)
      if token < vocab
    ] or [0]
    return (found * (self.context // len(found) + 1))[: self.context]

  def verify(self, sizes: Sequence[int]) -> list[_Timed]:
    """Returns the forward passes of the target, by entries per row."""
    model, params = self.text.model, self.text.params
    capacity = min(bucket(self.context + max(sizes)), model.config.max_position)
    prompt = jnp.array([self.tokens] * self.batch, jnp.int32)
    length = jnp.full((self.batch,), self.context, jnp.int32)
    cache, _ = _committed(model, params, prompt, length, capacity)
    return [_Timed("verify", size, self._passes(cache, size)) for size in sizes]

  def _passes(self, cache: KVCache, size: int) -> Callable[[], list[float]]:
    model, params = self.text.model, self.text.params
    token = jnp.broadcast_to(jnp.array(self.tokens[:1]), (self.batch, size)).astype(jnp.int32)
    count = 1

    def run():
      nonlocal count
      while True:
        begin = time.perf_counter()
        jax.block_until_ready(_forwards(model, params, cache, token, count))
        took = time.perf_counter() - begin
        if took >= _SAMPLE:
          return [took / count]
        count = max(2 * count, int(1.5 * _SAMPLE / took * count))

    return run

  def rounds(self, kind: str, amount: int, method: Method, params: PyTree) -> _Timed:
    """Returns rounds of a method, at the end of a context of that length."""
    # As many tokens as three looks at the clock need, if all drafts are accepted.
    positions = self.text.model.config.max_position
    new = min(3 * _EVERY * (amount + 1) + 1, max(positions // 2, 1))
    prompt = self.tokens[: min(max(self.context - new, self.context // 2, 1), positions - new)]

    def run():
      times, last = [], None
      states = stream(
        self.text.model, self.text.params, [prompt] * self.batch, every=_EVERY,
        method=method, method_params=params, max_tokens=new, mesh=self.text.mesh,
      )  # fmt: skip
      for _ in states:
        now = time.perf_counter()
        if last is not None:
          times.append((now - last) / _EVERY)
        last = time.perf_counter()
      # The last rounds may be fewer.
      return times[:-1] or times

    return _Timed(kind, amount, run)


def _curve(
  bench: _Bench, sizes: Sequence[int], steps: Sequence[int], until: float, progress: Progress
) -> LatencyCurve:
  steps = sorted(set(steps))
  sizes = sorted({1, *sizes, *(count + 1 for count in steps)})
  begin = time.perf_counter()
  verify = bench.verify(sizes)
  needed = [one for one in verify if one.amount in (1, steps[0] + 1)]
  plain = bench.rounds("plain", 0, Autoregressive(), None)
  whole = [
    bench.rounds("rounds", d, Speculative(bench.drafter(d), bench.verifier), bench.drafter_params)
    for d in steps
  ]
  where = f"batch {bench.batch}, context {bench.context}"
  parts = [*needed, plain, whole[0]]
  # From here on the largest are left out first: chains and their passes before large passes.
  others: list[list[_Timed]] = [
    [next(one for one in verify if one.amount == d.amount + 1), d] for d in whole[1:]
  ]
  taken = {id(one) for group in [needed, *others] for one in group}
  others += [[one] for one in verify if id(one) not in taken]
  others.sort(key=lambda group: group[0].amount)
  for group in [[one] for one in parts]:
    _warm(group, where, progress)
  for group in others:
    if time.perf_counter() - begin > 0.66 * (until - begin):
      left = ", ".join(f"{one.kind} {one.amount}" for one in group)
      progress(f"{where}: no time for {left}")
      continue
    _warm(group, where, progress)
    parts += group
  seen: dict[int, list[float]] = {id(one): [] for one in parts}
  for repeat in range(_REPEATS):
    if repeat >= _LEAST and time.perf_counter() > until:
      break
    progress(f"{where}: measuring, {repeat + 1} of {_REPEATS}")
    for one in parts:
      seen[id(one)] += one.run()
  return _fitted(bench, parts, {key: statistics.median(times) for key, times in seen.items()})


def _warm(group: Sequence[_Timed], where: str, progress: Progress) -> None:
  for one in group:
    progress(f"{where}: compiling {one.kind} {one.amount}")
    one.run()


def _fitted(bench: _Bench, parts: Sequence[_Timed], median: Mapping[int, float]) -> LatencyCurve:
  def times(kind):
    return {one.amount: median[id(one)] for one in parts if one.kind == kind}

  verify, whole = times("verify"), times("rounds")
  plain = times("plain")[0]
  fixed = max(plain - verify[1], 0.0)
  draft = {d: max(took - verify[d + 1] - fixed, 1e-9) for d, took in whole.items()}
  return fit_curve(
    bench.batch,
    bench.context,
    verify=list(verify.items()),
    draft=list(draft.items()),
    rounds=[(d + 1, d, took) for d, took in whole.items()],
    plain=plain,
  )


_committed = jax.jit(commit_prompt, static_argnames=("model", "capacity"))


@functools.partial(jax.jit, static_argnames="model")
def _forwards(
  model: Model, params: Params, cache: KVCache, token: Int[Array, "B T"], count: int
) -> Int[Array, "B T"]:
  """Returns the last pass's tokens after `count` passes, each of which reads those of the last."""

  def one(_, token):
    frontier = frontier_lib.causal(token, start=cache.length)
    output = model.forward(params, frontier, cache)
    return jnp.argmax(output.logits, axis=-1).astype(jnp.int32)

  return jax.lax.fori_loop(0, count, one, token)

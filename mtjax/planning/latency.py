"""The latency profile of a drafter, measured on this device."""

import dataclasses
import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from mtjax import frontier as frontier_lib
from mtjax import hosts
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
from mtjax.rounds.state import put_batch
from mtjax.sharding import on_mesh, padded_rows
from mtjax.text import TextModel
from mtjax.tuning.profiles import LatencyCurve, LatencyProfile, fit_curve
from mtjax.verify import Verifier

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEPS = (1, 3, 7)
_SAMPLE = 0.02  # least seconds of a timed loop, so that its start weighs little
_COLD = 8  # passes of a timed loop, below which a first one with cold caches would weigh much
_PIECES = 3  # of rounds between two looks at the clock, of a text
_REPEATS = 7  # of everything, in turn: other work on the machine slows all alike
_LEAST = 3
_VERIFY, _PLAIN, _ROUNDS, _KEPT_OUT = "verify", "plain", "rounds", "rounds (out of the fit)"

Progress = Callable[[str], None]


def _silent(_: str) -> None:
  pass


@dataclasses.dataclass(frozen=True)
class _Timed:
  """Something to time: `run` returns the seconds of one unit of work, of several samples."""

  kind: str  # _VERIFY, _PLAIN, _ROUNDS or _KEPT_OUT
  amount: int  # entries of _VERIFY, steps of the others
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
  kept_out: Sequence[int] | None = None,
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
  On the mesh of `text`, rows and caches are laid out as in `generate`.

  The rounds that the parts come from are predicted exactly, by construction, which says nothing. So
  rounds with other numbers of steps, `kept_out`, are measured too. They take no part in the fit,
  and the curve's `round_errors` are theirs.

  drafter: from a number of steps to the drafter of chains of so many drafts, such as
  `lambda steps: ModelChain(model, steps)`. name: of the drafter, as the profile has it. contexts:
  tokens per row that are committed; a curve holds up to so many. sizes: of the target's pass; one
  entry, one step and the sizes that the steps need are measured in any case. kept_out: None: the
  number in the middle of each gap between two steps. seconds: for all of it. Compiling counts: when
  two thirds are gone, or when measuring what is compiled will take the rest, the sizes and steps
  that are not compiled yet are left out. The largest go first, but never those that a curve needs
  (one entry, one step). What the device has no memory for is left out too. of: replaces `identity`,
  to which "verifier" is added. Raises ValueError for sizes and steps below 1, for rounds to keep
  out that are not between two steps, for a context that the model lacks, and for a mesh of several
  processes.
  """
  _check(text.model, batches, contexts, sizes, steps)
  if hosts.is_shared(text.mesh):
    raise ValueError(
      "a latency profile is of one process, and the mesh has devices of several: plan there with "
      'mtjax.method("auto", of="lookup,draft"), which measures whole rounds by one clock'
    )
  steps = sorted({1, *steps})
  others = _between(steps) if kept_out is None else sorted(set(kept_out))
  if wrong := [d for d in others if d in steps or not steps[0] < d < steps[-1]]:
    raise ValueError(
      f"rounds that are kept out of the fit must lie between the steps {steps}, got {wrong}"
    )
  begin, curves = time.perf_counter(), []
  cells = [(batch, context) for context in sorted(set(contexts)) for batch in sorted(set(batches))]
  for number, (batch, context) in enumerate(cells):
    until = begin + seconds * (number + 1) / len(cells)
    bench = _Bench(text, drafter, drafter_params, verifier, batch, context).paced(steps[-1])
    curves.append(_curve(bench, sizes, steps, others, until, progress))
  of = {**(of or identity(text, name, drafter_params)), "verifier": str(verifier)}
  return LatencyProfile(of, tuple(curves))


def is_out_of_memory(error: BaseException) -> bool:
  """Returns whether an error says that a device has no memory left for a program or its arrays."""
  text = str(error)
  return isinstance(error, jax.errors.JaxRuntimeError) and (
    "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
  )


def _between(steps: Sequence[int]) -> list[int]:
  return [(a + b) // 2 for a, b in itertools.pairwise(steps) if b - a > 1]


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
  every: int = 4  # rounds between two looks at the clock

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

  @property
  def rows(self) -> int:
    """The number of rows that are computed: those of the batch, and what the data axis adds."""
    return padded_rows(self.batch, self.text.mesh)

  def verify(self, sizes: Sequence[int]) -> list[_Timed]:
    """Returns the forward passes of the target, by entries per row."""
    cache = self.committed(max(sizes))
    return [_Timed(_VERIFY, size, self._passes(cache, size)) for size in sizes]

  def committed(self, free: int) -> KVCache:
    """Returns the cache of a whole context that has `free` or more slots left."""
    model, mesh = self.text.model, self.text.mesh
    capacity = min(bucket(self.context + free), model.config.max_position)
    prompt = jnp.array([self.tokens] * self.rows, jnp.int32)
    length = jnp.full((self.rows,), self.context, jnp.int32)
    with on_mesh(mesh):
      cache, _ = _committed(model, self.text.params, *self._put((prompt, length)), capacity)
    return self._put(cache)

  def entries(self, size: int) -> Int[Array, "B T"]:
    """Returns the tokens of a pass."""
    token = jnp.array(self.tokens[:1], jnp.int32)
    return self._put(jnp.broadcast_to(token, (self.rows, size)))

  def _put(self, tree: PyTree) -> PyTree:
    mesh = self.text.mesh
    return tree if mesh is None else put_batch(tree, mesh, self.rows)

  def _passes(self, cache: KVCache, size: int) -> Callable[[], list[float]]:
    model, params, mesh = self.text.model, self.text.params, self.text.mesh
    token = self.entries(size)
    count = 1

    def seconds(count: int) -> float:
      begin = time.perf_counter()
      jax.block_until_ready(_forwards(model, params, cache, token, count))
      return time.perf_counter() - begin

    def run():
      nonlocal count
      with on_mesh(mesh):
        if count < _COLD:
          seconds(1)  # brings the weights back into the processor's cache, as the round before does
        while True:
          took = seconds(count)
          if took >= _SAMPLE:
            return [took / count]
          count = max(2 * count, int(1.5 * _SAMPLE / took * count))

    return run

  def rounds(self, kind: str, amount: int, method: Method, params: PyTree) -> _Timed:
    """Returns rounds of a method in the second half of a context of that length, at its end."""
    # As many tokens as the pieces need, if all drafts are accepted.
    each, positions = self.every * (amount + 1), self.text.model.config.max_position
    pieces = min(max(self.context // 2 // each, 1), _PIECES)
    new = min(pieces * each + 1, max(positions // 2, 1))
    prompt = self.tokens[: min(max(self.context - new, self.context // 2, 1), positions - new)]

    def run():
      times, last = [], None
      states = stream(
        self.text.model, self.text.params, [prompt] * self.batch, every=self.every,
        method=method, method_params=params, max_tokens=new, mesh=self.text.mesh,
      )  # fmt: skip
      for _ in states:
        now = time.perf_counter()
        if last is not None:
          times.append((now - last) / self.every)
          if len(times) == pieces:
            states.close()
            return times
        last = time.perf_counter()
      # The last rounds may be fewer.
      return times[:-1] or times

    return _Timed(kind, amount, run)

  def paced(self, longest: int) -> "_Bench":
    """Returns the bench with more rounds between two looks at the clock, if they are short.

    To start a piece of rounds takes as long as several rounds of a small model. All kinds of rounds
    have the same number of them, so what is left of it is in the fixed cost alone. longest: chain
    that half of the context must hold with one piece.
    """
    most = self.context // 2 // (longest + 1)
    if most <= self.every:
      return self
    plain = self.rounds(_PLAIN, 0, Autoregressive(), None)
    plain.run()  # compiles
    wanted = math.ceil(_SAMPLE / statistics.median(plain.run()))
    return dataclasses.replace(self, every=min(max(wanted, self.every), most))


def _curve(
  bench: _Bench,
  sizes: Sequence[int],
  steps: Sequence[int],
  kept_out: Sequence[int],
  until: float,
  progress: Progress,
) -> LatencyCurve:
  sizes = sorted({1, *sizes, *(count + 1 for count in steps)})
  begin = time.perf_counter()
  verify = {one.amount: one for one in bench.verify(sizes)}

  def rounds(kind: str, d: int) -> _Timed:
    return bench.rounds(
      kind, d, Speculative(bench.drafter(d), bench.verifier), bench.drafter_params
    )

  first = steps[0]
  parts = [verify[1], verify[first + 1], bench.rounds(_PLAIN, 0, Autoregressive(), None)]
  parts.append(rounds(_ROUNDS, first))
  # From here on the largest are left out first: chains and their passes before large passes.
  # Rounds that are kept out need the times of the larger chain beside them.
  others: dict[tuple[int, int], list[_Timed]] = {
    (d + 1, 0): [verify[d + 1], rounds(_ROUNDS, d)] for d in steps[1:]
  }
  others |= {
    (min(larger for larger in steps if larger > d) + 1, d): [rounds(_KEPT_OUT, d)] for d in kept_out
  }
  others |= {(n, 0): [verify[n]] for n in sizes if n - 1 not in steps and n != 1}
  where = f"batch {bench.batch}, context {bench.context}"
  seen: dict[int, list[float]] = {}
  repeat_seconds = _warm(parts, seen, where, progress)
  for _, group in sorted(others.items(), key=lambda item: item[0]):
    left = ", ".join(f"{one.kind} {one.amount}" for one in group)
    gone, whole = time.perf_counter() - begin, until - begin
    if gone > 0.66 * whole or gone + (_LEAST - 1) * repeat_seconds > whole:
      progress(f"{where}: no time for {left}")
      continue
    try:
      repeat_seconds += _warm(group, seen, where, progress)
    except jax.errors.JaxRuntimeError as error:
      if not is_out_of_memory(error):
        raise
      progress(f"{where}: no memory for {left}")
      continue
    parts += group
  for repeat in range(1, _REPEATS):
    if repeat >= _LEAST and time.perf_counter() > until:
      break
    progress(f"{where}: measuring, {repeat + 1} of {_REPEATS}")
    for one in parts:
      seen[id(one)] += one.run()
  return _fitted(bench, parts, {key: statistics.median(times) for key, times in seen.items()})


def _warm(
  group: Sequence[_Timed], seen: dict[int, list[float]], where: str, progress: Progress
) -> float:
  """Compiles a group, measures it once, and returns the seconds that this measurement took."""
  seconds = 0.0
  for one in group:
    progress(f"{where}: compiling {one.kind} {one.amount}")
    one.run()
    begin = time.perf_counter()
    seen[id(one)] = one.run()
    seconds += time.perf_counter() - begin
  return seconds


def _fitted(bench: _Bench, parts: Sequence[_Timed], median: Mapping[int, float]) -> LatencyCurve:
  def times(kind):
    return {one.amount: median[id(one)] for one in parts if one.kind == kind}

  verify, whole = times(_VERIFY), times(_ROUNDS)
  plain = times(_PLAIN)[0]
  fixed = max(plain - verify[1], 0.0)
  draft = {d: max(took - verify[d + 1] - fixed, 1e-9) for d, took in whole.items()}
  return fit_curve(
    bench.batch,
    bench.context,
    verify=list(verify.items()),
    draft=list(draft.items()),
    rounds=[(d + 1, d, took) for d, took in whole.items()],
    checks=[(d + 1, d, took) for d, took in times(_KEPT_OUT).items() if d < max(whole)],
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

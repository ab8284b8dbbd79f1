"""What cache policies of the denoising loop cost, and how far their logits are from exact ones."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from mtjax.bench.diffusion.counted import CountedModel
from mtjax.diffusion.denoising import LLADA, MaskedNetwork, stream
from mtjax.diffusion.denoising.caches import (
  BlockStale,
  CachePolicy,
  Delayed,
  Elastic,
  ExactBlocks,
  Pass,
  SimilarityRefreshed,
  Uncached,
  Vicinity,
)
from mtjax.diffusion.denoising.guidance import Unguided
from mtjax.diffusion.denoising.prepare import prepare
from mtjax.diffusion.denoising.state import Job, window_of
from mtjax.diffusion.plan import BlockPlan
from mtjax.models import Params

NONE = "none"  # the policy that all others are compared with


class Trajectory(NamedTuple):
  """Canvases that a loop without a cache went through."""

  job: Job
  passes: Pass  # stacked: every array has a first axis of passes


class Divergence(NamedTuple):
  """How far logits of masked positions are from those without a cache, over a trajectory."""

  kl: float  # mean over positions and passes of KL(exact, cached), in nats
  difference: float  # largest absolute difference of a logit
  changed: float  # share of positions whose most probable token is another


@dataclasses.dataclass(frozen=True)
class CacheCost:
  """The figures of one cache policy."""

  cache: str
  exactness: str
  divergence: Divergence
  passes: float  # of the network, per pass of the loop, at batch 1
  entries: float  # that the network computes, per row and pass of the loop, at batch 1
  seconds: dict[int, float]  # batch -> median seconds per pass; the reading of prompts is in them
  ratio: dict[int, float]  # batch -> median over rounds of the time over that without a cache

  @property
  def stops_paying(self) -> int | None:
    """The smallest measured batch at which it takes as long as no cache; None: it always pays."""
    if self.cache == NONE:
      return None
    return min((batch for batch, ratio in self.ratio.items() if ratio >= 1), default=None)


def policies(network: MaskedNetwork) -> dict[str, CachePolicy]:
  """Returns the policies that can serve a network, by name; "none" is first."""
  if network.block_length:
    return {NONE: Uncached(), "exact_blocks": ExactBlocks()}
  every = {
    NONE: Uncached(),
    "prefix": BlockStale(),
    "dual": BlockStale(suffix=True),
    "delayed": Delayed(),
    "similarity": SimilarityRefreshed(),
    "vicinity": Vicinity(),
    "elastic": Elastic(),
  }
  if network.shifted:
    del every["dual"]
  return every


def measure(
  network: MaskedNetwork,
  params: Params,
  caches: Mapping[str, CachePolicy],
  plan: BlockPlan,
  *,
  prompt_length: int,
  batches: Sequence[int],
  rounds: int = 5,
  progress: Callable[[str], None] = lambda what: None,
) -> list[CacheCost]:
  """Returns the figures of each policy on the trajectories that LLaDA's loop takes without a cache.

  Prompts are random tokens. Divergence and entries are those of batch 1. A time is that of a whole
  trajectory in one program, over its passes; rounds are interleaved: each policy once, then again.
  Raises ValueError unless the first policy is "none", and as the policies' own checks do.
  """
  if next(iter(caches), None) != NONE:
    raise ValueError(f"the first policy must be {NONE!r}, which the others are compared with")
  for cache in caches.values():
    cache.check(network)
  one = trajectory(network, params, plan, prompt_length=prompt_length, batch=1)
  steps, seconds, ratio = plan.steps, {}, {}
  for batch in batches:
    way = trajectory(network, params, plan, prompt_length=prompt_length, batch=batch)
    runs = {}
    for name, cache in caches.items():
      progress(f"batch {batch}: compiling {name}")
      runs[name] = _program(network, cache)
      _timed(runs[name], params, way)
    taken = {name: [] for name in caches}
    for number in range(rounds):
      progress(f"batch {batch}: round {number + 1} of {rounds}")
      for name, run in runs.items():
        taken[name].append(_timed(run, params, way) / steps)
    for name in caches:
      seconds[name, batch] = float(np.median(taken[name]))
      ratio[name, batch] = float(np.median(np.array(taken[name]) / np.array(taken[NONE])))
  costs = []
  for name, cache in caches.items():
    progress(f"comparing {name}")
    passes, entries = counted(network, cache, params, one)
    costs.append(
      CacheCost(
        cache=name,
        exactness=cache.exactness.value,
        divergence=divergence(network, cache, params, one),
        passes=passes,
        entries=entries,
        seconds={batch: seconds[name, batch] for batch in batches},
        ratio={batch: ratio[name, batch] for batch in batches},
      )
    )
  return costs


def trajectory(
  network: MaskedNetwork,
  params: Params,
  plan: BlockPlan,
  *,
  prompt_length: int,
  batch: int,
  cache: CachePolicy = Uncached(),
  seed: int = 0,
) -> Trajectory:
  """Returns the canvases of LLaDA's loop at temperature 0 with an exact cache, for random prompts.

  Raises ValueError if a block-causal network's blocks do not begin where prompts end.
  """
  block = plan.block_length
  if network.block_length and prompt_length % block:
    raise ValueError(
      f"prompts must be whole blocks of {block} positions, got a prompt_length of {prompt_length}"
    )
  random = np.random.default_rng(seed)
  words = [token for token in range(network.model.config.vocab_size) if token != network.mask_id]
  prompts = random.choice(words, (batch, prompt_length)).tolist()
  states = stream(network, params, prompts, plan=plan, cache=cache)
  frames = np.stack([token for token, _ in states])
  _, (_, job) = prepare(
    network,
    params,
    prompts,
    plans=[plan] * batch,
    policy=LLADA,
    cache=cache,
    guidance=Unguided(),
    sampling=None,
    filtered_confidence=False,
    key=seed,
    eos=(),
  )

  def at(token: Int[Array, "B S"], number: Int[Array, ""]) -> Pass:
    blocks = jnp.full(batch, number // plan.steps_per_block)
    fresh = jnp.full(batch, number % plan.steps_per_block == 0)
    return Pass(token, window_of(job, blocks, block), fresh, jnp.ones(batch, bool), blocks)

  numbers = jnp.arange(len(frames) - 1)
  return Trajectory(job, jax.vmap(at)(jnp.asarray(frames[:-1]), numbers))


def logits_along(
  network: MaskedNetwork, cache: CachePolicy, params: Params, way: Trajectory
) -> Float[Array, "N B W V"]:
  """Returns the logits of each pass of a trajectory's windows."""

  def step(state: PyTree, now: Pass):
    logits, state = cache.logits(network, params, way.job, state, now)
    return state, logits

  return jax.lax.scan(step, cache.start(network, params, way.job), way.passes)[1]


def divergence(
  network: MaskedNetwork, cache: CachePolicy, params: Params, way: Trajectory
) -> Divergence:
  """Returns how far a policy's logits are from exact ones on the same canvases."""

  @jax.jit
  def compare(params: Params, way: Trajectory):
    def step(state: PyTree, now: Pass):
      exact, _ = Uncached().logits(network, params, way.job, (), now)
      logits, state = cache.logits(network, params, way.job, state, now)
      masked = (now.window.read(now.token) == network.mask_id) & now.window.inside
      return state, (_compared(exact, logits), masked)

    return jax.lax.scan(step, cache.start(network, params, way.job), way.passes)[1]

  (kl, difference, changed), masked = compare(params, way)
  masked = np.asarray(masked)
  return Divergence(
    kl=float(np.asarray(kl)[masked].mean()),
    difference=float(np.asarray(difference)[masked].max()),
    changed=float(np.asarray(changed)[masked].mean()),
  )


def counted(
  network: MaskedNetwork, cache: CachePolicy, params: Params, way: Trajectory
) -> tuple[float, float]:
  """Returns the passes of the network and their entries per row, over the passes of the loop.

  A pass that reads the prompts counts. Value vectors and attention weights that a policy computes
  beside its passes do not.
  """
  model = CountedModel(network.model.config)
  run = _program(dataclasses.replace(network, model=model), cache)
  jax.block_until_ready(run(params, way))
  jax.effects_barrier()
  total = len(way.passes.block)
  return model.tally.passes / total, model.tally.entries / total


def _compared(exact: Float[Array, "B W V"], logits: Float[Array, "B W V"]):
  """Returns KL, largest difference of a logit, and whether the most probable token is another."""
  p, q = (jax.nn.log_softmax(x) for x in (exact, logits))
  known = jnp.isfinite(exact)
  kl = jnp.sum(jnp.where(known, jnp.exp(p) * (p - q), 0.0), axis=-1)
  difference = jnp.max(jnp.where(known, jnp.abs(exact - logits), 0.0), axis=-1)
  return kl, difference, jnp.argmax(exact, axis=-1) != jnp.argmax(logits, axis=-1)


def _program(network: MaskedNetwork, cache: CachePolicy) -> Callable[[Params, Trajectory], Array]:
  """Returns a compiled program of all passes; its result depends on all logits."""

  @jax.jit
  def run(params: Params, way: Trajectory):
    def step(state: PyTree, now: Pass):
      logits, state = cache.logits(network, params, way.job, state, now)
      return state, jnp.max(logits, axis=-1)

    return jax.lax.scan(step, cache.start(network, params, way.job), way.passes)[1]

  return run


def _timed(run: Callable[[Params, Trajectory], Array], params: Params, way: Trajectory) -> float:
  began = time.perf_counter()
  jax.block_until_ready(run(params, way))
  return time.perf_counter() - began

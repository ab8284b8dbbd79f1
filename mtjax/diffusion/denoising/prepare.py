"""Checks what a denoising loop is asked to do, and makes its job."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtjax.anysubset.canvas import num_sinks
from mtjax.arguments import TokenIds, integer
from mtjax.constraints.batch import Constraint
from mtjax.diffusion.denoising.caches import CachePolicy, ShadowCachePolicy, VectorCachePolicy
from mtjax.diffusion.denoising.constrained import constraint_of
from mtjax.diffusion.denoising.guidance import Guidance
from mtjax.diffusion.denoising.network import MaskedNetwork
from mtjax.diffusion.denoising.program import Denoising
from mtjax.diffusion.denoising.state import Job
from mtjax.diffusion.extents import Targets, extents_of
from mtjax.diffusion.plan import BlockPlan
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.diffusion.view import score_by_model, score_filtered
from mtjax.models import Params
from mtjax.models.access import EmbeddingAccess
from mtjax.rounds.size_buckets import bucket
from mtjax.sampling.logits import Rules, Sampling, Seeds, row_keys


def prepare(
  network: MaskedNetwork,
  params: Params,
  prompts: Sequence[Sequence[int]],
  *,
  plans: Sequence[BlockPlan],
  policy: DecidingPolicy,
  cache: CachePolicy,
  guidance: Guidance,
  sampling: Sampling | None,
  filtered_confidence: bool,
  key: Seeds,
  eos: Sequence[int],
  constraint: Constraint = None,
  is_target: Targets | None = None,
) -> tuple[Denoising, tuple[Params, Job]]:
  """Returns the program and its inputs, for one plan per prompt. Raises ValueError as `denoise`."""
  cache.check(network)
  config, batch = network.model.config, len(prompts)
  if is_target is not None:
    _check_blanks(network, policy)
  lengths = check_prompts(prompts, config.vocab_size)
  (block_length,) = {plan.block_length for plan in plans}
  if network.block_length and block_length != network.block_length:
    raise ValueError(
      f"the network's blocks have {network.block_length} positions: plan.block_length must be so "
      f"many, got {block_length}"
    )
  extents = extents_of(
    prompts, [plan.length for plan in plans], network.block_length, is_target, network.mask_id
  )
  first, end = extents.first, extents.end
  limit = config.max_position
  if config.predicts == "any_subset":
    limit -= num_sinks(config)
  if end.max() > limit:
    raise ValueError(
      f"row {int(np.argmax(end))} has a canvas of {end.max()} entries, {lengths[np.argmax(end)]} "
      f"of them its prompt, and the model has {limit} positions"
    )
  _check_shadow(policy, cache, guidance)
  policy.order.check_vocabulary(config.vocab_size)
  policy.revise.check_vocabulary(config.vocab_size)
  if guidance.gives_vectors:
    EmbeddingAccess.of(config)
    if not isinstance(cache, VectorCachePolicy):
      raise ValueError(
        f"{type(guidance).__name__} gives soft inputs, which {type(cache).__name__} does not "
        "compute: use Uncached, or ExactBlocks for a block-causal model"
      )
  if cache.needs_final and policy.revise.revises:
    raise ValueError(
      f"{type(policy.revise).__name__} changes decided tokens, whose keys {type(cache).__name__} "
      "has committed: use KeepDecided, or another cache"
    )
  size = bucket(int(end.max()), maximum=config.max_position)
  job = Job(
    prompt=jnp.asarray(padded_rows(prompts, size, np.int32)),
    start=jnp.asarray(extents.start, jnp.int32),
    first=jnp.asarray(first, jnp.int32),
    end=jnp.asarray(end, jnp.int32),
    steps=jnp.asarray([plan.steps_per_block for plan in plans], jnp.int32),
    eos=jnp.asarray(tuple(eos) or (-1,), jnp.int32),
    rules=sampling_rules(sampling, batch, config.vocab_size),
    key=row_keys(key, batch),
    policy=policy.for_rows(batch),
    guidance=guidance.for_rows(batch),
    constraint=constraint_of(
      constraint,
      lengths,
      [plan.length for plan in plans],
      config.vocab_size,
      eos,
      sampling,
      never=(network.mask_id,),
    ),
    is_target=None if is_target is None else jnp.asarray(padded_rows(is_target, size, bool)),
    generated=bucket(max(int((end - first).max()), min(block_length, size)), maximum=size),
  )
  score = score_filtered if filtered_confidence else score_by_model
  return Denoising(network, cache, block_length, score), (params, job)


def padded_rows(rows: Sequence[Any], size: int, dtype: Any) -> np.ndarray:
  """Returns rows as an array of `size` columns: shorter ones end with zeros, longer are cut."""
  padded = np.zeros((len(rows), size), dtype)
  for row, values in enumerate(rows):
    padded[row, : len(values)] = values[:size]
  return padded


def plan_rows(plan: BlockPlan | Sequence[BlockPlan], batch: int) -> list[BlockPlan]:
  """Returns one plan per row. Raises ValueError for plans that do not fit together."""
  if isinstance(plan, BlockPlan):
    return [plan] * batch
  plans = list(plan)
  if len(plans) != batch:
    raise ValueError(
      f"plan has {len(plans)} plans for a batch of {batch} rows: give one, or {batch}"
    )
  blocks = sorted({one.block_length for one in plans})
  if len(blocks) > 1:
    raise ValueError(
      f"the rows of a batch must have one block_length, because it is a size of the program: got "
      f"{blocks} (length and steps may differ per row)"
    )
  return plans


def check_stateless(
  network: MaskedNetwork, params: Params, job: Job, cache: CachePolicy, guidance: Guidance
) -> None:
  """Raises ValueError for a cache, or guidance, that keeps anything from pass to pass."""
  if guidance.gives_vectors:
    raise ValueError(
      f"lookahead computes drafted canvases, of which {type(guidance).__name__} has no inputs: use "
      "Unguided"
    )
  state = jax.eval_shape(lambda: guidance.start(cache, network, params, job))
  if jax.tree.leaves(state):
    raise ValueError(
      f"lookahead computes drafted canvases, of which {type(cache).__name__} has no keys: use "
      "Uncached, which keeps nothing from pass to pass"
    )


def sampling_rules(sampling: Sampling | None, batch: int, vocab: int) -> Rules:
  """Returns the sampling settings as arrays. Raises ValueError for penalties, and as they do."""
  rules = (sampling or Sampling()).rules(batch, vocab)
  if rules.needs_history:
    raise ValueError("denoising takes no penalty: it depends on the order of tokens")
  return rules


def as_ids(prompts: Sequence[TokenIds]) -> list[list[int]]:
  """Returns prompts as lists of numbers. Raises ValueError for anything but whole numbers."""
  return [[integer(token, "a token id") for token in prompt] for prompt in prompts]


def check_prompts(prompts: Sequence[Sequence[int]], vocab: int) -> np.ndarray:
  """Returns the lengths of prompts. Raises ValueError for none, empty ones and unknown tokens."""
  if not prompts:
    raise ValueError("there is no prompt: give at least one")
  lengths = np.array([len(prompt) for prompt in prompts])
  if not lengths.all():
    raise ValueError(f"prompt {int(np.argmin(lengths))} is empty: give it at least one token")
  for row, prompt in enumerate(prompts):
    if min(prompt) < 0 or max(prompt) >= vocab:
      raise ValueError(f"prompt {row} has token ids outside 0..{vocab - 1}")
  return lengths


def _check_shadow(policy: DecidingPolicy, cache: CachePolicy, guidance: Guidance) -> None:
  """Raises ValueError for a rule that needs shadow entries where there can be none."""
  if not policy.revise.needs_shadow:
    return
  name = type(policy.revise).__name__
  if not isinstance(cache, ShadowCachePolicy):
    raise ValueError(
      f"{name} needs shadow entries, which {type(cache).__name__} does not compute: use Uncached, "
      "ExactBlocks for a block-causal model, or BlockStale for one whose entries all see each other"
    )
  if guidance.forwards > 1 or guidance.gives_vectors:
    raise ValueError(
      f"{name} needs shadow entries, which {type(guidance).__name__} does not guide: use Unguided"
    )


def _check_blanks(network: MaskedNetwork, policy: DecidingPolicy) -> None:
  """Raises ValueError where given tokens cannot stand among and after the masks."""
  if network.model.config.predicts == "any_subset":
    raise ValueError(
      "the any-order cache keeps keys in the order of decisions, in which tokens that are given "
      "after the first target have no place: leave is_target out, or fill blanks with the method "
      "'set' (CanvasFiller)"
    )
  if policy.revise.moves:
    raise ValueError(
      f"{type(policy.revise).__name__} moves what follows in a block, which would move given "
      "tokens too: leave is_target out, or take a rule that moves nothing, such as EditTokens"
    )

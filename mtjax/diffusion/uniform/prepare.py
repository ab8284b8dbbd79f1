"""Checks what a loop over uniform canvases is asked to do, and makes its job."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mtjax.arguments import TokenIds, integer
from mtjax.constraints.batch import Constraint
from mtjax.diffusion.denoising.constrained import constraint_of
from mtjax.diffusion.denoising.prepare import (
  as_ids,
  check_prompts,
  padded_rows,
  sampling_rules,
)
from mtjax.diffusion.uniform.network import UniformNetwork
from mtjax.diffusion.uniform.program import UniformDenoising
from mtjax.diffusion.uniform.rule import UniformRule
from mtjax.diffusion.uniform.state import UniformJob
from mtjax.models import Params
from mtjax.rounds.size_buckets import bucket
from mtjax.sampling.logits import Sampling, Seeds, row_keys
from mtjax.sampling.per_row import per_row


def prepare_uniform(
  network: UniformNetwork,
  params: Params,
  prompts: Sequence[TokenIds],
  *,
  length: int | Sequence[int],
  steps: int | Sequence[int],
  rule: UniformRule,
  sampling: Sampling | None,
  key: Seeds,
  eos: Sequence[int],
  constraint: Constraint = None,
) -> tuple[UniformDenoising, tuple[Params, UniformJob], list[int]]:
  """Returns the program, its inputs, and each row's length. Raises as `denoise_uniform`."""
  prompts, config = as_ids(prompts), network.model.config
  starts, batch = check_prompts(prompts, config.vocab_size), len(prompts)
  lengths, passes = (_sizes(x, batch, n) for x, n in ((length, "length"), (steps, "steps")))
  filters = sampling_rules(sampling, batch, config.vocab_size)
  if filters.temperature is not None:
    raise ValueError(
      "the temperature of uniform canvases is a setting of their rule (t_max and t_min, or "
      f"temperature): leave that of sampling at 0, got {np.asarray(filters.temperature).max():g}"
    )
  if network.mask_id is None and float(rule.mask_share()) > 0:
    raise ValueError(
      f"{type(rule).__name__} has noise with masks, and the network has no mask: give the name "
      "'mask' to an extra embedding (extra_names), or use noise of uniform tokens alone"
    )
  size = network.canvas_length
  end = starts + -(-np.asarray(lengths) // size) * size
  if end.max() > config.max_position:
    row = int(np.argmax(end))
    raise ValueError(
      f"row {row} has a text of {end[row]} positions, {starts[row]} of them its prompt and the "
      f"rest canvases of {size}, and the model has {config.max_position}"
    )
  places = bucket(int(end.max()), maximum=config.max_position)
  job = UniformJob(
    prompt=jnp.asarray(padded_rows(prompts, places, np.int32)),
    start=jnp.asarray(starts, jnp.int32),
    end=jnp.asarray(end, jnp.int32),
    steps=jnp.asarray(passes, jnp.int32),
    eos=jnp.asarray(tuple(eos) or (-1,), jnp.int32),
    filters=filters,
    key=row_keys(key, batch),
    rule=rule.for_rows(batch),
    constraint=constraint_of(constraint, starts, lengths, config.vocab_size, eos, sampling),
  )
  return UniformDenoising(network), (params, job), lengths


def _sizes(value: int | Sequence[int], batch: int, name: str) -> list[int]:
  values = [integer(one, name) for one in per_row(value, batch, name)]
  if min(values) < 1:
    raise ValueError(f"{name} must be at least 1, got {min(values)}")
  return values

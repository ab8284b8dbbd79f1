"""Run by test_canvases.py in a process with eight CPU devices; prints {name: differences}.

A difference is the number of tokens, of the passes that decided them, and of numbers of passes that
are not those of one device.
"""

import dataclasses
import functools
import itertools
import json
import operator
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax

jax.config.update("jax_num_cpu_devices", 8)

import numpy as np  # noqa: E402

from mtjax.anysubset import fill, make_canvas  # noqa: E402
from mtjax.diffusion import BlockPlan, DecidingPolicy  # noqa: E402
from mtjax.diffusion.denoising import MaskedNetwork, denoise, denoise_by_blocks  # noqa: E402
from mtjax.diffusion.denoising.adaptive import AdaptiveParallel, denoise_adaptively  # noqa: E402
from mtjax.diffusion.denoising.caches import canvas_keys  # noqa: E402
from mtjax.diffusion.denoising.prepare import prepare  # noqa: E402
from mtjax.diffusion.uniform import CausalEncoder, WholeText, denoise_uniform  # noqa: E402
from mtjax.models import (  # noqa: E402
  CanvasLayer,
  DiffusionGemmaConfig,
  Model,
  TransformerConfig,
  uniform_layers,
)
from mtjax.registry.denoising.rules import ROLES, get_rule  # noqa: E402
from mtjax.registry.methods import filling, get_fill_method  # noqa: E402
from mtjax.sampling.logits import Sampling  # noqa: E402

# Of three rows data:2 computes four: the last one is repeated.
MESHES = ("data:2,model:2", "data:2,model:4", "data:2,model:2,sequence:2")
V = 16
CONFIG = TransformerConfig(
  vocab_size=V,
  dim=16,
  heads=4,
  kv_heads=2,
  head_dim=8,
  mlp_dim=24,
  layers=uniform_layers(2),
  max_position=64,
  predicts="masked",
  extra_embeddings=1,
  extra_names=("mask",),
)
ANY_SUBSET = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 1], [9]]
WARM = Sampling(temperature=[0.0, 1.0, 0.7])


def params_of(model: Model, scale: float = 3.0):
  """Returns weights that are large enough for tokens to depend on other entries."""
  rng = np.random.default_rng(0)

  def weights(path, x):
    if "norm" in jax.tree_util.keystr(path) or x.shape == (1,):
      return np.ones(x.shape, np.float32)
    width = x.shape[-2] if x.ndim > 1 else 1
    return (rng.normal(size=x.shape) * scale / (3 * width**0.5)).astype(np.float32)

  return jax.tree_util.tree_map_with_path(weights, model.shapes())


MODEL = Model(CONFIG)
WHOLE = MaskedNetwork.of(MODEL)
BLOCKS = dataclasses.replace(WHOLE, block_length=4)
PARAMS = params_of(MODEL)
HYBRID = Model(dataclasses.replace(CONFIG, noise="hybrid"))
ANY = Model(dataclasses.replace(CONFIG, **ANY_SUBSET))
ANY_PARAMS = params_of(ANY)
ORDERED = MaskedNetwork(ANY, ANY.config.special_id("query"))
GEMMA = Model(
  DiffusionGemmaConfig(
    vocab_size=V, dim=16, heads=4, mlp_dim=24, experts=4, top_experts=2, expert_dim=8,
    layers=(CanvasLayer(2, 8, window=5), CanvasLayer(4, 4, values="keys")), canvas_length=4,
    max_position=48,
  )
)  # fmt: skip
# A run takes a mesh or None, and returns what has tokens, decided_at, and numbers of passes.
Run = Callable[..., Any]
SPELLED = {
  "levenshtein": "levenshtein:delete_id=14:insert_id=15",
  "sub_blocks": "sub_blocks:sub_block=2",
}


def rules() -> Iterator[dict[str, Any]]:
  """Yields settings of `denoise` until every rule of every role was in some of them.

  A rule that does not go with the others waits for its turn.
  """
  roles = ("cache", "guidance", "order", "transfer", "revise")
  left = {role: dict.fromkeys(ROLES[role]) for role in roles}
  while any(left.values()):
    # New rules first, then those that were used already.
    ways = (dict.fromkeys([*left[role], *ROLES[role]]) for role in roles)
    new = (
      one for one in itertools.product(*ways) if any(map(operator.contains, left.values(), one))
    )
    chosen = next(filter(fit, new), None)
    assert chosen is not None, f"no run can have any of {left}"
    for role, name in zip(roles, chosen, strict=True):
      left[role].pop(name, None)
    yield dict(zip(roles, chosen, strict=True))


@functools.cache
def policy_of(order: str, transfer: str, revise: str) -> DecidingPolicy | None:
  """Returns the policy of these rules; None: they do not go together."""
  made = (
    get_rule(role, SPELLED.get(name, name))
    for role, name in zip(ROLES, (order, transfer, revise), strict=False)
  )
  try:
    return DecidingPolicy(*made)
  except ValueError:
    return None


def arguments_of(chosen: Sequence[str]) -> tuple[MaskedNetwork, Any, dict[str, Any]]:
  """Returns a network that the cache can be used with, its parameters, and the other arguments."""
  cache, guidance, *deciding = chosen
  network = BLOCKS if cache == "exact" else ORDERED if cache == "any_order" else WHOLE
  params = ANY_PARAMS if network is ORDERED else PARAMS
  settings = dict(
    plan=BlockPlan(8, 4, 4),
    cache=get_rule("cache", cache),
    guidance=get_rule("guidance", guidance),
    policy=policy_of(*deciding),
    sampling=WARM,
    key=3,
  )
  return network, params, settings


def fit(chosen: Sequence[str]) -> bool:
  """Returns whether `denoise` takes these rules together."""
  if policy_of(*chosen[2:]) is None:
    return False
  network, params, settings = arguments_of(chosen)
  plan = settings.pop("plan")
  try:
    prepare(
      network,
      params,
      PROMPTS,
      plans=[plan] * len(PROMPTS),
      filtered_confidence=False,
      eos=(),
      **settings,
    )
  except ValueError:
    return False
  return True


def loops() -> Iterator[tuple[str, Run]]:
  """Yields runs of the loop, whose names list its rules."""
  for chosen in rules():
    network, params, settings = arguments_of(tuple(chosen.values()))
    yield (
      "loop " + " ".join(chosen.values()),
      functools.partial(denoise, network, params, PROMPTS, **settings),
    )


def machines() -> Iterator[tuple[str, Run]]:
  """Yields a run of every machine of blocks."""
  for name in ROLES["machine"]:
    network = dataclasses.replace(BLOCKS, shifted=name == "sub_blocks")
    yield f"machine {name}", functools.partial(
      denoise_by_blocks, network, PARAMS, PROMPTS, length=8, sampling=WARM, key=3,
      machine=get_rule("machine", SPELLED.get(name, name)),
    )  # fmt: skip


def others() -> Iterator[tuple[str, Run]]:
  """Yields a run with two models, and one of every rule of uniform canvases."""
  causal = Model(dataclasses.replace(CONFIG, predicts="next_token"))
  yield "adaptive", functools.partial(
    denoise_adaptively, WHOLE, PARAMS, PROMPTS, causal=causal, causal_params=params_of(causal, 2.0),
    length=8, rule=AdaptiveParallel(parallel=4), sampling=WARM, key=3,
  )  # fmt: skip
  for name in ROLES["uniform"]:
    rule = get_rule("uniform", name)
    # A model of canvases has no mask.
    masked = float(rule.mask_share()) > 0
    network = WholeText.of(HYBRID, 4) if masked else CausalEncoder(GEMMA)
    params = params_of(HYBRID if masked else GEMMA)
    yield (
      f"uniform {name}",
      functools.partial(
        denoise_uniform, network, params, PROMPTS, length=8, steps=4, rule=rule, key=3
      ),
    )


def fills() -> Iterator[tuple[str, Run]]:
  """Yields a run of every fill method."""
  rng = np.random.default_rng(1)
  token, is_target = rng.integers(0, V, (3, 20)), rng.random((3, 20)) < 0.5
  for name in filling():
    model = Model(dataclasses.replace(ANY.config, any_subset_rows="eso")) if name == "eso" else ANY
    canvas = make_canvas(model.config, token, is_target)
    yield f"fill {name}", functools.partial(
      fill, model, ANY_PARAMS, canvas, method=get_fill_method(name).of_window(3), sampling=WARM,
      key=3,
    )  # fmt: skip


def everything(done) -> list[int]:
  """Returns all numbers of a result."""
  if hasattr(done, "tokens"):
    rows = [*done.tokens, *done.decided_at, done.passes]
  else:
    rows = [*done.token, *done.decided_at, *done.drafted, done.forwards]
  rows.append([n for n in done.counters.values() if isinstance(n, int)])
  return [int(one) for row in rows for one in row]


def apart(found: list[int], expected: list[int]) -> int:
  """Returns how many numbers differ; -1: there are not as many."""
  return sum(map(operator.ne, found, expected)) if len(found) == len(expected) else -1


def mistake(run: Run) -> int:
  """Returns the differences where devices write the keys of their rows in the wrong order."""
  expected, right = everything(run()), canvas_keys._scattered

  def wrong(part, old, new, index, valid):
    new = new if old.shape[0] == len(PROMPTS) else new[::-1]
    return right(part, old, new, index, valid)

  jax.clear_caches()
  with mock.patch.object(canvas_keys, "_scattered", wrong):
    return apart(everything(run(mesh=MESHES[0])), expected)


def main(names: list[str]) -> None:
  """Runs those whose names begin with one of `names`, on one mesh each; none: all, on all."""
  assert len(jax.devices()) == 8
  # Two key heads do not divide over four devices, which a warning says.
  warnings.simplefilter("ignore")
  out, runs = {}, [*loops(), *machines(), *others(), *fills()]
  chosen = [one for one in runs if not names or one[0].startswith(tuple(names))]
  for number, (name, run) in enumerate(chosen):
    expected = everything(run())
    for mesh in MESHES[number % 3 :][:1] if names else MESHES:
      out[f"{name} on {mesh}"] = apart(everything(run(mesh=mesh)), expected)
  out["mistake"] = mistake(next(run for name, run in runs if name.startswith("loop similarity")))
  json.dump(out, sys.stdout)


if __name__ == "__main__":
  main(sys.argv[1:])

"""The methods of denoising that the benchmark compares: every policy, and every cache of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mtjax.bench.diffusion.methods import DenoisingCase
from mtjax.registry.denoising.denoiser import Denoiser

ONE, ONE_SAMPLED = "one per pass", "one per pass, sampled"
ONE_BLOCK = "one per pass, blocks"

# Of a bidirectional model, greedily: rules of a pass, then caches of one of them.
_GREEDY = {
  "llada, 2 per pass": dict(per_pass=2),
  "llada, 4 per pass": dict(per_pass=4),
  "maskgit, 4 per pass": dict(per_pass=4, transfer="maskgit"),
  "margin, 2 per pass": dict(per_pass=2, order="top_margin"),
  "dream, 2 per pass": dict(per_pass=2, order="low_entropy", transfer="dream_counts"),
  "threshold 0.9": dict(transfer="threshold:threshold=0.9"),
  "threshold 0.7": dict(transfer="threshold:threshold=0.7"),
  "factor": dict(transfer="factor"),
  "entropy bound 0.1": dict(order="low_entropy", transfer="entropy_bound:gamma=0.1"),
  "entropy bound 1": dict(order="low_entropy", transfer="entropy_bound:gamma=1.0"),
  "credit": dict(order="credit", transfer="threshold:threshold=0.9"),
  "hierarchy": dict(transfer="hierarchy"),
  "edit": dict(transfer="threshold:threshold=0.7", revise="edit"),
  "klass": dict(order="stability", transfer="klass:threshold=0.9:drift=0.01"),
  "klass 0.6 and 0.1": dict(order="stability", transfer="klass:threshold=0.6:drift=0.1"),
  "pc sampler, 2 per pass": dict(per_pass=2, order="position_calibrated:frequencies=bundled"),
  "wino": dict(transfer="wino_draft:threshold=0.6", revise="wino:threshold=0.9"),
}
CACHES = ("prefix", "dual", "delayed", "similarity", "vicinity", "elastic")
_SAMPLED = {
  "mdlm, 2 per pass": dict(per_pass=2, order="random", transfer="ancestral"),
  "mdlm, 4 per pass": dict(per_pass=4, order="random", transfer="ancestral"),
  "halton, 2 per pass": dict(per_pass=2, order="halton"),
  "halton, 3 per pass": dict(per_pass=3, order="halton"),
  "halton, 4 per pass": dict(per_pass=4, order="halton"),
  "dilated": dict(order="random", transfer="dilated"),
  "llada, 2 per pass, sampled": dict(per_pass=2),
  "threshold 0.9, sampled": dict(transfer="threshold:threshold=0.9"),
  "threshold 0.7, sampled": dict(transfer="threshold:threshold=0.7"),
  "entropy bound 1, sampled": dict(order="low_entropy", transfer="entropy_bound:gamma=1.0"),
  "remdm": dict(order="random", transfer="ancestral", revise="remdm_cap:eta=0.008"),
}
# The policies that run with every cache: each kind once, with one setting.
CROSSED = (
  *("llada, 2 per pass", "maskgit, 4 per pass", "margin, 2 per pass", "dream, 2 per pass"),
  *("threshold 0.9", "factor", "entropy bound 1", "credit", "hierarchy", "edit"),
  *("klass 0.6 and 0.1", "pc sampler, 2 per pass", "wino"),
  *("mdlm, 2 per pass", "halton, 3 per pass", "dilated", "threshold 0.7, sampled", "remdm"),
)
# These are in every run. Other caches than these two do not compute the shadow entries of WINO.
_CACHED = {"threshold 0.9": CACHES, "wino": ("prefix", "dual")}
_BLOCKS = {
  "threshold 0.9, blocks": dict(transfer="threshold:threshold=0.9"),
  "threshold 0.7, blocks": dict(transfer="threshold:threshold=0.7"),
  "wino, blocks": _GREEDY["wino"],
  "threshold 0.9, blocks uncached": dict(transfer="threshold:threshold=0.9", cache="none"),
}


def bidirectional_cases(length: int, block_length: int) -> list[DenoisingCase]:
  """Returns the cases of a model in which all entries see each other.

  `per_pass` of the tables above is the number of tokens per pass; a case without it plans one.
  """
  base = Denoiser(length, block_length, length, "sampled_probability")
  exact = _with(base, dict(order="random", transfer="first_hitting"))
  cases = [DenoisingCase(ONE, base, 0.0, ONE)]
  cases += [DenoisingCase(name, _with(base, given), 0.0, ONE) for name, given in _GREEDY.items()]
  cases.append(DenoisingCase(ONE_SAMPLED, exact, 1.0, ONE_SAMPLED))
  cases += [
    DenoisingCase(name, _with(base, given), 1.0, ONE_SAMPLED) for name, given in _SAMPLED.items()
  ]
  by_name = {case.name: case for case in cases}
  for policy, names in _CACHED.items():
    cases += [_cached(by_name[policy], cache) for cache in names]
  return cases


def crossed_cases(length: int, block_length: int) -> list[list[DenoisingCase]]:
  """Returns, for each policy of `CROSSED` that `bidirectional_cases` has without caches, its cases.

  They are its reference, the policy without a cache, and with every cache.
  """
  by_name = {case.name: case for case in bidirectional_cases(length, block_length)}
  policies = [by_name[name] for name in CROSSED if name not in _CACHED]
  return [
    [by_name[case.reference], case, *(_cached(case, cache) for cache in CACHES)]
    for case in policies
  ]


def policy_of(case: DenoisingCase) -> str:
  """Returns the name of the case that is the same without a cache."""
  return case.name.removesuffix(f", {case.cache}")


def block_cases(length: int) -> list[DenoisingCase]:
  """Returns the cases of a block-causal model, with its exact cache but for one."""
  base = Denoiser(length, 0, length, "sampled_probability", cache="exact")
  cases = [DenoisingCase(ONE_BLOCK, base, 0.0, ONE_BLOCK)]
  cases += [
    DenoisingCase(name, _with(base, given), 0.0, ONE_BLOCK) for name, given in _BLOCKS.items()
  ]
  sampled = f"{ONE_BLOCK}, sampled"
  cases.append(DenoisingCase(sampled, base, 1.0, sampled))
  fast = _with(base, _BLOCKS["threshold 0.9, blocks"])
  return [*cases, DenoisingCase("threshold 0.9, blocks, sampled", fast, 1.0, sampled)]


def _cached(case: DenoisingCase, cache: str) -> DenoisingCase:
  denoiser = dataclasses.replace(case.denoiser, cache=cache)
  return dataclasses.replace(case, name=f"{case.name}, {cache}", denoiser=denoiser)


def _with(base: Denoiser, given: Mapping[str, Any]) -> Denoiser:
  settings = dict(given)
  blocks = base.length // (base.block_length or base.length)
  steps = blocks * max(1, base.length // blocks // settings.pop("per_pass", 1))
  return dataclasses.replace(base, **{"steps": steps, **settings})

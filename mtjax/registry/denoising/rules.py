"""The rules of a pass, the caches, the guidance and the machines of denoising loops by name.

The tables of docs/methods.md and docs/guides/diffusion.md are made from these by `python -m
docs.make.methods`; a test fails for a rule without a row, and for a row without a file, config or
test.
"""

import functools
from typing import Any

from mtjax.diffusion.denoising.caches import (
  AnyOrder,
  BlockStale,
  Delayed,
  Elastic,
  ExactBlocks,
  SimilarityRefreshed,
  Uncached,
  Vicinity,
)
from mtjax.diffusion.denoising.guidance import (
  ClassifierFree,
  GrowingContrast,
  SoftIteration,
  Unguided,
)
from mtjax.diffusion.order import (
  Credit,
  Halton,
  LeftToRight,
  LowEntropy,
  MaxProbability,
  PositionCalibrated,
  RandomPositions,
  SampledProbability,
  Stability,
  TopMargin,
)
from mtjax.diffusion.revise import (
  EditTokens,
  KeepDecided,
  Levenshtein,
  RemdmCap,
  RemdmConf,
  RemdmLoop,
  RemdmRescale,
  Wino,
)
from mtjax.diffusion.transfer import (
  Ancestral,
  Dilated,
  DreamCounts,
  EntropyBound,
  Factor,
  FallingThreshold,
  FirstHitting,
  Hierarchy,
  Klass,
  LladaCounts,
  MaskGit,
  OneByOne,
  Threshold,
  WinoDraft,
)
from mtjax.registry.denoising.machines import MACHINES
from mtjax.registry.denoising.rows import RuleRow
from mtjax.registry.denoising.uniform_rules import UNIFORM_RULES
from mtjax.registry.spelling import split_spelling

_SCRIPTED = "tests/diffusion/test_scripted_passes.py"
_TRANSFER = "tests/diffusion/test_transfer_rules.py"
_CALIBRATED = "tests/diffusion/test_calibrated_orders.py"
_REVISIONS_TEST = "tests/diffusion/test_denoising_revisions.py"
_CACHES_TEST = "tests/diffusion/test_caches.py"
_EXACT_TEST = "tests/diffusion/test_caches_exact.py"
_GUIDANCE_TEST = "tests/diffusion/test_guidance.py"
_LLADA, _DREAM, _FAST = "2502.09992", "2508.15487", "2505.22618"
_remdm_row = functools.partial(RuleRow, paper="2503.00307", config="configs/decode/remdm.py")

ORDERS: dict[str, RuleRow] = {
  "random": RuleRow(
    RandomPositions, "in random order", "2406.07524", config="configs/decode/mdlm.py"
  ),
  "left_to_right": RuleRow(LeftToRight, "from left to right", "-"),
  "halton": RuleRow(
    Halton,
    "far from each other, along the Halton sequence",
    "2503.17076",
    config="configs/decode/halton.py",
    test=_TRANSFER,
  ),
  "max_probability": RuleRow(
    MaxProbability, "by the probability of the most probable token", _LLADA
  ),
  "sampled_probability": RuleRow(
    SampledProbability,
    "by the probability of the token that was sampled there",
    f"{_LLADA}, 2202.04200",
  ),
  "top_margin": RuleRow(
    TopMargin,
    "by the margin between the two most probable tokens",
    "2502.06768",
    config="configs/decode/top_margin.py",
  ),
  "low_entropy": RuleRow(
    LowEntropy, "by entropy, the lowest first", _DREAM, config="configs/decode/dream.py"
  ),
  "credit": RuleRow(
    Credit,
    "by probability, after credit for what was probable in earlier passes",
    "2510.06133",
    config="configs/decode/credit.py",
    test=_SCRIPTED,
  ),
  "position_calibrated": RuleRow(
    PositionCalibrated,
    "from the left, and by probability, less for tokens that are frequent anywhere",
    "2508.13021",
    config="configs/decode/pc_sampler.py",
    test=_CALIBRATED,
  ),
  "stability": RuleRow(
    Stability,
    "by the probability of the sampled token; how far distributions moved is measured",
    "2511.05664",
    config="configs/decode/klass.py",
    test=_CALIBRATED,
  ),
}

TRANSFERS: dict[str, RuleRow] = {
  "one_by_one": RuleRow(OneByOne, "one position per pass", "-"),
  "llada_counts": RuleRow(LladaCounts, "equal numbers per pass, as LLaDA", _LLADA, test=_SCRIPTED),
  "dream_counts": RuleRow(
    DreamCounts,
    "a share of what is still masked, as Dream",
    _DREAM,
    config="configs/decode/dream.py",
    test=_SCRIPTED,
  ),
  "dilated": RuleRow(
    Dilated,
    "every 16th position, every 8th, and so on: no neighbours together",
    "2506.19037",
    config="configs/decode/dilated.py",
    test=_TRANSFER,
  ),
  "maskgit": RuleRow(
    MaskGit,
    "few at first and then more: a cosine of the passes",
    "2202.04200",
    config="configs/decode/maskgit.py",
    test=_SCRIPTED,
  ),
  "threshold": RuleRow(
    Threshold,
    "all that reach a threshold",
    _FAST,
    config="configs/decode/fast_dllm.py",
    test=_TRANSFER,
  ),
  "falling_threshold": RuleRow(
    FallingThreshold,
    "the same, with a threshold that falls from pass to pass",
    "2510.08666",
    config="configs/decode/soft_iteration.py",
    test="tests/diffusion/test_soft_inputs.py",
  ),
  "factor": RuleRow(Factor, "as many as their lowest confidence allows", _FAST, test=_TRANSFER),
  "entropy_bound": RuleRow(
    EntropyBound,
    "as many as a bound on their mutual information allows",
    "2505.24857",
    config="configs/decode/eb_sampler.py",
    test=_TRANSFER,
  ),
  "hierarchy": RuleRow(
    Hierarchy,
    "the best of every run of masks, and all that reach a threshold",
    "2510.08666",
    config="configs/decode/hierarchy.py",
    test=_TRANSFER,
  ),
  "klass": RuleRow(
    Klass,
    "all that reach a threshold and whose distribution moved little in the last passes",
    "2511.05664",
    config="configs/decode/klass.py",
    test=_CALIBRATED,
  ),
  "wino_draft": RuleRow(
    WinoDraft,
    "many, at a low threshold, to be verified in later passes",
    "2507.18578",
    config="configs/decode/wino.py",
    test=_TRANSFER,
  ),
  "ancestral": RuleRow(
    Ancestral,
    "each by a coin of its own",
    "2406.07524, 2406.04329",
    config="configs/decode/mdlm.py",
  ),
  "first_hitting": RuleRow(
    FirstHitting,
    "one, at the time of the next jump",
    "2409.02908",
    config="configs/decode/first_hitting.py",
  ),
}

REVISIONS: dict[str, RuleRow] = {
  "keep": RuleRow(KeepDecided, "nothing: what is decided stays", "-", test=_REVISIONS_TEST),
  "edit": RuleRow(
    EditTokens,
    "tokens give way to those of which the model is sure",
    "2602.08676",
    config="configs/decode/llada21.py",
    test=_REVISIONS_TEST,
  ),
  "levenshtein": RuleRow(
    Levenshtein,
    "tokens are replaced, deleted, and get masks before them",
    "LLaDA2.2",
    config="configs/decode/llada22.py",
    test="tests/diffusion/test_levenshtein.py",
  ),
  "wino": RuleRow(
    Wino,
    "tokens that the rest of the text does not support are masked again",
    "2507.18578",
    config="configs/decode/wino.py",
    test=_REVISIONS_TEST,
  ),
  "remdm_cap": _remdm_row(RemdmCap, "tokens are masked again, at a capped rate"),
  "remdm_rescale": _remdm_row(
    RemdmRescale, "tokens are masked again, at a share of the largest rate"
  ),
  "remdm_conf": _remdm_row(RemdmConf, "tokens are masked again, improbable ones more often"),
  "remdm_loop": _remdm_row(
    RemdmLoop, "tokens are masked again while the masking rate stands still"
  ),
}

CACHES: dict[str, RuleRow] = {
  "none": RuleRow(Uncached, "every pass computes the whole canvas", "-", test=_EXACT_TEST),
  "exact": RuleRow(
    ExactBlocks,
    "finished blocks of a block-causal model are kept",
    "2503.09573",
    config="configs/decode/block.py",
    test=_EXACT_TEST,
  ),
  "prefix": RuleRow(
    BlockStale,
    "what stands before the block is kept while the block is in progress",
    _FAST,
    fixed=dict(suffix=False),
    config="configs/decode/fast_dllm.py",
    test=_CACHES_TEST,
  ),
  "dual": RuleRow(
    BlockStale,
    "all but the block is kept while the block is in progress",
    _FAST,
    fixed=dict(suffix=True),
    config="configs/decode/fast_dllm.py",
    test=_CACHES_TEST,
  ),
  "any_order": RuleRow(
    AnyOrder,
    "decided tokens of an any-subset model are kept, in the order of their decisions",
    "2504.20456, 2607.01775",
    config="configs/decode/set.py",
    test=_EXACT_TEST,
  ),
  "delayed": RuleRow(
    Delayed,
    "keys of decided tokens are kept from the pass after their decision",
    "2505.15781",
    test=_CACHES_TEST,
  ),
  "similarity": RuleRow(
    SimilarityRefreshed,
    "entries whose values changed are computed, layer by layer",
    "2506.06295",
    test=_CACHES_TEST,
  ),
  "vicinity": RuleRow(
    Vicinity,
    "the block and what is near it is computed, over old keys",
    "2510.08666",
    test=_CACHES_TEST,
  ),
  "elastic": RuleRow(
    Elastic, "deep layers are computed anew when attention drifts", "2510.14973", test=_CACHES_TEST
  ),
}

GUIDANCE: dict[str, RuleRow] = {
  "none": RuleRow(Unguided, "logits are the model's", "-", test=_GUIDANCE_TEST),
  "classifier_free": RuleRow(
    ClassifierFree,
    "logits move away from those without the prompt",
    _LLADA,
    config="configs/decode/classifier_free.py",
    test=_GUIDANCE_TEST,
  ),
  "growing_contrast": RuleRow(
    GrowingContrast,
    "the same, the more the farther from the prompt",
    "2403.14003",
    config="configs/decode/growing_contrast.py",
    test=_GUIDANCE_TEST,
  ),
  "soft_iteration": RuleRow(
    SoftIteration,
    "inputs of masks tell what the last pass expected there",
    "2510.08666",
    config="configs/decode/soft_iteration.py",
    test="tests/diffusion/test_soft_inputs.py",
  ),
}

ROLES: dict[str, dict[str, RuleRow]] = {
  "order": ORDERS,
  "transfer": TRANSFERS,
  "revise": REVISIONS,
  "cache": CACHES,
  "guidance": GUIDANCE,
  "machine": MACHINES,
  "uniform": UNIFORM_RULES,
}
_WORDS = {
  "order": "order policy",
  "transfer": "transfer rule",
  "revise": "revision rule",
  "uniform": "rule of uniform canvases",
}


def get_rule(role: str, chosen: Any) -> Any:
  """Returns the rule that "NAME" or "NAME:setting=value:..." names; a rule itself is returned.

  `role` is one of ROLES. Raises ValueError for an unknown name or setting, with the known ones, and
  for a setting out of its range.
  """
  if not isinstance(chosen, str):
    return chosen
  name, settings = split_spelling(chosen)
  rows = ROLES[role]
  if name not in rows:
    raise ValueError(f"{_WORDS.get(role, role)} {name!r} is not one of: {', '.join(rows)}")
  try:
    return rows[name](**settings)
  except ValueError as error:
    raise ValueError(f"{_WORDS.get(role, role)} {name!r}: {error}") from None

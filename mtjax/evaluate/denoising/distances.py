"""How far the texts of each policy are from one position per pass: total variation on two toys.

Both toys have 4 positions and 2 tokens. The conditionals of the first are those of one joint
distribution, which is also what one position per pass makes in any fixed or random order. Those of
the second are the first's with noise on their logits: as a network's, they are of no joint, and the
distribution of one position per pass in random order stands for it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

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
from mtjax.diffusion.policy import DecidingPolicy
from mtjax.diffusion.revise import (
  EditTokens,
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
from mtjax.evaluate.denoising.conditionals import Conditionals, conditionals_of, perturbed
from mtjax.evaluate.denoising.enumeration import text_probs
from mtjax.evaluate.exactness import total_variation

LENGTH, VOCAB, SEED, CONCENTRATION, NOISE = 4, 2, 0, 0.3, 0.5


@dataclasses.dataclass(frozen=True)
class Measured:
  """A policy with the number of passes that it plans."""

  policy: DecidingPolicy
  steps: int = LENGTH


def _random(transfer, steps=LENGTH, **revise) -> Measured:
  return Measured(DecidingPolicy(RandomPositions(), transfer, **revise), steps)


def _sampled(transfer, steps=LENGTH, **revise) -> Measured:
  return Measured(DecidingPolicy(SampledProbability(), transfer, **revise), steps)


POLICIES: Mapping[str, Measured] = MappingProxyType(
  {
    "left to right, one per pass": Measured(DecidingPolicy(LeftToRight(), OneByOne())),
    "random order, one per pass": _random(OneByOne()),
    "first hitting": _random(FirstHitting()),
    "maximum probability, one per pass": Measured(DecidingPolicy(MaxProbability(), OneByOne())),
    "margin, one per pass": Measured(DecidingPolicy(TopMargin(), OneByOne())),
    "entropy, one per pass": Measured(DecidingPolicy(LowEntropy(), OneByOne())),
    "sampled probability, one per pass (LLaDA)": _sampled(OneByOne()),
    "credit, one per pass": Measured(DecidingPolicy(Credit(), OneByOne())),
    "Halton order, one per pass": Measured(DecidingPolicy(Halton(), OneByOne())),
    "Halton order, 2 per pass": Measured(DecidingPolicy(Halton(), LladaCounts()), 2),
    "dilated (DUS)": _random(Dilated()),
    "PC-Sampler's order, equal frequencies, one per pass": Measured(
      DecidingPolicy(PositionCalibrated(), OneByOne())
    ),
    "random order, 2 per pass": _random(LladaCounts(), 2),
    "entropy, 2 per pass": Measured(DecidingPolicy(LowEntropy(), LladaCounts()), 2),
    "sampled probability, 2 per pass (LLaDA)": _sampled(LladaCounts(), 2),
    "ancestral, 2 passes": _random(Ancestral(), 2),
    "ancestral, 4 passes": _random(Ancestral(), 4),
    "ancestral, 16 passes": _random(Ancestral(), 16),
    "Dream, 2 passes": _sampled(DreamCounts(), 2),
    "Dream, 2 passes, alg_temp 0.2": _sampled(DreamCounts(0.2), 2),
    "MaskGIT, 2 passes": _sampled(MaskGit(), 2),
    "entropy bound 0.1": Measured(DecidingPolicy(LowEntropy(), EntropyBound(0.1))),
    "entropy bound 0.5": Measured(DecidingPolicy(LowEntropy(), EntropyBound(0.5))),
    "threshold 0.9 (Fast-dLLM)": _sampled(Threshold(0.9)),
    "threshold 0.6 (Fast-dLLM)": _sampled(Threshold(0.6)),
    "threshold that falls to 0.6 (dInfer)": _sampled(FallingThreshold(0.6, decay=0.2)),
    "maximum probability, threshold 0.6": Measured(
      DecidingPolicy(MaxProbability(), Threshold(0.6))
    ),
    "factor 1 (Fast-dLLM)": _sampled(Factor(1.0)),
    "hierarchy 0.9 and 0.4 (dInfer)": _sampled(Hierarchy(0.9, 0.4)),
    "credit, threshold 0.6 (dInfer)": Measured(DecidingPolicy(Credit(), Threshold(0.6))),
    "KLASS 0.6 and 1 nat": Measured(DecidingPolicy(Stability(changes=1), Klass(0.6, drift=1.0))),
    "threshold 0.6, edits above 0.6 (LLaDA2.1)": _sampled(Threshold(0.6), revise=EditTokens(0.6)),
    "WINO 0.5 and 0.9": _sampled(WinoDraft(0.5), revise=Wino(0.9)),
    "ReMDM cap 0.1, 4 passes": _random(Ancestral(), revise=RemdmCap(0.1)),
    "ReMDM rescale 0.5, 4 passes": _random(Ancestral(), revise=RemdmRescale(0.5)),
    "ReMDM confidence, 4 passes": _random(Ancestral(), revise=RemdmConf()),
    "ReMDM loop 0.1, 4 passes": _random(Ancestral(), revise=RemdmLoop(0.1)),
    "ReMDM cap 0.1, 16 passes": _random(Ancestral(), 16, revise=RemdmCap(0.1)),
    "ReMDM loop 0.1, 16 passes": _random(Ancestral(), 16, revise=RemdmLoop(0.1)),
  }
)


def toys() -> tuple[Conditionals, Conditionals]:
  """Returns the toy whose conditionals agree, and the one whose conditionals do not."""
  rng = np.random.default_rng(SEED)
  joint = rng.dirichlet(np.full(VOCAB**LENGTH, CONCENTRATION))
  agreeing = conditionals_of(joint.reshape((VOCAB,) * LENGTH))
  return agreeing, perturbed(agreeing, rng, NOISE)


def measure(
  policies: Mapping[str, Measured] = POLICIES,
  *,
  progress: Callable[[str], None] = lambda name: None,
) -> Iterator[dict[str, Any]]:
  """Yields a row per policy: its exactness, mean passes, and total variation on each toy.

  `progress` is called with the name of the next policy.
  """
  both = toys()
  exact = [text_probs(DecidingPolicy(), toy, steps=LENGTH).probs for toy in both]
  for name, one in policies.items():
    progress(name)
    found = [text_probs(one.policy, toy, steps=one.steps) for toy in both]
    distance = [float(total_variation(f.probs, p)) for f, p in zip(found, exact, strict=True)]
    yield dict(
      policy=name,
      exactness=one.policy.exactness.value,
      reason=one.policy.reason,
      passes=found[0].passes,
      total_variation=dict(agree=distance[0], disagree=distance[1]),
    )

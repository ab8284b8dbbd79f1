"""Verification of drafts: which drafted tokens are kept, and what is emitted after them.

`verify(name, processed_logits, draft, keys, step)` checks that the verifier is exact for the scheme
of the draft, and runs it. `VERIFIERS` says what each keeps of the target; tests enumerate the
emitted distribution of every pair of verifier and draft scheme declared here.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int, Key

from mtjax.sharding.vocabulary import over_vocabulary
from mtjax.types import Draft, DraftScheme, Exactness, Verdict
from mtjax.verify.match import follow, greedy, one_hot, sampled
from mtjax.verify.optimal import optimal_acceptance
from mtjax.verify.plan import leaves_first
from mtjax.verify.procedure import Outcome, Procedure
from mtjax.verify.rules.block import block
from mtjax.verify.rules.chain import chain
from mtjax.verify.rules.delta import delta
from mtjax.verify.rules.greedy_plus_one import greedy_plus_one
from mtjax.verify.rules.kseq import kseq
from mtjax.verify.rules.rrs import with_replacement, without_replacement
from mtjax.verify.rules.spechub import spechub
from mtjax.verify.rules.threshold import threshold
from mtjax.verify.rules.traversal import traversal
from mtjax.verify.rules.typical import typical
from mtjax.verify.walk import Coupling, walk

__all__ = [
  "VERIFIERS",
  "Coupling",
  "Outcome",
  "Procedure",
  "Verifier",
  "check",
  "check_scheme",
  "optimal_acceptance",
  "verify",
]

ANY = frozenset(DraftScheme)
ONE_SAMPLE = frozenset(
  (DraftScheme.WITH_REPLACEMENT, DraftScheme.WITHOUT_REPLACEMENT, DraftScheme.GREEDY_PLUS_ONE)
)


@dataclasses.dataclass(frozen=True)
class Verifier:
  """A verification procedure and what it promises."""

  procedure: Procedure
  exactness: Exactness
  schemes: frozenset[DraftScheme]  # schemes of drafts for which `exactness` holds
  paper: str
  needs_q: bool = True
  chains_only: str | None = None  # reason why it takes no trees; None: it does
  # Whether what is accepted at a node depends on drafts below it: paths are judged as wholes.
  whole_paths: bool = False
  # Whether the procedure computes with `mtjax.sharding.vocabulary`, so that on a mesh each device
  # decides with its own tokens' probabilities. Others get all of them, on every device.
  by_parts: bool = False

  @functools.cached_property
  def decide(self) -> Callable[..., Verdict]:
    """Jitted: (processed_logits [B, N, V], draft, keys [B], step [B]) -> Verdict of each row."""
    decide = jax.vmap(self.procedure.decide)
    if not self.by_parts:
      return jax.jit(decide)

    def by_parts(processed_logits, draft, keys, step):
      arrays = processed_logits, draft, keys, step
      return over_vocabulary(decide, *arrays, roles=("b.v", {"q": "b.v"}, "b", "b"), out="b")

    return jax.jit(by_parts)


LOSSLESS, APPROXIMATE = Exactness.LOSSLESS, Exactness.APPROXIMATE
WITH, WITHOUT = (
  frozenset((scheme,)) for scheme in (DraftScheme.WITH_REPLACEMENT, DraftScheme.WITHOUT_REPLACEMENT)
)

VERIFIERS: dict[str, Verifier] = {
  "greedy": Verifier(
    follow(greedy, one_hot), Exactness.GREEDY_LOSSLESS, ANY, "1811.03115", needs_q=False
  ),
  "sample_match": Verifier(
    follow(sampled, lambda p: p), LOSSLESS, ANY, "2312.12728, 2406.02532", needs_q=False
  ),
  "delta": Verifier(walk(delta), LOSSLESS, ANY, "2406.16858", needs_q=False),
  "chain": Verifier(
    chain(),
    LOSSLESS,
    ONE_SAMPLE,
    "2211.17192, 2302.01318",
    chains_only="it tries one draft per position; use rrs_with, rrs_without or delta",
  ),
  "rrs_with": Verifier(walk(with_replacement), LOSSLESS, WITH, "2305.09781"),
  "rrs_without": Verifier(walk(without_replacement), LOSSLESS, WITH | WITHOUT, "2402.12374"),
  "kseq": Verifier(walk(kseq), LOSSLESS, WITH, "2310.15141"),
  "spechub": Verifier(
    walk(spechub), LOSSLESS, frozenset((DraftScheme.PAIR,)), "aclanthology 2024.emnlp-main.1148"
  ),
  "greedy_plus_one": Verifier(
    walk(greedy_plus_one), LOSSLESS, frozenset((DraftScheme.GREEDY_PLUS_ONE,)), "2502.18779"
  ),
  "block": Verifier(
    leaves_first(block),
    LOSSLESS,
    ONE_SAMPLE,
    "2403.10444",
    chains_only="it judges one chain as a whole; use traversal, its form for trees",
    whole_paths=True,
  ),
  "traversal": Verifier(
    leaves_first(traversal), LOSSLESS, WITH | WITHOUT, "2505.12398", whole_paths=True
  ),
  # Without a default in its source other than the exact 1 and 1; these are ours.
  "threshold": Verifier(
    walk(threshold(single=0.5, cumulative=0.9)),
    APPROXIMATE,
    ANY,
    "SGLang, tree_speculative_sampling_target_only",
    needs_q=False,
  ),
  "typical": Verifier(leaves_first(typical()), APPROXIMATE, ANY, "2401.10774", needs_q=False),
}
VERIFIERS = {name: dataclasses.replace(it, by_parts=True) for name, it in VERIFIERS.items()}


def verify(
  verifier: str | Verifier,
  processed_logits: Float[Array, "B N V"],
  draft: Draft,
  keys: Key[Array, " B"],
  step: Int[Array, " B"],
) -> Verdict:
  """Decides which drafts are kept, and emits one token per row after them.

  processed_logits: from `mtjax.sampling.process`, after each node; removed tokens are -inf.
  keys [B]: one key per row, which the drafter must not have sampled with. step: number of tokens
  that the row has emitted so far, so that every round has its own randomness. A row without valid
  drafts gets a plain sample.
  Raises ValueError, before compilation, for what `check` refuses and for shapes that do not fit.
  """
  chosen = get_verifier(verifier)
  check(verifier, draft)
  rows, nodes, vocab = processed_logits.shape
  if draft.tree.token.shape != (rows, nodes):
    raise ValueError(
      f"processed_logits are for {(rows, nodes)} rows and nodes, but the tree has "
      f"{draft.tree.token.shape}"
    )
  if chosen.needs_q and draft.q.shape != processed_logits.shape:
    raise ValueError(
      f"q has shape {draft.q.shape}, processed_logits {processed_logits.shape}: scatter q into the "
      f"target's vocabulary of {vocab} (zeros elsewhere), or use delta, which needs no q"
    )
  if not chosen.needs_q:
    draft = draft.replace(q=None)
  return chosen.decide(processed_logits, draft, keys, step)


def get_verifier(name: str | Verifier) -> Verifier:
  """Returns the verifier of that name, or the verifier itself.

  Raises ValueError that lists the known names.
  """
  if isinstance(name, Verifier):
    return name
  if name not in VERIFIERS:
    raise ValueError(f"no verifier {name!r}; there are {', '.join(sorted(VERIFIERS))}")
  return VERIFIERS[name]


def check(verifier: str | Verifier, draft: Draft) -> None:
  """Raises ValueError, naming others, unless the verifier is exact for this draft."""
  check_scheme(verifier, draft.scheme, draft.tree.breadth, has_q=draft.q is not None)


def check_scheme(
  verifier: str | Verifier, scheme: DraftScheme, breadth: int, *, has_q: bool | None = None
) -> None:
  """Checks, before there is a draft, trees of `breadth` whose children are chosen by `scheme`.

  has_q: drafts come with the probabilities that they were sampled from; None: all but DELTA ones
  do. Raises ValueError as `check` does.
  """
  chosen = get_verifier(verifier)
  name = verifier if isinstance(verifier, str) else "this verifier"
  has_q = scheme is not DraftScheme.DELTA if has_q is None else has_q
  alone = breadth == 1
  if chosen.chains_only and not alone:
    raise ValueError(
      f"{name} takes chains, but this tree has up to {breadth} children per node: "
      f"{chosen.chains_only}"
    )
  # With one child per node, each of these schemes is one sample from q.
  schemes = chosen.schemes | ONE_SAMPLE if alone and chosen.schemes & ONE_SAMPLE else chosen.schemes
  if scheme not in schemes:
    others = [
      other
      for other, it in VERIFIERS.items()
      if scheme in it.schemes
      and it.exactness is LOSSLESS
      and not (it.chains_only and not alone)
      and not (it.needs_q and not has_q)
    ]
    raise ValueError(
      f"{name} is exact for draft scheme {' or '.join(sorted(it.value for it in chosen.schemes))}, "
      f"this draft has {scheme.value}; use {' or '.join(others)}"
    )
  if chosen.needs_q and not has_q:
    raise ValueError(
      f"{name} needs the probabilities q that the drafts were sampled from; "
      "without them use delta or sample_match"
    )
  if scheme is DraftScheme.PAIR and breadth > 2:
    raise ValueError(
      f"a pair is two children, but this tree has up to {breadth} per node; "
      "for more use greedy-plus-one drafts"
    )

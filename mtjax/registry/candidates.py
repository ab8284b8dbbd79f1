"""Entries of drafters that may be planned with: what each of them competes with."""

import dataclasses
import functools
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from mtjax.decode.planned import Arm
from mtjax.decode.speculative import Speculative
from mtjax.draft import Drafter, ModelChain, ModelTree, ShapedChain, ShapedTree, host
from mtjax.draft.model_free.trie_store import NgramStore
from mtjax.planning.candidate import PlanCandidate
from mtjax.planning.identity import platform_of
from mtjax.registry.methods import get_drafter
from mtjax.text import TextModel
from mtjax.trees import Topology

PLANNABLE = ("lookup", "trie", "suffix", "draft", "draft_tree")
OF_PLANNED_SHAPE = ("draft", "draft_tree")  # the plan chooses all settings of these drafters
_WITH_STORE = ("trie", "suffix")
_SHORT = 4  # entries of a short round: the last token and 3 drafts
_SMALLEST_STORE = 1000  # nodes; stores with fewer share one profile

# Drafters that were made before, with their parameters, by name.
MadeDrafters = MutableMapping[str, tuple[Drafter, PyTree]]


@dataclasses.dataclass(frozen=True)
class ShapeSizes:
  """Sizes of the rounds that a draft model is planned with, the root of each tree among them."""

  chains: tuple[int, ...]
  trees: tuple[int, ...]
  depth: int  # of trees


# On a CPU a forward pass takes longer with every entry. On an accelerator a pass over 64 entries of
# a small batch takes almost as long as one over a single entry, so larger rounds are candidates
# too. The second row follows from rooflines (results/simulated_plans.json) and is not measured.
_CPU_SIZES = ShapeSizes(chains=(_SHORT, 8), trees=(8, 16), depth=6)
_ACCELERATOR_SIZES = ShapeSizes(chains=(_SHORT, 8, 16), trees=(16, 64), depth=8)


def shape_sizes(platform: str) -> ShapeSizes:
  """Returns the sizes of rounds on a platform: "cpu", "gpu" or "tpu", as JAX names them."""
  return _CPU_SIZES if platform == "cpu" else _ACCELERATOR_SIZES


def candidates_of(
  name: str, config: Mapping[str, Any], target: TextModel, drafters: MadeDrafters
) -> list[PlanCandidate]:
  """Returns what a drafter competes with: one candidate, and of prompt lookup one per length.

  config: of the drafter, as its entry takes it. drafters: those that were made before; a drafter
  that is not among them is made and added. Raises ValueError as the entry does.
  """
  if name not in drafters:
    drafters[name] = get_drafter(name)(config, target)
  made, params = drafters[name]
  drafter: Any = made  # of the class that its name says

  def candidate(arm: Arm, label: str, **settings: Any) -> PlanCandidate:
    return PlanCandidate(arm, params, label, **settings)

  def whole(
    its_drafter: Any, entries: int, given: Mapping[str, Any], *, late: Any = None, **settings: Any
  ) -> PlanCandidate:
    """Returns a candidate that chooses its drafts alone, with the name that `--compare` takes."""
    own = {**config["drafter"], **given}
    named = ":".join([name, *(f"{field}={value}" for field, value in given.items())])
    of_text = its_drafter if name == "lookup" and its_drafter.branches == 1 else None
    method = Speculative(its_drafter, config["verifier"])
    arm = Arm(named, method, (entries,), of_text=of_text, late=late)
    if path := own.pop("store", ""):
      own["store"] = _store_name(path, host.get_store(params))
    return candidate(arm, _label(name, arm, own), **settings)

  if name == "lookup":
    # A round of few drafts accepts more of them, because it may go on with a copy that the last one
    # did not end. So each length has rates of its own.
    lengths = {drafter.length}
    if drafter.branches == 1 and drafter.length >= _SHORT:
      lengths.add(_SHORT - 1)
    branches = {} if drafter.branches == 1 else dict(branches=drafter.branches)
    return [
      whole(
        dataclasses.replace(drafter, length=length),
        1 + length * drafter.branches,
        dict(length=length, **branches),
      )
      for length in sorted(lengths)
    ]
  if name in _WITH_STORE:
    # Every process begins with what the file holds, and without a file with nothing.
    filled = bool(config["drafter"].get("store", ""))
    calibration = functools.partial(_store_to_measure, host.get_store(params), filled)
    given = dict(size=drafter.size)
    return [whole(drafter, drafter.size, given, late=drafter, calibration=calibration)]
  shaped, sizes, alone = _shaped(name, drafter, target)
  arm = Arm(name, Speculative(shaped, config["verifier"]), sizes, shaped)
  # All settings of such a drafter are those of the plan.
  return [candidate(arm, _label(name, arm, {}), alone=functools.partial(alone, drafter))]


def _shaped(name: str, drafter: Any, target: TextModel) -> tuple[Any, tuple[int, ...], Any]:
  """Returns the drafter of any shape, its sizes, and what makes the drafter of one shape."""
  sizes = shape_sizes(platform_of(target.params))
  if name == "draft":
    return ShapedChain(drafter.model, max(sizes.chains)), sizes.chains, _chain
  children = min(4, target.model.config.vocab_size)
  return ShapedTree(drafter.model, max(sizes.trees), sizes.depth, children), sizes.trees, _tree


def _chain(drafter: ModelChain, shape: Topology) -> ModelChain:
  return ModelChain(drafter.model, shape.height)


def _tree(drafter: ModelTree, shape: Topology) -> ModelTree:
  return ModelTree(drafter.model, shape)


def _label(name: str, arm: Arm, settings: Mapping[str, Any]) -> str:
  """Returns the drafter with what changes its drafts."""
  words = [f"{field}={value}" for field, value in sorted(settings.items())]
  return " ".join([name, *words, "sizes", ",".join(map(str, arm.sizes))])


def _store_name(path: str, store: NgramStore) -> str:
  """Returns the file of a store and the order of magnitude of its nodes.

  A store goes on learning, and is measured again when it has grown beyond 1,000 nodes, 10,000 ...
  """
  limit = max(10 ** len(str(store.counts.size)), _SMALLEST_STORE)
  return f"{str(Path(path).resolve())!r} of less than {limit} nodes"


def _store_to_measure(store: NgramStore, filled: bool) -> tuple[PyTree, NgramStore]:
  """Returns the handle of a store like the user's, which learns nothing of it, and the store.

  filled: with the same counts of outputs; otherwise without any.
  """
  made = store.copy() if filled else store.emptied()
  return made.handle, made

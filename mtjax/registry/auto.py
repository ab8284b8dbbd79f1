"""Entries of drafters that may be planned with, and configs that ask for a plan."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from mtjax.decode.method import Method
from mtjax.decode.planned import Arm
from mtjax.decode.speculative import Speculative
from mtjax.draft import (
  ModelChain,
  ModelTree,
  ShapedChain,
  ShapedTree,
  SuffixSettings,
  SuffixStore,
  TrieSettings,
  TrieStore,
)
from mtjax.planning.auto import AutoPlan, plan_candidates
from mtjax.planning.calibration import PlanRequest
from mtjax.planning.candidate import PlanCandidate
from mtjax.planning.store import PlanStore
from mtjax.planning.texts import BUNDLED_TEXTS, Texts, read_texts
from mtjax.registry.methods import drafter_settings, get_drafter
from mtjax.sampling.canonical import canonical_sampling
from mtjax.sampling.logits import Sampling
from mtjax.sharding import padded_rows
from mtjax.text import TextModel
from mtjax.tuning.plan import PlannedRound

ALL = "all"
_STORES: dict[str, tuple[Any, Any]] = {
  "trie": (TrieStore, TrieSettings),
  "suffix": (SuffixStore, SuffixSettings),
}
_SHORT = 4
_CHAIN_SIZES, _TREE_SIZES = (_SHORT, 8), (8, 16)
PLANNABLE = ("lookup", "trie", "suffix", "draft", "draft_tree")


def plan_settings() -> dict[str, Any]:
  """Returns the settings of a plan with their defaults, as configs have them."""
  return dict(
    context=256,  # tokens per row that times are measured at
    seconds=60.0,  # for measuring, at most, after the compilation
    folder="",  # of profiles and plans; "": $MTJAX_PLANS, or mtjax/plans in the user's cache
    texts=(),  # files to calibrate with, as ("code=code.jsonl", "prose=book.txt"); (): bundled ones
  )


def names_of(of: str | Sequence[str]) -> tuple[str, ...]:
  """Returns the drafters of "lookup,suffix", "all" or a sequence of names; one alone is one name.

  Raises ValueError for a drafter that cannot be planned with, unless it is the only one.
  """
  names = tuple(of.split(",")) if isinstance(of, str) else tuple(of)
  names = PLANNABLE if names == (ALL,) else names
  unknown = [name for name in names if name not in PLANNABLE]
  if unknown and len(names) > 1:
    raise ValueError(
      f"{', '.join(unknown)} cannot be planned with: auto plans with {', '.join(PLANNABLE)}, with "
      f'several of them as "lookup,suffix", or with "{ALL}"'
    )
  return names


def wants_plan(config: Mapping[str, Any]) -> bool:
  """Returns true for a config of `auto` with several drafters, and for tree="auto".

  Raises ValueError for another tree.
  """
  if config["method"] == "auto":
    return len(names_of(config["of"])) > 1
  if (tree := config.get("tree", "")) not in ("", "auto"):
    raise ValueError(f'tree {tree!r} is not one of: "", "auto"')
  return tree == "auto"


def make_planned(
  config: Mapping[str, Any], target: TextModel, batch: int = 1
) -> tuple[Method, PyTree]:
  """Returns the method that decodes by a plan for this machine, and its parameters.

  Raises ValueError as `find_plan` does.
  """
  return find_plan(config, target, batch).made()


def planned_rows(batch: int, target: TextModel) -> int:
  """Returns the rows that a plan is made for: a power of two that the mesh divides, or more."""
  return padded_rows(1 << max(batch - 1, 0).bit_length(), target.mesh)


def find_plan(config: Mapping[str, Any], target: TextModel, batch: int = 1) -> AutoPlan:
  """Returns the plan of a config for this machine, measured or stored.

  The plan is of the smallest power of two of rows that holds the batch, and of as many more as the
  data axis of the target's mesh needs. Of all drafters those that do not fit the target are left
  out, and named; one that was asked for by name is refused. Raises ValueError as its drafters'
  entries do.
  """
  settings = {**plan_settings(), **config.get("plan", {})}
  store = PlanStore(settings["folder"] or None)
  if config["method"] == "auto":
    names = names_of(config["of"])
    optional = names == PLANNABLE
  else:
    names, optional = (config["method"],), False
  candidates: list[PlanCandidate] = []
  for name in names:
    own = config if config["method"] == name else {**config, "drafter": drafter_settings(name)}
    try:
      candidates += _candidates(name, own, target)
    except ValueError as error:
      if not optional:
        raise
      store.say(f"auto goes without {name}: {error}")
  context, rows = int(settings["context"]), planned_rows(batch, target)
  return plan_candidates(
    target,
    candidates,
    PlanRequest(rows, context, config_sampling(config)),
    store=store,
    texts=plan_texts(settings["texts"]),
    seconds=settings["seconds"],
  )


def planned_config(
  config: Mapping[str, Any], target: TextModel, sampling: Sampling | None, tokens: int
) -> dict[str, Any]:
  """Returns the config of a plan for a request.

  sampling: of the request; None: that of the config; of values per row the first one counts.
  tokens: of its longest row; above the context of the config, the plan is of the next power of two,
  or of all positions of the model.
  """
  settings = {**plan_settings(), **config.get("plan", {})}
  if tokens > settings["context"]:
    longest = target.model.config.max_position
    settings["context"] = min(1 << (tokens - 1).bit_length(), longest)
  given = {} if sampling is None else vars(sampling)
  first = {
    name: value if np.ndim(value) == 0 else np.ravel(value)[0].item()
    for name, value in given.items()
  }
  return {**config, **first, "plan": settings}


def plan_texts(given: Texts | Sequence[str]) -> Texts:
  """Returns the texts of the setting `texts` of a plan: by domain, or as "code=FILE" for each.

  Without any it is the bundled ones. Raises ValueError for one without a file, and as `read_texts`
  does.
  """
  if isinstance(given, Mapping):
    return given
  named = [one.partition("=") for one in given]
  for domain, _, path in named:
    if not path:
      raise ValueError(f'texts to calibrate with are named as "code=FILE", got {domain!r}')
  return read_texts({domain: path for domain, _, path in named}) if named else BUNDLED_TEXTS


def config_sampling(config: Mapping[str, Any]) -> Sampling | None:
  """Returns the settings that a config samples by (`canonical_sampling`)."""
  names = [field.name for field in dataclasses.fields(Sampling)]
  return canonical_sampling(Sampling(**{name: config[name] for name in names if name in config}))


def _candidates(name: str, config: Mapping[str, Any], target: TextModel) -> list[PlanCandidate]:
  made, params = get_drafter(name)(config, target)
  drafter: Any = made  # of the class that its name says

  def candidate(arm: Arm, own=config, **settings: Any) -> PlanCandidate:
    return PlanCandidate(arm, params, _label(name, own, arm), **settings)

  def whole(
    its_drafter: Any, entries: int, given: Mapping[str, Any], *, late: Any = None, **settings: Any
  ) -> PlanCandidate:
    """Returns a candidate that chooses its drafts alone, with the name that `--compare` takes."""
    own = {**config, "drafter": {**config["drafter"], **given}}
    named = ":".join([name, *(f"{field}={value}" for field, value in given.items())])
    of_text = its_drafter if name == "lookup" and its_drafter.branches == 1 else None
    method = Speculative(its_drafter, config["verifier"])
    arm = Arm(named, method, (entries,), of_text=of_text, late=late)
    return candidate(arm, own, **settings)

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
  if name in _STORES:
    calibration = functools.partial(_empty_store, name, config, target)
    given = dict(size=drafter.size)
    return [whole(drafter, drafter.size, given, late=drafter, calibration=calibration)]
  if name == "draft":
    shaped, sizes, alone = ShapedChain(drafter.model, max(_CHAIN_SIZES)), _CHAIN_SIZES, _chain
  else:
    children = min(4, target.model.config.vocab_size)
    shaped = ShapedTree(drafter.model, max(_TREE_SIZES), 6, children)
    sizes, alone = _TREE_SIZES, _tree
  arm = Arm(name, Speculative(shaped, config["verifier"]), sizes, shaped)
  return [candidate(arm, alone=functools.partial(alone, drafter))]


def _chain(drafter: ModelChain, one: PlannedRound) -> ModelChain:
  return ModelChain(drafter.model, one.topology.height)


def _tree(drafter: ModelTree, one: PlannedRound) -> ModelTree:
  return ModelTree(drafter.model, one.topology)


def _label(name: str, config: Mapping[str, Any], arm: Arm) -> str:
  """Returns the drafter with what changes its drafts: of a planned shape, the sizes alone."""
  own = {} if arm.shaped else dict(config.get("drafter", {}))
  own.pop("store", None)
  words = [f"{field}={value}" for field, value in sorted(own.items())]
  return " ".join([name, *words, "sizes", ",".join(map(str, arm.sizes))])


def _empty_store(name: str, config: Mapping[str, Any], target: TextModel) -> tuple[PyTree, Any]:
  """Returns the handle of an empty store with the settings of the config, and the store."""
  store, settings = _STORES[name]
  known = settings.__dataclass_fields__
  fields = {field: value for field, value in config["drafter"].items() if field in known}
  made = store(target.model.config.vocab_size, target.tokenizer.fingerprint(), settings(**fields))
  return made.handle, made

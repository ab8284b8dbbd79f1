"""Configs that ask for a plan of this machine, and the plan of a config."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from mtjax import hosts
from mtjax.arguments import texts as text_list
from mtjax.decode.method import Method
from mtjax.planning.auto import ONCE, AutoPlan, check_measure, plan_candidates
from mtjax.planning.calibration import PlanRequest, check_on_devices
from mtjax.planning.candidate import PlanCandidate
from mtjax.planning.store import PlanStore
from mtjax.planning.texts import BUNDLED_TEXTS, Texts, check_texts, read_texts
from mtjax.registry.candidates import OF_PLANNED_SHAPE, PLANNABLE, MadeDrafters, candidates_of
from mtjax.registry.methods import DRAFTERS, drafter_settings
from mtjax.sampling.canonical import canonical_sampling
from mtjax.sampling.logits import Sampling
from mtjax.sharding import padded_rows
from mtjax.text import TextModel

ALL = "all"


def plan_settings() -> dict[str, Any]:
  """Returns the settings of a plan with their defaults, as configs have them."""
  return dict(
    context=256,  # tokens per row that times are measured at
    seconds=60.0,  # for measuring, at most, after the compilation
    folder="",  # of profiles and plans; "": $MTJAX_PLANS, or mtjax/plans in the user's cache
    texts=(),  # files to calibrate with, as ("code=code.jsonl", "prose=book.txt"); (): bundled ones
    measure=ONCE,  # "once": what is stored is used; "again": it is measured anew and replaced
  )


def adaptive_settings() -> dict[str, Any]:
  """Returns the settings of `auto` with one drafter: the fields of `mtjax.decode.Adaptive`."""
  # cost: of a whole round, in rounds of plain decoding. With 0 the costs of all sizes of rounds are
  # measured before the first token.
  return dict(cost=0.0, patience=16, memory=0.1, hope=1.1)


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


def check_plan(config: Mapping[str, Any]) -> None:
  """Raises ValueError for settings of a plan that cannot be, or that it would not read.

  It needs no model. Does nothing for a config without a plan.
  """
  if config["method"] == "ar" or not wants_plan(config):
    return
  check_measure(config.get("plan", {}).get("measure", ONCE))
  check_drafter_settings(config)


def check_drafter_settings(config: Mapping[str, Any], given: Collection[str] = ()) -> None:
  """Raises ValueError for settings of a drafter that the plan of a config would not read.

  They are those that differ from their defaults, and those of `given`, which the user has named.
  """
  own = config.get("drafter", {})
  if config["method"] == "auto":
    # The config may have been that of any single drafter before several were named.
    changed = (_changed(own, drafter_settings(name)) for name in DRAFTERS)
    unread = min(changed, key=len) + _changed(config.get("adaptive", {}), adaptive_settings())
    if unread:
      raise ValueError(
        f"auto with several drafters takes the default settings of each, so {_named(unread)} would "
        'do nothing: leave it out, or plan with one drafter and its settings, such as "lookup" '
        'with tree="auto"'
      )
  elif (name := config["method"]) in OF_PLANNED_SHAPE:
    known = drafter_settings(name)
    changed = _changed(own, known)
    unread = [field for field in known if field in given or field in changed]
    if unread:
      raise ValueError(
        f'{name} with tree="auto" drafts with the shapes that the plan chooses, so '
        f'{_named(unread)} would do nothing: leave it out, or leave tree="auto" out'
      )


def _changed(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
  """Returns the names of settings that the defaults lack or have with another value."""
  # A tuple of a config may come as a list.
  values = {name: tuple(one) if isinstance(one, list) else one for name, one in given.items()}
  return [name for name, one in values.items() if name not in defaults or defaults[name] != one]


def _named(settings: Sequence[str]) -> str:
  return f"the setting{'s' * (len(settings) > 1)} {' and '.join(settings)}"


def make_planned(
  config: Mapping[str, Any],
  target: TextModel,
  batch: int = 1,
  drafters: MadeDrafters | None = None,
) -> tuple[Method, PyTree]:
  """Returns the method that decodes by a plan for this machine, and its parameters.

  drafters: as `find_plan` takes them. Raises ValueError as `find_plan` does.
  """
  return find_plan(config, target, batch, drafters).made()


def planned_rows(batch: int, target: TextModel) -> int:
  """Returns the rows that a plan is made for, so that batches of similar sizes share one plan.

  They are the fewest that hold the batch, of all powers of two, each filled up to a number that the
  data axis of the target's mesh divides. A batch of exactly so many rows has the same plan.
  """
  size = 1
  while padded_rows(size, target.mesh) < batch:
    size *= 2
  return padded_rows(size, target.mesh)


def find_plan(
  config: Mapping[str, Any],
  target: TextModel,
  batch: int = 1,
  drafters: MadeDrafters | None = None,
) -> AutoPlan:
  """Returns the plan of a config for this machine, measured or stored.

  The plan is for as many rows as `planned_rows` says. Of all drafters those that do not fit the
  target are left out, and named. So are stores on the host, where several processes share the
  target's mesh. One that was asked for by name is refused. drafters: those that other plans of this
  target and config have made, which this plan uses too, and adds to. A store then goes on learning.
  Raises ValueError as its drafters' entries do, and for settings that would do nothing.
  """
  settings = {**plan_settings(), **config.get("plan", {})}
  check_plan(config)
  texts = plan_texts(settings["texts"])
  drafters = {} if drafters is None else drafters
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
      found = candidates_of(name, own, target, drafters)
      if hosts.is_shared(target.mesh):
        check_on_devices(found)
      candidates += found
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
    texts=texts,
    seconds=settings["seconds"],
    measure=settings["measure"],
  )


def planned_config(
  config: Mapping[str, Any], target: TextModel, sampling: Sampling | None, tokens: int
) -> dict[str, Any]:
  """Returns the config of a plan for a request.

  sampling: of the request; None: that of the config; of values per row the first one counts.
  tokens: of its longest row; above the context of the config, the plan is of the next power of two,
  or of all positions of the model. Raises ValueError for more tokens than positions.
  """
  settings = {**plan_settings(), **config.get("plan", {})}
  longest = target.model.config.max_position
  if tokens > longest:
    raise ValueError(
      f"a row of {tokens} tokens, prompt and new ones, is longer than the model's {longest} "
      "positions: give a shorter prompt, or write fewer tokens"
    )
  if tokens > settings["context"]:
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
  and `check_texts` do.
  """
  if isinstance(given, Mapping):
    texts: Texts = {domain: tuple(text_list(prompts)) for domain, prompts in given.items()}
  else:
    named = [one.partition("=") for one in text_list(given)]
    for domain, _, path in named:
      if not path:
        raise ValueError(f'texts to calibrate with are named as "code=FILE", got {domain!r}')
    texts = read_texts({domain: path for domain, _, path in named}) if named else BUNDLED_TEXTS
  check_texts(texts)
  return texts


def config_sampling(config: Mapping[str, Any]) -> Sampling | None:
  """Returns the settings that a config samples by (`canonical_sampling`)."""
  names = [field.name for field in dataclasses.fields(Sampling)]
  return canonical_sampling(Sampling(**{name: config[name] for name in names if name in config}))

"""Methods of decoding in one line: `mtjax.method("lookup", length=8)`."""

import weakref
from collections.abc import Mapping
from typing import Any

from mtjax.decode.method import Method
from mtjax.display.short import clipped
from mtjax.models import Model, Params
from mtjax.planning.auto import check_measure
from mtjax.registry.auto import (
  check_drafter_settings,
  config_sampling,
  make_planned,
  names_of,
  planned_config,
  planned_rows,
  wants_plan,
)
from mtjax.registry.build import make_method
from mtjax.registry.candidates import MadeDrafters
from mtjax.registry.configs import decode_config
from mtjax.registry.drafters import check_settings
from mtjax.registry.methods import check_method, get_drafter
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from mtjax.verify import get_verifier


class NamedMethod:
  """A registered method with its settings, for any target: `TextModel.generate` takes it.

  What depends on the target (a draft model's vocabulary, a trie's store, the cost that `auto`
  measures) is made when the first target is bound, and kept while that target is used: a trie goes
  on learning from call to call, also where calls have different plans.
  """

  def __init__(self, config: Mapping[str, Any], settings: Mapping[str, Any]):
    self._config, self._settings = dict(config), dict(settings)
    self._target: weakref.ref[TextModel] | None = None
    self._bound: dict[tuple, tuple[Method, Params | None]] = {}  # by what a plan is for
    self._drafters: MadeDrafters = {}  # that all plans of this target share
    self._planned = config["method"] != "ar" and wants_plan(config)

  @property
  def name(self) -> str:
    """The name of the method in the registry."""
    return self._config["method"]

  def __repr__(self) -> str:
    given = (f", {name}={clipped(repr(value))}" for name, value in self._settings.items())
    return f"mtjax.method({self.name!r}{''.join(given)})"

  def bind(
    self, target: TextModel, *, rows: int = 1, sampling: Sampling | None = None, tokens: int = 0
  ) -> tuple[Method, Params | None]:
    """Returns the method for this target, and its parameters, as `mtjax.decode.generate` takes.

    rows: of the batch. sampling: of the request. tokens: of the longest row, prompt and new ones.
    There is a plan of its own for each power of two of rows, each sampling, and, above the context
    of the settings, each power of two of tokens. Raises ValueError for settings out of range, and
    for a draft model whose vocabulary is not the target's.
    """
    if self._target is None or self._target() is not target:
      self._bound, self._drafters, self._target = {}, {}, weakref.ref(target)
    if not self._planned:
      if () not in self._bound:
        self._bound[()] = make_method(self._config, target, batch=rows)
      return self._bound[()]
    rows = planned_rows(rows, target)
    config = planned_config(self._config, target, sampling, tokens)
    key = rows, repr(config_sampling(config)), config["plan"]["context"]
    if key not in self._bound:
      self._bound[key] = make_planned(config, target, rows, self._drafters)
    return self._bound[key]

  def check(self, model: Model) -> None:
    """Refuses `mtjax.decode.generate`, which has no tokenizer to bind the method with."""
    raise ValueError(
      f"{self!r} is not bound to a target yet: give it to TextModel.generate, or use both results "
      "of its bind(text_model) as method and method_params"
    )


def method(name: str, **settings: Any) -> NamedMethod:
  """Returns a registered method of decoding with its settings as keywords.

  Names are those of docs/methods.md, the settings those of its config: the drafter's own ones,
  `verifier`, and for a draft model `draft_model` (a name as `mtjax.load` takes it, or a TextModel)
  and `weights`, the format of its weights. `auto` also takes `of`, the drafter that it uses, with
  that drafter's settings. Several drafters, as of="lookup,suffix,draft" or of="all", compete: what
  pays on this machine is measured once, stored, and followed while the program runs
  (docs/guides/plan.md), as is the tree of one drafter with tree="auto". What is not given has the
  default of the config.

  Example: `model.generate(prompts, method=mtjax.method("lookup", length=8))`.

  Raises ValueError, with the known ones, for another name or setting.
  """
  check_method(name)
  drafter = settings.get("of", "lookup") if name == "auto" else name
  if not isinstance(drafter, str):
    drafter = settings["of"] = ",".join(drafter)
  config = decode_config(name, of=drafter).to_dict()
  known = {field: config for field in _own_fields(name, drafter)}
  for place in ("adaptive", "drafter", "plan"):
    known |= dict.fromkeys(config.get(place, ()), config.get(place))
  if "tree" in config:
    known["tree"] = config
  check_settings(f"method, {name},", settings, known)
  if "verifier" in settings:
    get_verifier(settings["verifier"])
  for field, value in settings.items():
    known[field][field] = value
  if name != "ar" and wants_plan(config):
    check_drafter_settings(config, settings)
    check_measure(config["plan"]["measure"])
  return NamedMethod(config, settings)


def _own_fields(name: str, drafter: str) -> tuple[str, ...]:
  """Returns the fields of the config itself that the method reads, besides the shared ones."""
  if name == "ar":
    return ()
  if name == "auto" and len(names_of(drafter)) > 1:
    return ("verifier", "draft_model", "weights", "of")
  return ("verifier", *get_drafter(drafter).reads, *(("of",) if name == "auto" else ()))

"""Builders of drafters from configs, for the rows of `mtjax.registry.methods`."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxtyping import PyTree

from mtjax.draft import Drafter, Trie, in_vocabulary
from mtjax.draft.model.cross_vocabulary import check_model
from mtjax.draft.model.reencoding import translator
from mtjax.draft.model_free.trie_store import open_store
from mtjax.text import TextModel

# (config of configs/decode, target) -> the drafter and its parameters.
Build = Callable[[Mapping[str, Any], TextModel], tuple[Drafter, PyTree]]


@dataclasses.dataclass(frozen=True)
class Entry:
  """A drafter by name: its settings with their defaults, and how a config becomes one.

  A setting that config.drafter lacks has its default: the one in the drafter's own signature, so
  that configs, launchers and Python agree. Raises ValueError for an unknown setting.
  """

  settings: Mapping[str, Any]
  build: Build

  def __call__(self, config: Mapping[str, Any], target: TextModel) -> tuple[Drafter, PyTree]:
    check_settings("drafter", config.get("drafter", {}), self.settings)
    return self.build(config, target)


def check_settings(family: str, given: Iterable[str], known: Iterable[str]) -> None:
  """Raises ValueError, with the settings that there are, for one that there is not."""
  known = list(known)
  if unknown := [name for name in given if name not in known]:
    raise ValueError(
      f"this {family} has no setting {' and '.join(unknown)}; it has: {', '.join(known) or 'none'}"
    )


def defaults(*made: Callable[..., Any]) -> dict[str, Any]:
  """Returns the parameters of each that have a default, with their defaults."""
  parameters = [p for each in made for p in inspect.signature(each).parameters.values()]
  return {p.name: p.default for p in parameters if p.default is not p.empty}


def of_settings(drafter: Callable[..., Drafter]) -> Entry:
  """A drafter that is made of config.drafter alone."""
  return Entry(defaults(drafter), lambda config, target: (drafter(**_fields(config)), None))


def of_vocabulary(drafter: Callable[..., Drafter]) -> Entry:
  """A drafter that takes the size of the target's vocabulary first, then config.drafter."""

  def build(config, target):
    return drafter(target.model.config.vocab_size, **_fields(config)), None

  return Entry(defaults(drafter), build)


def with_draft_model(drafter: Callable[..., Drafter]) -> Entry:
  """A drafter that takes a model first: config.draft_model, of the target's tokenizer.

  Where the two have other numbers of rows, the model is put `in_vocabulary` of the target.
  """

  def build(config, target):
    from mtjax.pretrained import load_pretrained, weights_for_decoding

    draft = load_pretrained(config["draft_model"])
    check_vocabulary(draft, target, config["draft_model"])
    params = weights_for_decoding(draft.params, config["weights"])
    rows, tokens = target.model.config.vocab_size, target.tokenizer.vocab_size
    model = in_vocabulary(draft.model, rows=rows, tokens=tokens)
    return drafter(model, **_fields(config)), params

  return Entry(defaults(drafter), build)


def with_store(store: Callable[..., Any], settings: Callable[..., Any]) -> Entry:
  """`Trie` with a store of its own, kept in the file config.drafter.store from run to run.

  "" is an empty store, which ends with the process.
  """
  of_drafter = defaults(Trie)

  def build(config, target):
    fields = _fields(config)
    path = fields.pop("store", "")
    drafter = Trie(**{name: fields.pop(name) for name in of_drafter if name in fields})
    vocabulary = target.tokenizer.fingerprint()
    made = store(target.model.config.vocab_size, vocabulary, settings(**fields))
    return drafter, open_store(path, made).handle

  return Entry(defaults(Trie, settings) | dict(store=""), build)


def with_target(drafter: Callable[..., Drafter]) -> Entry:
  """A drafter that runs the target itself: takes its model first, and its parameters."""

  def build(config, target):
    return drafter(target.model, **_fields(config)), target.params

  return Entry(defaults(drafter), build)


def with_other_vocabulary(drafter: Callable[..., Drafter]) -> Entry:
  """A drafter that takes config.draft_model, which has a tokenizer of its own, and a translator."""
  of_translator = defaults(translator)

  def build(config, target):
    from mtjax.pretrained import load_pretrained, weights_for_decoding

    fields = _fields(config)
    between = {name: fields.pop(name) for name in of_translator if name in fields}
    draft = load_pretrained(config["draft_model"])
    size, tokens = draft.model.config.vocab_size, draft.tokenizer.vocab_size
    check_model(draft.model, tokens)
    handle = translator(target.tokenizer, draft.tokenizer, **between).handle
    params = weights_for_decoding(draft.params, config["weights"])
    model = in_vocabulary(draft.model, rows=size, tokens=tokens)
    return drafter(model, **fields), (params, handle)

  return Entry(defaults(drafter, translator), build)


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
  return dict(config.get("drafter", {}))


def check_vocabulary(draft: TextModel, target: TextModel, name: str) -> None:
  """Raises ValueError unless the two have one tokenizer."""
  if draft.tokenizer.fingerprint() != target.tokenizer.fingerprint():
    raise ValueError(
      f"the draft model {name!r} has another vocabulary than the target: tokens of one mean "
      "nothing to the other; cross_vocabulary is the drafter for such a pair"
    )

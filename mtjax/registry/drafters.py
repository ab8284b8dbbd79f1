"""Entries that make a drafter from a config, for the rows of `mtjax.registry.methods`."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxtyping import PyTree

from mtjax.data.trimmed import TrimmedTokenizer
from mtjax.diffusion.texts import network_of
from mtjax.draft import Drafter, InVocabulary, Trie, TrimmedVocabulary, in_vocabulary
from mtjax.draft.model.cross_vocabulary import check_model
from mtjax.draft.model.reencoding import translator
from mtjax.draft.model_free.trie_store import open_store
from mtjax.models import Model
from mtjax.text import TextModel

# (config of configs/decode, target) -> the drafter and its parameters.
Build = Callable[[Mapping[str, Any], TextModel], tuple[Drafter, PyTree]]


_OF_DRAFT_MODEL = ("draft_model", "weights")


@dataclasses.dataclass(frozen=True)
class Entry:
  """A drafter by name: its settings with their defaults, and a function that makes it.

  A setting that config.drafter lacks has the default of the drafter's own signature, so that
  configs, launchers and Python agree. Raises ValueError for a setting that the drafter lacks.
  """

  settings: Mapping[str, Any]
  build: Build
  reads: tuple[str, ...] = ()  # fields of the config itself that `build` reads

  def __call__(self, config: Mapping[str, Any], target: TextModel) -> tuple[Drafter, PyTree]:
    check_settings("drafter", config.get("drafter", {}), self.settings)
    return self.build(config, target)


def check_settings(family: str, names: Iterable[str], known: Iterable[str]) -> None:
  """Raises ValueError, with the known settings, for a name that is not among them."""
  known = list(known)
  if unknown := [name for name in names if name not in known]:
    raise ValueError(
      f"this {family} has no setting {' and '.join(unknown)}; it has: {', '.join(known) or 'none'}"
    )


def defaults(*made: Callable[..., Any]) -> dict[str, Any]:
  """Returns the parameters of all classes or functions that have a default, with the defaults."""
  parameters = [p for each in made for p in inspect.signature(each).parameters.values()]
  return {p.name: p.default for p in parameters if p.default is not p.empty}


def of_settings(drafter: Callable[..., Drafter]) -> Entry:
  """Returns the entry of a drafter that is made from config.drafter alone."""
  return Entry(defaults(drafter), lambda config, target: (drafter(**_fields(config)), None))


def of_vocabulary(drafter: Callable[..., Drafter]) -> Entry:
  """Returns the entry of a drafter that takes the size of the target's vocabulary first."""

  def build(config, target):
    return drafter(target.model.config.vocab_size, **_fields(config)), None

  return Entry(defaults(drafter), build)


def with_draft_model(drafter: Callable[..., Drafter]) -> Entry:
  """Returns the entry of a drafter that takes a model first: config.draft_model.

  The model must have the target's tokenizer. If their embedding tables differ in rows, the model is
  put `in_vocabulary` of the target; a model of some of its tokens becomes a `TrimmedVocabulary`.
  """

  def build(config, target):
    draft = _draft_model(config, target)
    check_vocabulary(draft, target, draft.name)
    return drafter(_for_target(draft, target), **_fields(config)), draft.params

  return Entry(defaults(drafter), build, reads=_OF_DRAFT_MODEL)


def _for_target(draft: TextModel, target: TextModel) -> Model | InVocabulary | TrimmedVocabulary:
  rows, tokens = target.model.config.vocab_size, target.tokenizer.vocab_size
  if not isinstance(draft.tokenizer, TrimmedTokenizer):
    return in_vocabulary(draft.model, rows=rows, tokens=tokens)
  try:
    return TrimmedVocabulary(draft.model, rows, draft.tokenizer.ids)
  except ValueError as error:
    raise ValueError(f"the draft model {draft.name!r}: {error}") from None


def with_masked_model(drafter: Callable[..., Drafter]) -> Entry:
  """Returns the entry of a drafter that takes a masked model first: config.draft_model.

  The model must have the target's tokenizer, and ids as many.
  """

  def build(config, target):
    draft = _draft_model(config, target)
    check_vocabulary(draft, target, draft.name)
    network_of(draft)  # it names the model that it refuses
    return drafter(draft.model, **_fields(config)), draft.params

  return Entry(defaults(drafter), build, reads=_OF_DRAFT_MODEL)


def with_store(
  store: Callable[..., Any], settings: Callable[..., Any], drafter: type[Trie] = Trie
) -> Entry:
  """Returns the entry of a `Trie` with its own store, kept in the file config.drafter.store.

  "" is an empty store, which ends with the process.
  """
  of_drafter = defaults(drafter)

  def build(config, target):
    fields = _fields(config)
    path = fields.pop("store", "")
    made = drafter(**{name: fields.pop(name) for name in of_drafter if name in fields})
    vocabulary = target.tokenizer.fingerprint()
    empty = store(target.model.config.vocab_size, vocabulary, settings(**fields))
    return made, open_store(path, empty).handle

  return Entry(defaults(drafter, settings) | dict(store=""), build)


def with_target(drafter: Callable[..., Drafter]) -> Entry:
  """Returns the entry of a drafter that runs the target itself, with the target's parameters."""

  def build(config, target):
    return drafter(target.model, **_fields(config)), target.params

  return Entry(defaults(drafter), build)


def with_other_vocabulary(drafter: Callable[..., Drafter]) -> Entry:
  """Returns the entry of a drafter whose config.draft_model has another tokenizer.

  The drafter gets a translator between the two.
  """
  of_translator = defaults(translator)

  def build(config, target):
    fields = _fields(config)
    between = {name: fields.pop(name) for name in of_translator if name in fields}
    draft = _draft_model(config, target)
    if isinstance(draft.tokenizer, TrimmedTokenizer):
      raise ValueError(
        f"the draft model {draft.name!r} has some tokens of one tokenizer (a trimmed vocabulary): "
        "it drafts for models of that tokenizer, with draft, draft_tree and others"
      )
    rows, tokens = draft.model.config.vocab_size, draft.tokenizer.vocab_size
    check_model(draft.model, tokens)
    handle = translator(target.tokenizer, draft.tokenizer, **between).handle
    model = in_vocabulary(draft.model, rows=rows, tokens=tokens)
    return drafter(model, **fields), (draft.params, handle)

  return Entry(defaults(drafter, translator), build, reads=_OF_DRAFT_MODEL)


def _fields(config: Mapping[str, Any]) -> dict[str, Any]:
  return dict(config.get("drafter", {}))


def _draft_model(config: Mapping[str, Any], target: TextModel) -> TextModel:
  """Returns config.draft_model, a name or a TextModel, with its weights as config.weights says.

  It is on the mesh of the target.
  """
  from mtjax.pretrained import for_decoding, load_pretrained

  draft = config["draft_model"]
  if not isinstance(draft, TextModel):
    draft = load_pretrained(draft, mesh=target.mesh)
  draft = draft.on_mesh(target.mesh)
  if draft.mesh != target.mesh:
    raise ValueError(
      f"the draft model {draft.name!r} is on a mesh and its target is not: load both with one mesh"
    )
  return for_decoding(draft, config["weights"])


def check_vocabulary(draft: TextModel, target: TextModel, name: str) -> None:
  """Raises ValueError unless the two have the same tokenizer, or the draft model some of it."""
  tokenizer = draft.tokenizer
  whole = tokenizer.whole if isinstance(tokenizer, TrimmedTokenizer) else tokenizer
  if whole.fingerprint() != target.tokenizer.fingerprint():
    raise ValueError(
      f"the draft model {name!r} has another vocabulary than the target, so neither understands "
      "tokens of the other: the drafter cross_vocabulary is for such a pair"
    )

"""What a tokenizer is made from: a tokenizer.json and the files beside it, or another format."""

import codecs
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mtjax.data.chat import read_template
from mtjax.data.sources.text_files import read_object
from mtjax.data.special_tokens import DeclaredToken, read_special_tokens

if TYPE_CHECKING:
  import tokenizers

# The files of a tokenizer in the folder of a model.
FILES = (
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "vocabulary.json",
)


class TokenizerSource(Protocol):
  """A tokenizer of the `tokenizers` library, and what that library does not know about it."""

  @property
  def file(self) -> Path:
    """The file that errors name."""
    ...

  @property
  def named(self) -> Mapping[str, str]:
    """The special tokens by name ("bos_token" and others), as chat templates see them."""
    ...

  @property
  def end_ids(self) -> Sequence[int]:
    """The ids that end a generated text, besides the token named "eos_token"."""
    ...

  def build(self) -> "tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]":
    """Returns the tokenizer twice, so that one can be set to recognise no special token."""
    ...

  def settings(self) -> dict[str, Any]:
    """Returns the content of a tokenizer.json."""
    ...

  def fingerprint(self) -> str:
    """Returns a hash that differs for tokenizers that give different ids."""
    ...

  def template(self, *, has_tools: bool) -> tuple[Path, str]:
    """Returns the chat template and the file it is in. Raises FileNotFoundError without one."""
    ...

  def files(self) -> dict[str, bytes]:
    """Returns files of FILES, by name, from which transformers makes the same tokenizer."""
    ...


class TokenizerFolder:
  """A tokenizer.json with what the files beside it declare (see `read_special_tokens`).

  Raises FileNotFoundError, and ValueError that names the file for one that cannot be read, and for
  an added token that would get another id than its file says.
  """

  def __init__(self, file: Path):
    if not file.is_file():
      raise FileNotFoundError(f"there is no tokenizer {str(file)!r}")
    self.file = file
    self._content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    special = read_special_tokens(file.parent)
    self.named, self._declared = special.named, special.declared
    # What `build` has added; without such tokens the hash is that of tokenizer.json.
    self._added: list[DeclaredToken] = []

  @functools.cached_property
  def end_ids(self) -> tuple[int, ...]:
    names = ("generation_config.json", "config.json")
    return tuple(i for name in names for i in _end_ids(self.file.parent / name))

  def build(self) -> "tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]":
    import tokenizers

    try:
      one = tokenizers.Tokenizer.from_buffer(self._content)
      other = tokenizers.Tokenizer.from_buffer(self._content)
    except Exception as error:
      raise ValueError(
        f"{str(self.file)!r} is no file of the tokenizers library: {error}"
      ) from None
    for each in (one, other):
      # A file may switch on padding or truncation, which would change the tokens.
      each.no_padding()
      each.no_truncation()
    self._added = self._add(one, other)
    return one, other

  def settings(self) -> dict[str, Any]:
    return json.loads(self._content)

  def fingerprint(self) -> str:
    content = self._content
    for token in self._added:
      content += repr((token.content, sorted(token.flags.items()))).encode()
    return hashlib.sha256(content).hexdigest()

  def template(self, *, has_tools: bool) -> tuple[Path, str]:
    return read_template(self.file.parent, has_tools=has_tools)

  def files(self) -> dict[str, bytes]:
    others = {name: self.file.parent / name for name in FILES[1:]}
    return {FILES[0]: self.file.read_bytes()} | {
      name: file.read_bytes() for name, file in others.items() if file.is_file()
    }

  def _add(self, one: "tokenizers.Tokenizer", other: "tokenizers.Tokenizer") -> list[DeclaredToken]:
    """Adds the declared tokens that are no added tokens of tokenizer.json, and returns them."""
    import tokenizers

    known = {token.content for token in one.get_added_tokens_decoder().values()}
    added = []
    for token in self._declared:
      if not token.content or token.content in known:
        continue
      before = one.token_to_id(token.content)
      for each in (one, other):
        each.add_tokens([tokenizers.AddedToken(token.content, **token.flags)])
      index = one.token_to_id(token.content)
      if before is None and token.id not in (None, index):
        raise ValueError(
          f"{token.file} says that {token.content!r} is token {token.id}; added to "
          f"{str(self.file)!r}, it is token {index}: one of the two files is of another model"
        )
      known.add(token.content)
      added.append(token)
    return added


def _end_ids(file: Path) -> list[int]:
  """Returns the end tokens in a model's file; a number below 0 means none."""
  value = read_object(file).get("eos_token_id")
  ids = value if isinstance(value, list) else [] if value is None else [value]
  if not all(type(each) is int for each in ids):
    raise ValueError(f"{file}: eos_token_id must be an id or a list of ids, got {value!r:.80}")
  return [each for each in ids if each >= 0]

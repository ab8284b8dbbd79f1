"""The tokenizer that a GGUF file describes, for the `tokenizers` library."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtjax.data.gguf import byte_level, sentencepiece
from mtjax.data.gguf.header import read_header
from mtjax.data.gguf.tokens import (
  CONTROL,
  UNKNOWN,
  USER_DEFINED,
  read_ends,
  read_roles,
  read_tokens,
)

if TYPE_CHECKING:
  import tokenizers

# tokenizer.ggml.model -> ids of roles that a file need not name (llama_vocab::impl::load).
_MODELS: dict[str, Mapping[str, int]] = {
  "gpt2": {},
  "llama": dict(bos_token=1, eos_token=2, unk_token=0),
}
_TEMPLATE = "tokenizer.chat_template"


class GgufVocabulary:
  """A source of a tokenizer (see `mtjax.data.tokenizer_source.TokenizerSource`).

  Token ids are those of llama.cpp (llama-vocab.cpp) with parse_special for prompts, and without it
  for documents. Raises ValueError that names the file and the key for a kind of tokenizer that is
  not known, and for a damaged one.
  """

  def __init__(self, file: Path):
    self.file = file
    self._header = read_header(file)
    self._kind = self._header.text("tokenizer.ggml.model")
    if self._kind not in _MODELS:
      raise ValueError(
        f"tokenizer.ggml.model of {file} is {self._kind!r:.40}, which is not known; known: "
        f"{', '.join(_MODELS)}"
      )
    self._tokens = read_tokens(self._header)
    self.named = read_roles(self._header, self._tokens, _MODELS[self._kind])
    self.end_ids = read_ends(self._header, self._tokens)

  def build(self) -> "tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]":
    import tokenizers

    if self._kind == "gpt2":
      split = byte_level.read_split(self._header)
      model = byte_level.model(self._header, self._tokens, split)
      configure = functools.partial(byte_level.configure, split=split)
      begins = split.begins
    else:
      model = sentencepiece.model(self._header, self._tokens, self.named)
      configure = functools.partial(sentencepiece.configure, header=self._header)
      begins = True
    surround = self._surround(begins)
    # Both share the vocabulary and merges, which do not change.
    one, other = tokenizers.Tokenizer(model), tokenizers.Tokenizer(model)
    for each in (one, other):
      configure(each)
      self._add(each)
      if surround is not None:
        each.post_processor = surround
    return one, other

  def settings(self) -> dict[str, Any]:
    return json.loads(self._content)

  def fingerprint(self) -> str:
    return hashlib.sha256(self._content.encode()).hexdigest()

  def template(self, *, has_tools: bool) -> tuple[Path, str]:
    header = self._header
    # As in a folder: with tools, the template of that name.
    names = [f"{_TEMPLATE}.tool_use", _TEMPLATE] if has_tools else [_TEMPLATE]
    name = next((name for name in names if name in header.values), None)
    if name is None:
      raise FileNotFoundError(f"{str(self.file)!r} has no chat template: give the model plain text")
    return self.file, header.text(name)

  def files(self) -> dict[str, bytes]:
    config: dict[str, Any] = dict(
      tokenizer_class="PreTrainedTokenizerFast",
      **self.named,
      clean_up_tokenization_spaces=False,
    )
    templates = [("default", _TEMPLATE), ("tool_use", f"{_TEMPLATE}.tool_use")]
    found = [(name, key) for name, key in templates if key in self._header.values]
    if len(found) == 1:
      config["chat_template"] = self._header.text(found[0][1])
    elif found:
      config["chat_template"] = [
        dict(name=name, template=self._header.text(key)) for name, key in found
      ]
    contents = {
      "tokenizer.json": self._content,
      "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=2),
    }
    return {name: content.encode() for name, content in contents.items()}

  @functools.cached_property
  def _content(self) -> str:
    return self.build()[0].to_str()

  def _add(self, tokenizer: "tokenizers.Tokenizer") -> None:
    """Adds the tokens that are found in a text before anything is merged."""
    import tokenizers

    def added(*kinds, special):
      return [
        tokenizers.AddedToken(self._tokens.texts[index], normalized=False, special=special)
        for index in self._tokens.of_kind(*kinds)
      ]

    tokenizer.add_special_tokens(added(CONTROL, UNKNOWN, special=True))
    tokenizer.add_tokens(added(USER_DEFINED, special=False))

  def _surround(self, begins: bool) -> "tokenizers.processors.TemplateProcessing | None":
    """Returns what puts the begin and end token around a prompt, or None."""
    from tokenizers import processors

    def edge(role, flag, otherwise):
      if not self._header.flag(flag, otherwise):
        return []
      if role not in self.named:
        raise ValueError(f"{flag} of {self.file} is true, but no token is the {role}")
      return [role]

    first = edge("bos_token", "tokenizer.ggml.add_bos_token", begins)
    last = edge("eos_token", "tokenizer.ggml.add_eos_token", False)
    if not first and not last:
      return None
    return processors.TemplateProcessing(
      single=[*first, "$A", *last],
      pair=[*first, "$A", *last, *(f"{x}:1" for x in first), "$B:1", *(f"{x}:1" for x in last)],
      special_tokens=[
        dict(id=role, ids=[self._tokens.ids[self.named[role]]], tokens=[self.named[role]])
        for role in (*first, *last)
      ],
    )

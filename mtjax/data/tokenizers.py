"""Tokenizers: bytes, the bundled BPE, and those of imported models."""

import functools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mtjax import arguments
from mtjax.data import token_bytes as token_bytes_lib
from mtjax.data.chat import render_template
from mtjax.data.gguf.files import gguf_in, is_gguf
from mtjax.data.gguf.vocabulary import GgufVocabulary
from mtjax.data.hub import local_folder
from mtjax.data.sources.text_files import whole_text
from mtjax.data.tokenizer_source import TokenizerFolder, TokenizerSource

# Usual names of the end token, for tokenizers without a file that names it.
_USUAL_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>")


@runtime_checkable
class Tokenizer(Protocol):
  """A tokenizer as data and generation need it; ids are 0 .. vocab_size - 1."""

  vocab_size: int
  bos_id: int  # begins a document; eos_id if the vocabulary has no begin token
  eos_id: int  # ends a document
  eos_ids: tuple[int, ...]  # all ids that end a generated text, including eos_id
  pad_id: int
  mask_token: str | None  # spelling of the token for missing text; None: there is none

  def encode(self, text: str) -> list[int]:
    """Returns the tokens of a prompt; special tokens that it spells become those tokens."""
    ...

  def encode_documents(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
    """Returns the tokens of plain texts: no special token is added or recognised."""
    ...

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text without special tokens; bytes that are no UTF-8 become U+FFFD."""
    ...

  def token_bytes(self) -> list[bytes]:
    """Returns the bytes of each id in running text; special tokens have none."""
    ...

  def special_tokens(self) -> dict[str, int]:
    """Returns {spelling: id} of the special tokens that `encode` recognises in prompts."""
    ...

  def fingerprint(self) -> str:
    """Returns a hash that differs for tokenizers that give different ids."""
    ...


class ByteTokenizer:
  """A tokenizer of UTF-8 bytes: ids 0 to 255, 256 to end and begin a document, 257 for padding."""

  vocab_size = 258
  bos_id = eos_id = 256
  eos_ids: tuple[int, ...] = (256,)
  pad_id = 257
  mask_token: str | None = None

  def encode(self, text: str) -> list[int]:
    return list(whole_text(text, "the prompt").encode())

  def encode_documents(self, texts: Sequence[str]) -> list[bytes]:
    return [whole_text(text, "a document").encode() for text in arguments.texts(texts)]

  def decode(self, ids: Sequence[int]) -> str:
    return bytes(i for i in ids if i < 256).decode("utf-8", "replace")

  def token_bytes(self) -> list[bytes]:
    return [bytes([i]) for i in range(256)] + [b"", b""]

  def special_tokens(self) -> dict[str, int]:
    return {}

  def fingerprint(self) -> str:
    return "bytes"


class BpeTokenizer:
  """A tokenizer of the `tokenizers` library, and what it does not know: ends, names, templates.

  `file` is a tokenizer.json, alone or in the folder of an imported model, or a GGUF file. Tokens
  that only the files beside a tokenizer.json declare are added as in transformers (see
  `mtjax.data.special_tokens.read_special_tokens`). Those files, or the GGUF's metadata, name the
  tokens of eos_id, bos_id and pad_id; eos_ids also has those of generation_config.json and
  config.json, or a usual name if no file names one. Without a begin or padding token, the end token
  is used for it.

  Raises FileNotFoundError, and ValueError that names the file for one that cannot be read, and for
  an added token that would get another id than its file says.
  """

  def __init__(self, file: str | Path):
    file = Path(file)
    self._source: TokenizerSource = GgufVocabulary(file) if is_gguf(file) else TokenizerFolder(file)
    self._prompts, self._text = self._source.build()
    self._text.encode_special_tokens = True
    self.file = file
    self._names = self._source.named
    self.vocab_size = max(self._text.get_vocab(with_added_tokens=True).values()) + 1
    self.eos_ids = self._ends()
    self.eos_id = self.eos_ids[0]
    bos, pad = (self._special(name) for name in ("bos", "pad"))
    self.bos_id = self.eos_id if bos is None else bos
    if pad is None:
      pad = self._text.token_to_id("<|pad|>")
    self.pad_id = self.eos_id if pad is None else pad
    self.mask_token = self._names.get("mask_token")

  @classmethod
  def bundled(cls) -> "BpeTokenizer":
    """Returns the tokenizer of the bundled models, made by experiments/train_tokenizer.py."""
    return cls(Path(str(resources.files("mtjax") / "assets" / "tokenizer.json")))

  def encode(self, text: str) -> list[int]:
    """Returns a prompt's tokens, with those that the model expects around it (a begin token)."""
    return self._prompts.encode(whole_text(text, "the prompt")).ids

  def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
    whole = [whole_text(text, "a document") for text in arguments.texts(texts)]
    codes = self._text.encode_batch_fast(whole, add_special_tokens=False)
    return [code.ids for code in codes]

  def encode_chat(self, messages: Sequence[dict[str, Any]], **variables: Any) -> list[int]:
    """Returns the tokens of a conversation in the model's template (see `apply_chat_template`)."""
    text = self.render_chat(messages, **variables)
    return self.encode_rendered(whole_text(text, "the conversation"))

  def render_chat(self, messages: Sequence[dict[str, Any]], **variables: Any) -> str:
    """Returns the text of a conversation in the model's template (see `apply_chat_template`)."""
    template = self._source.template(has_tools=variables.get("tools") is not None)
    return render_template(messages, template, self._names, **variables)

  def encode_rendered(self, text: str) -> list[int]:
    """Returns the tokens of a text that spells all its special tokens: none is added around it."""
    return self._prompts.encode(whole_text(text, "the prompt"), add_special_tokens=False).ids

  def chat_template(self) -> str:
    """Returns the source of the chat template. Raises FileNotFoundError without one."""
    return self._source.template(has_tools=False)[1]

  def decode(self, ids: Sequence[int]) -> str:
    return self._text.decode(list(map(int, ids)), skip_special_tokens=True)

  def token_bytes(self) -> list[bytes]:
    return list(self._token_bytes)

  def special_tokens(self) -> dict[str, int]:
    added = self._text.get_added_tokens_decoder()
    return {token.content: index for index, token in added.items() if token.special}

  def fingerprint(self) -> str:
    return self._source.fingerprint()

  def files(self) -> dict[str, bytes]:
    """Returns the files of a model's folder from which transformers makes the same tokenizer."""
    return self._source.files()

  @functools.cached_property
  def _token_bytes(self) -> tuple[bytes, ...]:
    return token_bytes_lib.token_bytes(self._source.settings(), self._text, self.vocab_size)

  def _ends(self) -> tuple[int, ...]:
    """Returns all ids that end a text, the tokenizer's own first."""
    eos = self._special("eos")
    ids = [*([] if eos is None else [eos]), *self._source.end_ids]
    ids = [i for i in dict.fromkeys(ids) if i < self.vocab_size]
    if not ids:
      ids = [i for i in map(self._text.token_to_id, _USUAL_ENDS) if i is not None][:1]
    if not ids:
      raise ValueError(
        f"no end token is known for {str(self._source.file)!r}: neither it nor a file beside it "
        f"names one, and none of {', '.join(_USUAL_ENDS)} is a token"
      )
    return tuple(ids)

  def _special(self, name: str) -> int | None:
    token = self._names.get(f"{name}_token")
    return None if token is None else self._text.token_to_id(token)


def pieces_of(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[bytes]:
  """Returns the bytes of each token in running text.

  A model may have more ids than its tokenizer: those have no bytes.
  """
  table = tokenizer.token_bytes()
  return [table[i] if i < len(table) else b"" for i in tokens]


def load_tokenizer(name: str | Path) -> Tokenizer:
  """Loads "bytes", "bundled", a tokenizer.json or GGUF file, a model's folder, or a hub id.

  A folder's tokenizer.json comes before a GGUF file in it. Hugging Face ids, owner/name or
  owner/name@revision, need mtjax[hf]. Raises ValueError or FileNotFoundError that names the missing
  file.
  """
  if name == "bytes":
    return ByteTokenizer()
  if name == "bundled":
    return BpeTokenizer.bundled()
  path = Path(name).expanduser()
  if path.is_file():
    return BpeTokenizer(path)
  folder = path if path.is_dir() else local_folder(str(name))
  file = folder / "tokenizer.json"
  if not file.is_file() and folder.parent == Path(str(resources.files("mtjax"))) / "assets/models":
    return BpeTokenizer.bundled()
  if not file.is_file() and (gguf := gguf_in(folder)) is not None:
    return BpeTokenizer(gguf)
  if not file.is_file():
    raise FileNotFoundError(
      f"{str(folder)!r} holds no tokenizer.json; one is written by transformers' "
      "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
    )
  return BpeTokenizer(file)

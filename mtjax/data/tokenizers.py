"""Tokenizers: bytes, the bundled BPE, and those of imported models."""

import codecs
import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mtjax import arguments
from mtjax.data import token_bytes as token_bytes_lib
from mtjax.data.chat import apply_chat_template
from mtjax.data.hub import local_folder
from mtjax.data.sources.text_files import read_object, whole_text
from mtjax.data.special_tokens import DeclaredToken, read_special_tokens

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
  """A tokenizer from a file of the `tokenizers` library and the files beside it.

  `file` is a tokenizer.json, alone or in the folder of an imported model. Tokens that only the
  files beside it declare are added as in transformers (see
  `mtjax.data.special_tokens.read_special_tokens`). Those files name the tokens of eos_id, bos_id
  and pad_id; eos_ids also has those of generation_config.json and config.json, or a usual name if
  no file names one. Without a begin or padding token, the end token is used for it.

  Raises FileNotFoundError, and ValueError that names the file for one that cannot be read, and for
  an added token that would get another id than its file says.
  """

  def __init__(self, file: str | Path):
    import tokenizers

    file = Path(file)
    if not file.is_file():
      raise FileNotFoundError(f"there is no tokenizer {str(file)!r}")
    content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
      self._prompts = tokenizers.Tokenizer.from_buffer(content)
      self._text = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:
      raise ValueError(f"{str(file)!r} is no file of the tokenizers library: {error}") from None
    for each in (self._prompts, self._text):
      # A file may switch on padding or truncation, which would change the tokens.
      each.no_padding()
      each.no_truncation()
    self._text.encode_special_tokens = True
    self._settings = json.loads(content)
    self.file = file
    self._folder = file.parent
    special = read_special_tokens(self._folder)
    self._names = special.named
    # If the folder adds no token, the hash is that of its tokenizer.json.
    for token in self._add(special.declared):
      content += repr((token.content, sorted(token.flags.items()))).encode()
    self._hash = hashlib.sha256(content).hexdigest()
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
    """Returns the tokens of a conversation in the folder's template (see `apply_chat_template`)."""
    text = whole_text(apply_chat_template(messages, self._folder, **variables), "the conversation")
    # The template has written the special tokens itself.
    return self._prompts.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    return self._text.decode(list(map(int, ids)), skip_special_tokens=True)

  def token_bytes(self) -> list[bytes]:
    return list(self._token_bytes)

  def special_tokens(self) -> dict[str, int]:
    added = self._text.get_added_tokens_decoder()
    return {token.content: index for index, token in added.items() if token.special}

  def fingerprint(self) -> str:
    return self._hash

  @functools.cached_property
  def _token_bytes(self) -> tuple[bytes, ...]:
    return token_bytes_lib.token_bytes(self._settings, self._text, self.vocab_size)

  def _ends(self) -> tuple[int, ...]:
    """Returns all ids that end a text, the tokenizer's own first."""
    eos = self._special("eos")
    ids = [] if eos is None else [eos]
    for name in ("generation_config.json", "config.json"):
      ids += _end_ids(self._folder / name)
    ids = [i for i in dict.fromkeys(ids) if i < self.vocab_size]
    if not ids:
      ids = [i for i in map(self._text.token_to_id, _USUAL_ENDS) if i is not None][:1]
    if not ids:
      raise ValueError(
        f"no end token is known for {str(self._folder)!r}: neither tokenizer_config.json nor "
        f"config.json names one, and none of {', '.join(_USUAL_ENDS)} is a token"
      )
    return tuple(ids)

  def _special(self, name: str) -> int | None:
    token = self._names.get(f"{name}_token")
    return None if token is None else self._text.token_to_id(token)

  def _add(self, declared: Sequence[DeclaredToken]) -> list[DeclaredToken]:
    """Adds the declared tokens that are no added tokens of tokenizer.json, and returns them."""
    import tokenizers

    known = {token.content for token in self._text.get_added_tokens_decoder().values()}
    added = []
    for token in declared:
      if not token.content or token.content in known:
        continue
      before = self._text.token_to_id(token.content)
      for each in (self._prompts, self._text):
        each.add_tokens([tokenizers.AddedToken(token.content, **token.flags)])
      index = self._text.token_to_id(token.content)
      if before is None and token.id not in (None, index):
        raise ValueError(
          f"{token.file} says that {token.content!r} is token {token.id}; added to "
          f"{str(self.file)!r}, it is token {index}: one of the two files is of another model"
        )
      known.add(token.content)
      added.append(token)
    return added


def pieces_of(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[bytes]:
  """Returns the bytes of each token in running text.

  A model may have more ids than its tokenizer: those have no bytes.
  """
  table = tokenizer.token_bytes()
  return [table[i] if i < len(table) else b"" for i in tokens]


def load_tokenizer(name: str | Path) -> Tokenizer:
  """Loads "bytes", "bundled", a tokenizer.json, a model's folder, or a Hugging Face id (mtjax[hf]).

  Raises ValueError or FileNotFoundError that names the missing file.
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
  if not file.is_file():
    raise FileNotFoundError(
      f"{str(folder)!r} holds no tokenizer.json; one is written by transformers' "
      "AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
    )
  return BpeTokenizer(file)


def _end_ids(file: Path) -> list[int]:
  """Returns the end tokens in a model's file; a number below 0 means none."""
  value = read_object(file).get("eos_token_id")
  ids = value if isinstance(value, list) else [] if value is None else [value]
  if not all(type(each) is int for each in ids):
    raise ValueError(f"{file}: eos_token_id must be an id or a list of ids, got {value!r:.80}")
  return [each for each in ids if each >= 0]

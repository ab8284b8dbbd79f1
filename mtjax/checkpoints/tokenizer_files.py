"""The tokenizer's part of an export: its files, and the ids that other readers expect."""

import json
from pathlib import Path
from typing import Any

from mtjax.checkpoints.writing import write_json
from mtjax.data.token_bytes import letters
from mtjax.data.tokenizer_source import FILES
from mtjax.data.tokenizers import ByteTokenizer


def special_ids(tokenizer: Any, vocab_size: int) -> dict[str, Any]:
  """Returns bos, eos and pad for config.json; null, not transformers' default, for a missing one.

  Raises ValueError for a tokenizer with more ids than the model has.
  """
  if tokenizer is None:
    return dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
  if tokenizer.vocab_size > vocab_size:
    raise ValueError(
      f"the tokenizer has {tokenizer.vocab_size} ids, but the model has only {vocab_size}"
    )
  ends = list(tokenizer.eos_ids)
  return dict(
    bos_token_id=tokenizer.bos_id,
    eos_token_id=ends[0] if len(ends) == 1 else ends,
    pad_token_id=tokenizer.pad_id,
  )


def write(folder: Path, tokenizer: Any, ids: dict[str, Any], longest: int) -> None:
  """Writes generation_config.json with `ids`, and FILES of the tokenizer, unless it is None."""
  write_json(folder / "generation_config.json", ids)
  if tokenizer is None:
    return
  if isinstance(tokenizer, ByteTokenizer):
    files = {FILES[0]: _bytes_as_bpe().encode()}
  else:
    files = tokenizer.files()
  for name, content in files.items():
    (folder / name).write_bytes(content)
  if FILES[0] in files and "tokenizer_config.json" not in files:
    write_json(folder / "tokenizer_config.json", _config(folder / FILES[0], tokenizer, longest))


def _config(file: Path, tokenizer, longest: int) -> dict[str, Any]:
  import tokenizers

  name = tokenizers.Tokenizer.from_file(str(file)).id_to_token
  return dict(
    tokenizer_class="PreTrainedTokenizerFast",
    bos_token=name(tokenizer.bos_id),
    eos_token=name(tokenizer.eos_id),
    pad_token=name(tokenizer.pad_id),
    model_max_length=longest,
    clean_up_tokenization_spaces=False,
  )


def _bytes_as_bpe() -> str:
  """Returns ByteTokenizer as a file of the tokenizers library: a byte-level BPE without merges."""
  import tokenizers

  made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=letters(), merges=[]))
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  made.add_special_tokens(["<|endoftext|>", "<|pad|>"])
  return json.dumps(json.loads(made.to_str()), ensure_ascii=False)

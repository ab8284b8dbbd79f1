"""Where a byte-level tokenizer cuts a text before it merges, by the name that a file gives.

llama.cpp has a name per family of tokenizers (tokenizer.ggml.pre) and the regular expressions in
its code (llama-vocab.cpp, llm_tokenizer_bpe and llama_vocab::impl::load); these are the ones of the
original tokenizer.json files where its comments give them.
"""

import dataclasses

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _cl100k(digits: str) -> str:
  """Returns the expression of cl100k and its relatives, with their expression for digits."""
  return (
    rf"{_ENDS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
  )


def _o200k(ends: str, digits: str) -> str:
  """Returns the expression of o200k and its relatives, which cuts words where the case changes."""
  upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
  return (
    rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{ends}|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{ends}"
    rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
  )


@dataclasses.dataclass(frozen=True)
class TextSplit:
  """The cuts of one family: each expression cuts the pieces that the one before it left."""

  patterns: tuple[str, ...]
  # A piece that is a token stays whole, whatever the merges would make of it.
  keeps_tokens: bool = False
  begins: bool = False  # the begin token comes first, unless the file says otherwise


_SMOLLM = TextSplit((_DIGIT, _GPT2))
_LLAMA3 = TextSplit((_cl100k(r"\p{N}{1,3}"),), keeps_tokens=True, begins=True)
_QWEN2 = TextSplit((_cl100k(_DIGIT),))
_O200K = TextSplit((_o200k(f"{_ENDS}?", r"\p{N}{1,3}"),))

SPLITS = {
  # llama.cpp's own, for files without a name and for unknown tokenizers.
  "default": TextSplit((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
  **dict.fromkeys(
    ("gpt-2", "phi-2", "mpt", "olmo", "jais", "gigachat", "a.x-4.0", "mellum", "exaone4"),
    TextSplit((_GPT2,)),
  ),
  **dict.fromkeys(("trillion", "granite-docling"), TextSplit((_GPT2,))),
  **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _SMOLLM),
  **dict.fromkeys(("exaone", "minerva-7b", "mellum2"), _SMOLLM),
  **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0"), _LLAMA3),
  **dict.fromkeys(("dbrx", "smaug-bpe"), TextSplit(_LLAMA3.patterns)),
  **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"), _QWEN2),
  **dict.fromkeys(("stablelm2", "hunyuan", "solar-open", "grok-2"), _QWEN2),
  "tekken": TextSplit((_o200k("", _DIGIT),), keeps_tokens=True, begins=True),
  **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), _O200K),
  "deepseek-coder": TextSplit(
    ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", _DIGIT)
  ),
  "seed-coder": TextSplit(
    (
      rf"{_ENDS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+"
      r"|\s+(?!\S)|\s+",
    )
  ),
}

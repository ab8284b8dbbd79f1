"""Vocabularies of GGUF files for tests, and texts that tell tokenizers apart."""

import functools
import gzip
import json
from importlib import resources

TEXTS = [
  "Once upon a time, in 1984, there were 12345 foxes; they'd RUN 3.14 km.",
  " leading and trailing  ",
  "   three blanks\n\n\n  and\tlines\r\n \n",
  "def f(x):\n    if x<10:\n\t\treturn {'a': [1,2]}  # ok\n",
  "Füße, naïve café, São Paulo; Ελληνικά; Привет, мир!",
  "漢字とかな交じり文。한국어 텍스트, 中文！",
  "مرحبا بالعالم שלום עולם नमस्ते दुनिया",
  "🚀 👩‍👩‍👧 🇩🇪 e\u0301 \u200b\u00a0x",
  "I'Ve SHOULDN'T we'll HelloWorld camelCase URLs: https://x.org/a?b=1&c=%20",
  "<|im_start|>user\nhi<|im_end|>\n",
  "a<|im_end|>  b <|im_start|> c",
  "",
  " ",
  "\n",
  "!!!??? ---- ____ ##",
]

CHAT = """{{ bos_token }}{% for m in messages %}
{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
MESSAGES = [
  dict(role="system", content="Be brief."),
  dict(role="user", content=" Wie heißt du?\n "),
  dict(role="assistant", content="Ada"),
  dict(role="user", content="🚀?"),
]


@functools.cache
def bundled() -> dict:
  file = resources.files("mtjax") / "assets" / "tokenizer.json"
  return json.loads(file.read_text(encoding="utf-8"))["model"]


def byte_level(pre: str, **more) -> dict:
  """The bundled vocabulary with the tokens of a conversation, as metadata."""
  model = bundled()
  texts = sorted(model["vocab"], key=model["vocab"].get)
  # The last is no special token, but found before all else.
  texts += ["<|im_start|>", "<|im_end|>", "f(x)"]
  kinds = [3 if text.startswith("<|") else 4 if text == "f(x)" else 1 for text in texts]
  merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
  return {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": pre,
    "tokenizer.ggml.tokens": texts,
    "tokenizer.ggml.token_type": kinds,
    "tokenizer.ggml.merges": merges,
    "tokenizer.ggml.bos_token_id": texts.index("<|im_start|>"),
    "tokenizer.ggml.eos_token_id": texts.index("<|im_end|>"),
    "tokenizer.ggml.padding_token_id": texts.index("<|pad|>"),
    "tokenizer.chat_template": CHAT,
    **more,
  }


@functools.cache
def _pieces() -> tuple[str, ...]:
  """Pieces of SentencePiece's kind, the most frequent merges first."""
  from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

  trained = Tokenizer(models.BPE())
  trained.normalizer = normalizers.Replace(" ", "\u2581")
  trained.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
  trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False)
  file = resources.files("mtjax") / "assets" / "tinyshakespeare" / "test.txt.gz"
  text = gzip.decompress(file.read_bytes()).decode()
  trained.train_from_iterator([text, "Füße Ελληνικά Привет 漢字 12345"], trainer)
  vocab = trained.get_vocab()
  return tuple(piece for piece in sorted(vocab, key=vocab.get) if "\n" not in piece)


def sentencepiece(**more) -> dict:
  """A vocabulary of SentencePiece's kind with bytes, scores and tokens of a conversation."""
  # The last three lead to the spelling of a special token, if it may be merged.
  pieces = [piece for piece in _pieces() if piece not in ("<", ">", "<s")]
  letters_first = sorted([*pieces, "<", ">", "<s"], key=lambda piece: len(piece) > 1)
  bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
  added = ["<|im_start|>", "<|im_end|>", "  "]
  # Gemma's tokens of blanks come early, too.
  texts = ["<unk>", "<s>", "</s>", *bytes_, *added, *letters_first]
  kinds = [2, 3, 3, *[6] * 256, 3, 3, 4, *[1] * len(letters_first)]
  scores = [0.0] * 259 + [-1000.0] * 3 + [-float(rank) for rank in range(len(letters_first))]
  return {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.tokens": texts,
    "tokenizer.ggml.scores": scores,
    "tokenizer.ggml.token_type": kinds,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.chat_template": CHAT,
    **more,
  }


def merged_by_score(fields: dict, text: str) -> list[int]:
  """llama.cpp's tokens (llm_tokenizer_spm, slowly): special ones first, then the best score.

  Every piece of text after a special token begins with a blank of its own, as the first one does,
  unless add_space_prefix is false. The begin token is left out.
  """
  texts, scores = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.scores"]
  kinds = fields["tokenizer.ggml.token_type"]
  ids = {piece: index for index, piece in enumerate(texts)}
  special = sorted(
    (piece for piece, kind in zip(texts, kinds, strict=True) if kind in (2, 3, 4)), key=len
  )
  parts: list[str | int] = [text] if text else []
  for piece in reversed(special):
    parts = [
      each
      for part in parts
      for each in (cut(part, piece, ids[piece]) if isinstance(part, str) else [part])
    ]
  out = []
  for part in parts:
    if isinstance(part, int):
      out.append(part)
      continue
    prefix = " " if fields.get("tokenizer.ggml.add_space_prefix", True) else ""
    symbols = list((prefix + part).replace(" ", "\u2581"))
    while True:
      pairs = [
        (-scores[ids[a + b]], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in ids
      ]
      if not pairs:
        break
      _, i = min(pairs)
      symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    for symbol in symbols:
      known = symbol in ids
      out += [ids[symbol]] if known else [ids[f"<0x{b:02X}>"] for b in symbol.encode()]
  return out


def pairwise(symbols):
  return zip(symbols, symbols[1:], strict=False)


def cut(text: str, piece: str, index: int) -> list[str | int]:
  out: list[str | int] = []
  for part in text.split(piece):
    out += [part, index]
  return [each for each in out[:-1] if each != ""]

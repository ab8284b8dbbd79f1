"""Tokenizers out of GGUF files: the ids of transformers' reading, or of the definition.

transformers 5.24 differs from llama.cpp and from the original tokenizers in these places, where the
definition is compared: a digit after a blank with smollm's cuts, which it lacks; pieces that are
tokens and stay whole (ignore_merges of Llama 3's tokenizer.json); tokenizers of SentencePiece's
kind, for a text that begins with blanks, and after special tokens; unknown names of cuts, for which
it takes GPT-2's.
"""

import importlib.util

import pytest

from mtjax.data.tokenizers import load_tokenizer
from tests.checkpoints.gguf import vocabularies, written
from tests.checkpoints.gguf.test_quantisations import SIZES
from tests.checkpoints.gguf.vocabularies import MESSAGES, TEXTS

needs_transformers = pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)
needs_jinja = pytest.mark.skipif(
  importlib.util.find_spec("jinja2") is None, reason="pip install mtjax[hf]"
)


@pytest.fixture
def read(tmp_path):
  """Returns a function: metadata -> our tokenizer."""

  def make(fields, arch="llama"):
    settings = {f"{arch}.{key}": value for key, value in SIZES.items()}
    return load_tokenizer(written.write(tmp_path / "model.gguf", arch, settings | fields, {}))

  return make


@pytest.fixture
def both(read, tmp_path):
  """Returns a function: metadata -> our tokenizer and transformers' one."""

  def make(fields, arch="llama"):
    import transformers

    ours = read(fields, arch)
    return ours, transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")

  return make


@needs_transformers
@pytest.mark.parametrize("pre", ["qwen2", "gpt-2", "dbrx", "tekken", "gpt-4o"])
def test_ids_of_byte_level_tokenizers(both, pre):
  ours, theirs = both(vocabularies.byte_level(pre, **{"tokenizer.ggml.add_bos_token": False}))
  for text in TEXTS:
    assert ours.encode(text) == theirs.encode(text), text
    assert ours.decode(ours.encode(text)) == theirs.decode(
      theirs.encode(text), skip_special_tokens=True
    )


@pytest.mark.parametrize("pre", ["smollm", "starcoder"])
def test_ids_of_cuts_around_every_digit(read, pre):
  """The oracle is the pre-tokenizer of SmolLM2's and StarCoder's tokenizer.json."""
  from tokenizers import Tokenizer, models, pre_tokenizers

  fields = vocabularies.byte_level(pre)
  ours = read(fields)
  model = vocabularies.bundled()
  pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
  oracle = Tokenizer(models.BPE(vocab=model["vocab"], merges=[tuple(pair) for pair in pairs]))
  oracle.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  for text in [*TEXTS, "on 24 ٣٤ Ⅷ 12"]:
    if "<|" not in text and "f(x)" not in text:
      assert ours.encode(text) == oracle.encode(text).ids, text


def test_a_piece_that_is_a_token_stays_whole_where_the_tokenizer_says_so(read):
  """Without the merges that lead to it, " Capulet" is a token in Llama 3's kind only."""
  fields = vocabularies.byte_level("llama-bpe", **{"tokenizer.ggml.add_bos_token": False})
  word = "\u0120Zqxj"
  fields["tokenizer.ggml.tokens"] = [*fields["tokenizer.ggml.tokens"], word]
  fields["tokenizer.ggml.token_type"] = [*fields["tokenizer.ggml.token_type"], 1]
  last = len(fields["tokenizer.ggml.tokens"]) - 1
  assert read(fields).encode("a Zqxj")[1:] == [last]
  assert last not in read(fields | {"tokenizer.ggml.pre": "smaug-bpe"}).encode("a Zqxj")


def test_the_cuts_of_files_without_a_name_are_llama_cpps_own(read):
  fields = vocabularies.byte_level("default")
  named = read(fields)
  del fields["tokenizer.ggml.pre"]
  unnamed = read(fields)
  tokens = fields["tokenizer.ggml.tokens"]
  ids = named.encode("x=1984+y")
  assert ids == unnamed.encode("x=1984+y")
  # Signs alone, then three digits at a time: x, =, 198, 4, +, y.
  pieces = [tokens[index] for index in ids]
  cuts = {sum(map(len, pieces[:i])) for i in range(len(pieces) + 1)}
  assert {0, 1, 2, 5, 6, 7, 8} <= cuts


def test_unknown_cuts_and_tokenizers_are_refused(read):
  with pytest.raises(ValueError, match="tokenizer.ggml.pre of .* 'next'.* known: default, gpt-2"):
    read(vocabularies.byte_level("next"))
  with pytest.raises(ValueError, match="tokenizer.ggml.model of .* 'bert'.* known: gpt2, llama"):
    read({**vocabularies.byte_level("gpt-2"), "tokenizer.ggml.model": "bert"})
  with pytest.raises(ValueError, match="merges of .* has 'a nowhere', which makes no token"):
    read({**vocabularies.byte_level("gpt-2"), "tokenizer.ggml.merges": ["a nowhere"]})
  with pytest.raises(ValueError, match="lacks tokenizer.ggml.scores"):
    fields = vocabularies.sentencepiece()
    del fields["tokenizer.ggml.scores"]
    read(fields)


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_of_sentencepiece_are_those_of_its_scores(read, prefix):
  fields = vocabularies.sentencepiece(**{"tokenizer.ggml.add_space_prefix": prefix})
  ours = read(fields)
  for text in TEXTS:
    assert ours.encode(text) == [1, *vocabularies.merged_by_score(fields, text)], text
    # After a token that is found before all else, the next piece begins with one blank more.
    if "<|" not in text and not (prefix and "  " in text):
      assert ours.decode(ours.encode(text)) == text


@needs_transformers
@pytest.mark.parametrize(("arch", "prefix"), [("llama", True), ("gemma2", False)])
def test_ids_of_sentencepiece_are_those_of_transformers(both, arch, prefix):
  ours, theirs = both(
    vocabularies.sentencepiece(**{"tokenizer.ggml.add_space_prefix": prefix}), arch
  )
  for text in TEXTS:
    if not prefix or not ("  " in text or text.startswith(" ") or "<|" in text):
      assert ours.encode(text) == theirs.encode(text), text


def test_tokens_of_blanks_are_found_before_all_else(read):
  """As in OLMo: transformers looks for them in the spelling of bytes, and never finds them."""
  fields = vocabularies.byte_level("gpt-2")
  fields["tokenizer.ggml.tokens"] = [*fields["tokenizer.ggml.tokens"], "   "]
  fields["tokenizer.ggml.token_type"] = [*fields["tokenizer.ggml.token_type"], 4]
  ours, last = read(fields), len(fields["tokenizer.ggml.tokens"]) - 1
  assert ours.encode("x    y")[1] == last and ours.decode(ours.encode("x    y")) == "x    y"
  assert "   " not in ours.special_tokens() and ours.token_bytes()[last] == b"   "


def test_no_text_spells_a_special_token(read):
  for fields in (vocabularies.byte_level("qwen2"), vocabularies.sentencepiece()):
    ours = read(fields)
    kinds = fields["tokenizer.ggml.token_type"]
    text = "<s></s><unk><0x41><|im_start|>a<|im_end|>"
    (ids,) = ours.encode_documents([text])
    # Neither special tokens nor, from their spelling, bytes: "A" would come back.
    assert {"<|im_start|>", "<|im_end|>"} <= set(ours.special_tokens())
    assert not {kinds[index] for index in ids} & {2, 3} and ours.decode(ids) == text


def test_ends_begin_and_padding(read):
  fields = vocabularies.byte_level("llama-bpe")
  tokens = fields["tokenizer.ggml.tokens"]
  ours = read(fields)
  im_start, im_end = tokens.index("<|im_start|>"), tokens.index("<|im_end|>")
  # A control token of that name ends a text in llama.cpp, too.
  assert ours.eos_ids == (im_end, tokens.index("<|endoftext|>"))
  assert (ours.bos_id, ours.pad_id) == (im_start, tokens.index("<|pad|>"))
  assert ours.encode("a")[0] == im_start  # Llama 3's kind begins with it unless the file says no
  more = {"tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.eot_token_id": 7}
  ours = read(fields | more)
  assert ours.encode("a")[-1] == im_end and 7 in ours.eos_ids
  with pytest.raises(ValueError, match="eos_token_id of .* is 99999, but there are"):
    read(fields | {"tokenizer.ggml.eos_token_id": 99999})


@needs_transformers
@needs_jinja
@pytest.mark.parametrize("make", [vocabularies.byte_level, vocabularies.sentencepiece])
def test_conversations_are_those_of_transformers(both, make):
  fields = make("qwen2") if make is vocabularies.byte_level else make()
  ours, theirs = both(fields)
  for prompt in (True, False):
    text = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=prompt)
    ids = ours.encode_chat(MESSAGES, add_generation_prompt=prompt)
    if make is vocabularies.byte_level:
      assert ids == theirs(text, add_special_tokens=False).input_ids
    else:
      assert ids == vocabularies.merged_by_score(fields, text)


@needs_jinja
def test_with_tools_the_template_of_that_name_is_used(read):
  ours = read(
    vocabularies.byte_level("gpt-2", **{"tokenizer.chat_template.tool_use": "{{ tools[0].name }}"})
  )
  assert ours.decode(ours.encode_chat(MESSAGES, tools=[dict(name="abc")])) == "abc"
  assert ours.decode(ours.encode_chat(MESSAGES)).startswith("system")


def test_bytes_of_tokens_spell_the_text(read):
  byte_level, sentencepiece = vocabularies.byte_level("smollm"), vocabularies.sentencepiece()
  for fields, begin in ((byte_level, ""), (sentencepiece, " ")):
    ours = read(fields)
    table = ours.token_bytes()
    for text in (text for text in TEXTS if text and not (begin and "  " in text)):
      (ids,) = ours.encode_documents([text])
      assert b"".join(table[i] for i in ids).decode() == begin + text

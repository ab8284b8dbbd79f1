"""A tokenizer with LLaDA's special tokens and chat template, beside its model and in an export."""

import importlib.util
import json

import pytest

from mtjax import checkpoints
from mtjax.data.pieces import encode_pieces
from mtjax.data.tokenizers import load_tokenizer
from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.diffusion.texts import without_mask
from tests.checkpoints.diffusion import oracles

MASK = "<|mdm_mask|>"
# In the order of their ids, as in GSAI-ML/LLaDA-8B-Instruct.
SPECIAL = (
  "<|startoftext|>",
  "<|endoftext|>",
  MASK,
  "<|start_header_id|>",
  "<|end_header_id|>",
  "<|eot_id|>",
)
TEMPLATE = (
  "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
  "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
  "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
  "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)

needs_jinja = pytest.mark.skipif(
  importlib.util.find_spec("jinja2") is None, reason="jinja2 is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Returns a LLaDA with a byte-level tokenizer, whose mask is the last but three of its tokens."""
  import tokenizers

  out = tmp_path_factory.mktemp("llada")
  letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  made = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[])
  )
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  made.add_special_tokens(list(SPECIAL))
  made.save(str(out / "tokenizer.json"))
  named = dict(bos_token=SPECIAL[0], eos_token=SPECIAL[1], pad_token=SPECIAL[1])
  content = dict(named, chat_template=TEMPLATE)
  (out / "tokenizer_config.json").write_text(json.dumps(content))
  size = 256 + len(SPECIAL)
  config = dict(
    oracles.LLADA,
    vocab_size=size,
    embedding_size=size,
    mask_token_id=made.token_to_id(MASK),
    eos_token_id=made.token_to_id(SPECIAL[1]),
  )
  oracles.write(out, config, oracles.random_tensors(oracles.llada_shapes(config)))
  return out


def test_the_mask_of_the_config_is_the_token_of_that_name(folder):
  tokenizer = load_tokenizer(folder)
  network = MaskedNetwork.of(checkpoints.load(folder)[0])
  assert tokenizer.special_tokens()[MASK] == network.mask_id == 258
  assert (tokenizer.bos_id, tokenizer.eos_ids) == (256, (257,))


@needs_jinja
def test_a_conversation_is_in_the_form_of_its_training(folder):
  tokenizer = load_tokenizer(folder)
  messages = [dict(role="user", content=" Hi "), dict(role="assistant", content="Yes?")]
  header = [259, *tokenizer.encode("user"), 260, *tokenizer.encode("\n\nHi"), 261]
  answer = [259, *tokenizer.encode("assistant"), 260, *tokenizer.encode("\n\n")]
  ids = tokenizer.encode_chat(messages)
  assert ids == [256, *header, *answer, *tokenizer.encode("Yes?"), 261, *answer]


def test_text_that_spells_the_mask_is_a_mask_only_in_prompts(folder):
  tokenizer, text = load_tokenizer(folder), f"a {MASK} b"
  assert tokenizer.encode(text).count(258) == 1
  (plain,) = tokenizer.encode_documents([text])
  pieces = encode_pieces(tokenizer, ["a ", MASK, " b"])
  assert plain == sum(pieces, []) and max(plain) < 256
  assert tokenizer.decode(plain) == text


@needs_jinja
def test_text_that_spells_the_mask_stays_text_when_it_is_denoised(folder):
  tokenizer, text = load_tokenizer(folder), f"a {MASK} b"
  plain = tokenizer.encode_documents([text])[0]
  assert without_mask(tokenizer, text, 258) == plain
  messages = [dict(role="user", content=text)]
  ids = tokenizer.encode_chat(messages)
  assert 258 in ids and 258 not in without_mask(tokenizer, ids, 258)


@needs_jinja
def test_an_export_has_the_same_tokens_and_template(folder, tmp_path):
  tokenizer = load_tokenizer(folder)
  checkpoints.save(tmp_path, *checkpoints.load(folder), tokenizer=tokenizer)
  again = load_tokenizer(tmp_path)
  messages = [dict(role="user", content="Hi")]
  assert again.encode_chat(messages) == tokenizer.encode_chat(messages)
  raw = json.loads((tmp_path / "config.json").read_text())
  assert (raw["mask_token_id"], raw["bos_token_id"], raw["eos_token_id"]) == (258, 256, 257)

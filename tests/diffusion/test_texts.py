"""TextModel.denoise: texts and frames, prompts that spell the mask, and what is refused."""

import dataclasses

import jax
import pytest
import tokenizers

import mtjax
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer
from mtjax.diffusion.denoising import MaskedNetwork
from mtjax.diffusion.texts import network_of, without_mask
from mtjax.diffusion.transfer import Threshold
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.models.stacking import Stacks, scanned, stack_params
from mtjax.text import TextModel
from tests.draft.letters import Letters

PROMPTS = ["a cat", "on the mat "]
METHOD = mtjax.denoiser("llada", length=8, block_length=4, steps=4)
NOISY = mtjax.Sampling(temperature=1.0)


def tiny(**settings):
  fields = dict(predicts="masked", extra_embeddings=1, extra_names=("mask",))
  fields |= dict(layers=uniform_layers(1)) | settings
  config = TransformerConfig(258, 16, 2, 1, 8, 16, max_position=64, **fields)
  model = Model(config)
  params = jax.tree.map(lambda x: 3 * x, model.init(jax.random.key(0)))
  return TextModel(model, params, ByteTokenizer())


MODEL = tiny()


def test_frames_lead_to_the_text_that_one_program_gives():
  frames = []
  settings = dict(method=METHOD, sampling=NOISY, key=3)
  completions, run = MODEL.denoise(PROMPTS, **settings)
  seen, same = MODEL.denoise(PROMPTS, on_pass=frames.append, **settings)
  assert seen == completions and same.tokens == run.tokens and same.decided_at == run.decided_at
  assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
  assert frames[0].tokens == [[None] * 8] * 2 and frames[0].decided_at == [[0] * 8] * 2
  drawn = []
  again, traced = MODEL.denoise(PROMPTS, trace=True, on_pass=drawn.append, **settings)
  assert again == completions and drawn == frames, "a trace draws the same pictures"
  assert traced.trace is not None and run.trace is None
  for row, completion in enumerate(completions):
    size = len(completion.tokens)
    assert frames[-1].tokens[row][:size] == completion.tokens
    assert frames[-1].decided_at[row][:size] == run.decided_at[row]
    assert completion.prompt == PROMPTS[row]
    assert completion.text == ByteTokenizer().decode(completion.tokens)
    ended = completion.tokens[-1] == ByteTokenizer.eos_id
    assert completion.finish == ("eos" if ended else "length")
  # Blocks are decided from left to right.
  assert all(token is None for token in frames[2].tokens[0][4:])
  assert None not in frames[2].tokens[0][:4]


def test_rows_end_at_the_tokens_that_are_given():
  _, whole = MODEL.denoise(PROMPTS, method=METHOD, sampling=NOISY, key=3, eos=())
  assert [len(row) for row in whole.tokens] == [8, 8]
  end = whole.tokens[0][2]
  (one, _), run = MODEL.denoise(PROMPTS, method=METHOD, sampling=NOISY, key=3, eos=[end])
  assert run.tokens[0] == whole.tokens[0][: 1 + whole.tokens[0].index(end)]
  assert (one.tokens, one.finish) == (run.tokens[0], "eos")
  with pytest.raises(ValueError, match=r"eos names tokens \[-1\] outside a vocabulary of"):
    MODEL.denoise(PROMPTS, method=METHOD, eos=[-1])


def test_one_text_is_a_list_of_one_and_token_ids_are_a_prompt():
  (one,), _ = MODEL.denoise("a cat", method=METHOD)
  (same,), _ = MODEL.denoise([list(b"a cat")], method=METHOD)
  assert (one.prompt, one.tokens) == (same.prompt, same.tokens)


class Masked(Letters):
  """Letters, the mask among them, as the vocabulary of LLaDA has it."""

  name, mask_id, mask_token = "<mask>", 8, None

  def __init__(self, reads_plain: bool = True):
    super().__init__(["<", "m", "a", "s", "k", ">", " ", "b", self.name])
    self.reads_plain = reads_plain

  def encode_documents(self, texts):
    known = self.pieces[:-1] if self.reads_plain else self.pieces
    return [Letters(known).encode(text) for text in texts]

  def special_tokens(self):
    return {self.name: self.mask_id}


def test_a_prompt_that_spells_the_mask_has_the_text_in_it():
  tokenizer = Masked()
  text = "a <mask>b"
  assert tokenizer.mask_id in tokenizer.encode(text)
  ids = without_mask(tokenizer, text, tokenizer.mask_id)
  assert tokenizer.mask_id not in ids and tokenizer.decode(ids) == text
  assert without_mask(tokenizer, tokenizer.encode(text), tokenizer.mask_id) == ids
  assert without_mask(tokenizer, "a b", tokenizer.mask_id) == tokenizer.encode("a b")
  with pytest.raises(ValueError, match="spells the mask, '<mask>', which this tokenizer cannot"):
    without_mask(Masked(reads_plain=False), text, tokenizer.mask_id)


def test_a_tokenizer_with_a_mask_among_its_special_tokens(tmp_path):
  letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  vocabulary = {letter: number for number, letter in enumerate(letters)}
  made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  made.add_special_tokens(["<|endoftext|>", "<|mask|>"])
  made.save(str(tmp_path / "tokenizer.json"))
  tokenizer, text = BpeTokenizer(tmp_path / "tokenizer.json"), "a <|mask|> é<|endoftext|><|mask|>"
  assert tokenizer.encode(text).count(257) == 2
  ids = without_mask(tokenizer, text, 257)
  assert 257 not in ids and ids.count(256) == 1, "other special tokens stay what they are"
  assert tokenizer.decode(ids) == text.replace("<|endoftext|>", "")


def test_a_spelled_mask_is_denoised_as_other_text_is():
  model = tiny(extra_embeddings=0, extra_names=())
  text = TextModel(model.model, model.params, Masked())
  network = MaskedNetwork(model.model, Masked.mask_id)
  frames = []
  settings = dict(method=METHOD, network=network, on_pass=frames.append)
  (one,), _ = text.denoise("a <mask>b", **settings)
  (same,), _ = text.denoise([[2, 6, 0, 1, 2, 3, 4, 5, 7]], **settings)
  assert one.tokens == same.tokens and len(one.tokens) == 8 and Masked.mask_id not in one.tokens
  assert [len(frame.tokens[0]) for frame in frames] == [8] * 2 * 5


def test_an_extra_mask_cannot_be_spelled():
  network = network_of(MODEL)
  assert network.mask_id == 258 == MODEL.model.config.vocab_size
  assert max(MODEL.tokenizer.encode("<mask>[MASK]<|mask|>")) < 256


@pytest.mark.parametrize(
  ("model", "settings", "message"),
  [
    (tiny(predicts="next_token"), {}, "needs a masked model, .*this model predicts 'next_token'"),
    (tiny(predicts="any_subset"), {}, "this model predicts 'any_subset'"),
    (tiny(extra_names=("sink",)), {}, r"masked model has no mask: .*extra_names is \('sink',\)"),
    (MODEL, dict(prompts=[b"a"]), "prompt 0 is bytes: a prompt is a text or a list of token ids"),
    (MODEL, dict(prompts=[]), "there is no prompt: give at least one"),
    (MODEL, dict(prompts=["a", ""]), "prompt 1 is empty"),
    (MODEL, dict(prompts="a" * 57), "canvas of 65 entries, 57 of them its prompt, .* 64 positions"),
    pytest.param(
      MODEL,
      dict(method="llada"),
      r"the text 'llada': give mtjax.denoiser\('llada'\)",
      marks=pytest.mark.ill_typed,
    ),
    pytest.param(
      MODEL,
      dict(method=3),
      "3 denoises no canvas: give mtjax.denoiser",
      marks=pytest.mark.ill_typed,
    ),
    (MODEL, dict(method=mtjax.denoiser("block")), "only a block-causal model has an exact cache"),
    (MODEL, dict(sampling=mtjax.Sampling(presence_penalty=1.0)), "denoising takes no penalty"),
  ],
)
def test_what_cannot_be_denoised_is_refused_before_compilation(model, settings, message):
  arguments = dict(prompts=PROMPTS, method=METHOD) | settings
  with pytest.raises(ValueError, match=message):
    model.denoise(arguments.pop("prompts"), **arguments)


BLOCKS = tiny(block_length=4)
BY_NAME = {
  "lookahead": (MODEL, dict(length=8, block_length=4, steps=8)),
  "classifier_free": (MODEL, dict(length=8, block_length=4, steps=4)),
  "growing_contrast": (MODEL, dict(length=8, block_length=4, steps=4)),
  "llada21": (BLOCKS, dict(length=8, steps=8)),
  "d2f": (BLOCKS, dict(length=8, machine="pipeline:threshold=0.4")),
  "multi_bd": (BLOCKS, dict(length=8, machine="block_buffer:threshold=0.4")),
  "dmax": (BLOCKS, dict(length=8)),
  "soft_iteration": (MODEL, dict(length=8, block_length=4, steps=4)),
  "fast_dllm_v2": (
    tiny(block_length=4, alignment="shifted"), dict(length=8, machine="sub_blocks:sub_block=2")
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_NAME)
def test_methods_by_name_run_and_are_streamed(name):
  model, settings = BY_NAME[name]
  method, frames = mtjax.denoiser(name, **settings), []
  noisy = dict(method=method, sampling=NOISY, key=1)
  completions, run = model.denoise(PROMPTS, **noisy)
  seen, same = model.denoise(PROMPTS, on_pass=frames.append, **noisy)
  assert seen == completions and same.decided_at == run.decided_at
  for row, completion in enumerate(completions):
    assert frames[-1].tokens[row][: len(completion.tokens)] == completion.tokens
  if name == "lookahead":
    plain = mtjax.denoiser("llada", length=8, block_length=4, steps=8)
    assert model.denoise(PROMPTS, **noisy | dict(method=plain))[0] == completions
    assert len(frames) - 1 < max(run.passes), "a frame per forward"


@pytest.mark.parametrize(
  ("name", "model", "message"),
  [
    ("d2f", MODEL, "a pipeline of blocks needs a block-causal network, in which no block sees a"),
    ("multi_bd", MODEL, "a buffer of blocks needs a block-causal network"),
    ("fast_dllm_v2", MODEL, "decoding by sub-blocks needs a block-causal network"),
    ("fast_dllm_v2", BLOCKS, "decoding by sub-blocks needs a network with shifted logits"),
    ("llada21", MODEL, "only a block-causal model has an exact cache"),
    ("d2f", tiny(block_length=24), "length must be a multiple of block_length, got 64 and 24"),
    ("d2f", tiny(predicts="next_token"), "needs a masked model, such as mtjax.load"),
  ],
)
def test_a_model_of_another_kind_is_refused(name, model, message):
  with pytest.raises(ValueError, match=message):
    model.denoise(PROMPTS, method=mtjax.denoiser(name))


def test_apd_takes_a_causal_model_of_the_same_tokenizer():
  causal = tiny(predicts="next_token", extra_embeddings=0, extra_names=())
  method, frames = mtjax.denoiser("apd", length=8, parallel=4, causal=causal), []
  noisy = dict(method=method, sampling=NOISY, key=1)
  completions, run = MODEL.denoise(PROMPTS, **noisy)
  assert MODEL.denoise(PROMPTS, on_pass=frames.append, **noisy)[0] == completions
  assert len(frames) == 1 + max(run.passes) and run.counters["causal_forwards"] > 0
  other = TextModel(causal.model, causal.params, Masked())
  with pytest.raises(ValueError, match="the causal model has another tokenizer than the masked"):
    MODEL.denoise(PROMPTS, method=mtjax.denoiser("apd", causal=other))
  with pytest.raises(ValueError, match="the model that accepts drafts is a masked model"):
    MODEL.denoise(PROMPTS, method=mtjax.denoiser("apd", causal=MODEL))


def test_a_method_that_denoises_generates_nothing():
  with pytest.raises(ValueError, match=r"Denoiser\(length=8.* give it to TextModel.denoise"):
    MODEL.generate(PROMPTS, method=METHOD)


def test_a_threshold_for_another_number_of_rows_is_refused():
  rule = Threshold([0.5, 0.6, 0.7])
  method = mtjax.denoiser("llada", length=8, block_length=8, steps=4, transfer=rule)
  with pytest.raises(ValueError, match="threshold has 3 values for a batch of 2 rows"):
    MODEL.denoise(PROMPTS, method=method)


def test_a_block_causal_network_takes_its_blocks_from_the_model():
  network = MaskedNetwork(MODEL.model, 258, block_length=4)
  method = mtjax.denoiser("block", length=8, steps=8)
  assert method.plan(network).block_length == 4
  completions, run = MODEL.denoise(PROMPTS, method=method, network=network)
  plain = mtjax.denoiser("block", length=8, steps=8, cache="none")
  assert MODEL.denoise(PROMPTS, method=plain, network=network)[0] == completions
  assert run.counters["tokens"] == sum(len(one.tokens) for one in completions)


@pytest.mark.parametrize("cache", ["similarity", "elastic"])
def test_caches_that_look_between_layers_read_a_model_in_one_scan(cache):
  """Models that are loaded for decoding have their layers so."""
  plain = tiny(layers=uniform_layers(2))
  config = scanned(plain.model.config)
  params = stack_params(plain.params, Stacks.of(config))
  packed = dataclasses.replace(plain, model=Model(config), params=params)
  method = dataclasses.replace(METHOD, cache=cache)
  method.check(packed)
  expected, run = plain.denoise(PROMPTS, method=method)
  completions, same = packed.denoise(PROMPTS, method=method)
  assert completions == expected and same.decided_at == run.decided_at

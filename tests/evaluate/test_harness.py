"""Requests of lm-evaluation-harness as plain functions: tokens of pairs, scores, written texts."""

import dataclasses
import importlib
import json
import sys

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

import mtjax
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer
from mtjax.evaluate.harness.__main__ import entry
from mtjax.evaluate.harness.chat import render_conversation, render_open_conversation
from mtjax.evaluate.harness.likelihood import pair_scores
from mtjax.evaluate.harness.pairs import TokenPair, encode_pair, encode_prompt, rolling_pairs
from mtjax.evaluate.harness.writing import WritingSettings, write_until
from mtjax.models import Model, TransformerConfig, XLNetConfig, uniform_layers
from mtjax.rounds import prefill
from mtjax.text import TextModel
from tests.compiled import causal_logits

BYTES = ByteTokenizer()
CHAT = (
  "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}</s>{% endfor %}"
  "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def tiny():
  config = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), max_position=96)
  model = Model(config)
  return TextModel(model, model.init(jax.random.key(3)), BYTES)


@pytest.fixture(scope="module")
def with_begin(tmp_path_factory):
  """A tokenizer of letters that adds the begin token <s>, with a chat template that writes it."""
  folder = tmp_path_factory.mktemp("begin")
  letters = {text: index for index, text in enumerate(["<s>", "</s>", *"abcdeistunr[] \u0120"])}
  built = tokenizers.Tokenizer(models.BPE({**letters, "ab": len(letters)}, [("a", "b")]))
  built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  built.decoder = decoders.ByteLevel()
  built.add_special_tokens(["<s>", "</s>"])
  built.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
  built.save(str(folder / "tokenizer.json"))
  config = dict(bos_token="<s>", eos_token="</s>", chat_template=CHAT)
  (folder / "tokenizer_config.json").write_text(json.dumps(config))
  return BpeTokenizer(folder / "tokenizer.json")


def text_of(tokenizer, pair):
  return tokenizer.decode(pair.context), tokenizer.decode(pair.target)


def test_white_space_between_belongs_to_the_continuation():
  tokenizer = BpeTokenizer.bundled()
  moved = encode_pair(tokenizer, "the old ", "man")
  assert moved == encode_pair(tokenizer, "the old", " man")
  assert text_of(tokenizer, moved) == ("the old", " man")
  assert moved.context == tokenizer.encode("the old")
  assert moved.context + moved.target == tokenizer.encode("the old man")


def test_both_are_encoded_as_one_text_and_cut(with_begin):
  # "ab" is one token where nothing stands between: the cut is after the two of the context, <s> a.
  pair = encode_pair(with_begin, "da", "bc")
  whole = with_begin.encode("dabc")
  assert len(whole) == 4 and pair == TokenPair(whole[:3], whole[3:])
  with pytest.raises(ValueError, match="'b' after 'da' has no token of its own"):
    encode_pair(with_begin, "da", "b")


def test_an_empty_context_is_the_begin_token(with_begin):
  assert encode_pair(BYTES, "", "ab") == TokenPair([256], [97, 98])
  assert encode_pair(BYTES, " \n", "a") == TokenPair([256], [32, 10, 97])
  bare = with_begin.encode("cd")[1:]
  assert encode_pair(with_begin, "", "cd") == TokenPair([0], bare)
  assert encode_pair(with_begin, "", "<s>cd") == TokenPair([0], bare)
  for empty in ("", "<s>"):
    with pytest.raises(ValueError, match="nothing to score"):
      encode_pair(with_begin, "", empty)


def test_a_begin_token_that_is_spelled_is_not_added_again(with_begin):
  assert encode_prompt(with_begin, "<s>cd") == encode_prompt(with_begin, "cd") == [0, 4, 5]
  assert encode_prompt(with_begin, "") == [0] and encode_prompt(BYTES, "") == [256]


def test_rolling_pairs_are_those_of_the_harness():
  """The example in the docstring of lm-eval's `LM.loglikelihood_rolling`: BOS is 99, length 4."""
  assert rolling_pairs(range(10), prefix=99, max_length=4) == [
    TokenPair([99], [0, 1, 2, 3]), TokenPair([3], [4, 5, 6, 7]), TokenPair([5, 6, 7], [8, 9])
  ]  # fmt: skip
  assert rolling_pairs([], prefix=99, max_length=4) == []
  assert rolling_pairs([7], prefix=99, max_length=4) == [TokenPair([99], [7])]
  with pytest.raises(ValueError, match="max_length must be at least 1"):
    rolling_pairs([1], prefix=0, max_length=0)


def oracle(text, pair, max_length):
  """The score of one pair by the definition, in float64: one forward pass over all its tokens."""
  tokens = (pair.context + pair.target)[-(max_length + 1) :]
  logits = causal_logits(text.model, text.params, tokens[:-1], max_length).astype(np.float64)
  logits = logits[-len(pair.target) :]
  log_z = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))
  log_p = logits - logits.max(axis=1, keepdims=True) - log_z[:, None]
  total = sum(log_p[place, token] for place, token in enumerate(pair.target))
  return total, bool((logits.argmax(axis=1) == pair.target).all())


def pairs_of(text):
  rng = np.random.default_rng(0)
  sizes = [(1, 1), (30, 2), (3, 40), (60, 1), (5, 3), (1, 17), (70, 5), (2, 1)]
  pairs = [TokenPair(*(rng.integers(0, 256, n).tolist() for n in size)) for size in sizes]
  # Continuations that the model would write itself, and one whose last token it would not.
  said = text.generate([[97, 98]], max_tokens=6, eos=())[1].tokens[0]
  return [*pairs, TokenPair([97, 98], said), TokenPair([97, 98], [*said[:-1], said[-1] ^ 1])]


@pytest.mark.parametrize(("chunk", "positions"), [(512, 96), (16, 97)])
def test_scores_are_those_of_the_definition_in_the_order_of_the_pairs(
  tiny, monkeypatch, chunk, positions
):
  """A long row is read in several chunks. Its targets may begin in any chunk, and end in any."""
  monkeypatch.setattr(prefill, "PREFILL_CHUNK", chunk)
  pairs, known = pairs_of(tiny), {}
  # Another static argument per chunk: nothing that was compiled for the other one is used.
  model = Model(dataclasses.replace(tiny.model.config, max_position=positions))
  scores = pair_scores(model, tiny.params, pairs, max_length=48, batch=3, each=known.__setitem__)
  expected = [oracle(tiny, pair, 48) for pair in pairs]
  np.testing.assert_allclose([s[0] for s in scores], [e[0] for e in expected], rtol=1e-5)
  assert [score.is_greedy for score in scores] == [greedy for _, greedy in expected]
  assert [score.is_greedy for score in scores[-2:]] == [True, False]
  assert [known[index] for index in range(len(pairs))] == scores


def test_a_document_has_the_score_of_its_windows(tiny):
  text = BYTES.encode("to be or not to be, that is the question")
  pairs = rolling_pairs(text, prefix=256, max_length=16)
  total = sum(s.log_likelihood for s in pair_scores(tiny.model, tiny.params, pairs, max_length=16))
  assert total == pytest.approx(sum(oracle(tiny, pair, 16)[0] for pair in pairs), rel=1e-5)
  # One window holds all of it: the likelihood that `mtjax.score` computes.
  (whole,) = rolling_pairs(text, prefix=256, max_length=96)
  (one,) = pair_scores(tiny.model, tiny.params, [whole], max_length=96)
  (score,) = mtjax.score(tiny, BYTES.decode(text))
  assert one.log_likelihood == pytest.approx(score.log_likelihood, rel=1e-5)


@pytest.mark.parametrize(
  ("pair", "settings", "message"),
  [
    (TokenPair([1], [2] * 9), dict(max_length=8), "pair 0 has 9 tokens to score, more than max_l"),
    (TokenPair([1], [258]), dict(max_length=8), "token ids outside 0..257"),
    (TokenPair([1], [2]), dict(max_length=97), "from 1 to the model's 96 positions, got 97"),
    (TokenPair([1], [2]), dict(max_length=8, batch=0), "batch must be at least 1"),
  ],
)
def test_pairs_that_cannot_be_scored_are_refused(tiny, pair, settings, message):
  with pytest.raises(ValueError, match=message):
    pair_scores(tiny.model, tiny.params, [pair], **settings)


def test_an_any_subset_model_is_refused():
  model = Model(XLNetConfig(11, 16, 2, 8, 32, 1))
  with pytest.raises(ValueError, match="the model"):
    pair_scores(model, {}, [TokenPair([1], [2])], max_length=8)


def settings(**generation):
  return WritingSettings.of(generation, max_tokens=12)


def test_settings_are_read_as_the_harness_writes_them():
  plain = settings()
  assert plain.stop == () and plain.max_tokens == 12 and plain.sampling.temperature == 0
  assert settings(until="\n").stop == ("\n",) and settings(until=["a", "", "b"]).stop == ("a", "b")
  assert settings(max_tokens=5, max_gen_toks=3).max_tokens == 3
  assert settings(max_new_tokens=4).max_tokens == 4
  assert settings(temperature=0.5).sampling.temperature == 0.5
  assert settings(temperature=0.5, do_sample=False).sampling.temperature == 0
  assert settings(temperature=1, do_sample=True, top_p=0.9, num_beams=1).sampling.top_p == 0.9


@pytest.mark.parametrize(
  ("generation", "message"),
  [
    (dict(beam=2), r"\['beam'\] are not known; there is: until"),
    (dict(num_beams=2), "num_beams is 2: there is no beam search"),
    (dict(do_sample=True), "do_sample is true but temperature is 0"),
  ],
)
def test_other_settings_are_refused(generation, message):
  with pytest.raises(ValueError, match=message):
    settings(**generation)


REQUESTS = [
  ("ab ab ab a", settings(max_gen_toks=9)),
  ("to be or not to be or not", settings()),
  ("x" * 200, settings()),
  ("", settings()),
  ("x = 1\nx = 2\nx = ", settings(max_gen_toks=9)),
]
LOOKUP = mtjax.method("lookup", length=3)


def test_each_request_has_its_own_settings_and_the_order_is_kept(tiny):
  known = {}
  texts = write_until(tiny, REQUESTS, method=LOOKUP, max_length=48, batch=2, each=known.__setitem__)
  for (context, how), text in zip(REQUESTS, texts, strict=True):
    # The beginning of a long context is left out; an empty one is the begin token.
    ids = BYTES.encode(context)[-(48 - how.max_tokens) :] or [256]
    (alone,), _ = tiny.generate([ids], max_tokens=how.max_tokens)
    assert text == alone.text
  assert [known[index] for index in range(len(texts))] == texts


def test_stop_strings_are_cut_off(tiny):
  context, how = REQUESTS[1]
  (plain,) = write_until(tiny, [(context, how)], method=LOOKUP, max_length=48, batch=2)
  stop = next(letter for letter in plain[1:] if letter.isascii())
  cut = write_until(
    tiny, [(context, settings(until=[stop]))], method=LOOKUP, max_length=48, batch=2
  )
  assert cut == [plain[: plain.index(stop)]]


def test_samples_depend_on_seed_context_and_repetition_alone(tiny):
  warm = settings(temperature=1.0)
  how = dict(method=mtjax.method("ar"), max_length=48)
  one, again, other = write_until(tiny, [("ab", warm), ("ab", warm), ("abc", warm)], batch=2, **how)
  assert one != again
  assert write_until(tiny, [("abc", warm), ("ab", warm)], batch=2, **how) == [other, one]
  assert write_until(tiny, [("ab", warm)], batch=2, seed=1, **how) != [one]


@pytest.mark.parametrize("limit", [0, 48])
def test_an_answer_that_leaves_no_context_is_refused(tiny, limit):
  with pytest.raises(ValueError, match="max_gen_toks must be from 1 to max_length - 1 = 47"):
    write_until(tiny, [("a", settings(max_gen_toks=limit))], method=LOOKUP, max_length=48)


def test_conversations_are_rendered_and_may_end_inside_a_message(with_begin):
  pytest.importorskip("jinja2", reason="pip install mtjax[hf]")
  messages = [dict(role="user", content="ab"), dict(role="assistant", content=" cd ")]
  assert render_conversation(with_begin, messages[:1]) == "<s>[user]ab</s>[assistant]"
  assert render_open_conversation(with_begin, messages) == "<s>[user]ab</s>[assistant]cd"
  assert with_begin.chat_template() == CHAT
  with pytest.raises(ValueError, match="no message with text to continue"):
    render_open_conversation(with_begin, [])
  with pytest.raises(ValueError, match="has no chat template"):
    render_conversation(BYTES, messages)


def test_white_space_stays_where_the_template_keeps_it(tmp_path, with_begin):
  pytest.importorskip("jinja2", reason="pip install mtjax[hf]")
  for name, content in with_begin.files().items():
    (tmp_path / name).write_bytes(content.replace(b" | trim", b""))
  kept = BpeTokenizer(tmp_path / "tokenizer.json")
  message = dict(role="assistant", content=" cd ")
  assert render_open_conversation(kept, [message]) == "<s>[assistant] cd "
  for name in tmp_path.iterdir():
    name.write_bytes(name.read_bytes().replace(b"{{ m.content }}", b"hidden"))
  hidden = BpeTokenizer(tmp_path / "tokenizer.json")
  with pytest.raises(ValueError, match="does not show the last message"):
    render_open_conversation(hidden, [message])


def test_without_lm_eval_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "lm_eval", None)
  monkeypatch.delitem(sys.modules, "mtjax.evaluate.harness.lm_eval", raising=False)
  with pytest.raises(ImportError, match=r"is not installed .*`pip install mtjax\[lm_eval\]`"):
    importlib.import_module("mtjax.evaluate.harness.lm_eval")
  with pytest.raises(SystemExit, match=r"mtjax: lm-evaluation-harness is not installed"):
    entry()

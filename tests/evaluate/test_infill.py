"""Infilling of text: blanks, the benchmark's sets and figures, pictures."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mtjax.anysubset import Fused, SelfDraft, Sequential, log_likelihood, make_canvas
from mtjax.anysubset.blanks import blank_spans, blanks_in, count_blanks
from mtjax.anysubset.infill import infill, stream_infill
from mtjax.bench.infill import UncachedAssd, later, measure
from mtjax.bench.pad_mlp import pad_mlp
from mtjax.data.tokenizers import ByteTokenizer
from mtjax.evaluate.sets.infill import code_spans, scattered
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.report.filling import colored, passes_picture
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel

BYTES = ByteTokenizer()
SAMPLED = Sampling(temperature=1.0)


@pytest.fixture(scope="module")
def tiny():
  named = dict(predicts="any_subset", extra_embeddings=2, extra_names=("query", "sink"))
  config = TransformerConfig(258, 16, 2, 1, 8, 32, uniform_layers(1), **named)
  model = Model(config)
  return TextModel(model, model.init(jax.random.key(0)), BYTES)


def test_every_blank_is_filled_and_nothing_else_changes(tiny):
  result = infill(tiny, "one ___ and ___.", lengths=[3, 2], sampling=SAMPLED, key=1)
  is_target = np.array(result.is_target)
  assert is_target.sum() == 5 and result.lengths == (3, 2)
  assert BYTES.decode(np.array(result.tokens)[~is_target]) == "one and."
  assert ((np.array(result.decided_at) > 0) == is_target).all()
  *rounds, last = stream_infill(tiny, "one ___ and ___.", lengths=[3, 2], sampling=SAMPLED, key=1)
  assert last.tokens == result.tokens and len(rounds) >= 1
  assert rounds[0].text.count("_") == 5 - sum(w > 0 for w in rounds[0].decided_at)


def test_a_length_is_chosen_by_the_likelihood_of_blank_and_following_text(tiny):
  greedy = infill(tiny, "a___b", lengths=[(2, 3)], method=Sequential())
  tried = [infill(tiny, "a___b", lengths=n, method=Sequential()) for n in (2, 3)]
  assert greedy.tokens in [one.tokens for one in tried] and greedy.lengths in ((2,), (3,))
  nats = []
  for one in tried:
    token, is_target = np.array([one.tokens]), np.array([one.is_target])
    is_target[:, -1] = True
    canvas = make_canvas(tiny.model.config, token, is_target)
    nats.append(log_likelihood(tiny.model, tiny.params, canvas).sum() / is_target.sum())
  assert greedy.lengths == ((2,), (3,))[int(np.argmax(nats))]


@pytest.mark.parametrize(
  ("text", "lengths", "message"),
  [
    ("no blank here", 3, "no blank: write ___"),
    (["a ___", "b ___"], 3, "one text is filled at a time, got"),
    ("a ___ <mask> b", 3, "holds a mask token, '<mask>'"),
    ("a ___ b", 4000, "takes at most 2047"),
    ("a ___ b", [3, 4], "lengths are for 2 blanks, but the text has 1"),
    ("a _________ b ____ c", [3], "lengths are for 1 blanks, but the text has 2"),
    ("a ___ b", 0, "blank 1 takes a number of tokens, at least 1, .* got 0"),
    ("a ___ b", [()], "got \\(\\)"),
    ("a ___ b", 2.0, "got 2.0"),
    ("a ___ b", True, "got True"),
    ("a ___ b ___", [2, "34"], "blank 2 .* got '34'"),
    ("___ ___ ___", [range(1, 6)] * 3, "more than 64 combinations"),
  ],
)
def test_texts_and_lengths_that_cannot_be_filled_are_refused(tiny, text, lengths, message):
  with pytest.raises(ValueError, match=message):
    infill(tiny, text, lengths=lengths)


@pytest.mark.parametrize(
  ("spans", "message"),
  [
    ([], "no span"),
    ([(2, 2)], "not within"),
    ([(3, 9)], "not within"),
    ([(0, 3), (2, 5)], "overlaps another one"),
  ],
)
def test_wrong_spans_are_refused(spans, message):
  with pytest.raises(ValueError, match=message):
    blank_spans(range(8), spans)


def test_a_run_of_underscores_is_one_blank_and_lengths_may_be_of_numpy():
  (one,) = blanks_in("a____b__c________", BYTES, np.array([2, 3]))
  assert [bytes(piece).decode() for piece in one.pieces] == ["a", "b__c", ""]
  assert one.lengths == (2, 3) and count_blanks("a____b__c________") == 2
  chosen = [each.lengths for each in blanks_in("___", BYTES, [np.arange(1, 3)])]
  assert chosen == [(1,), (2,)]
  assert [each.lengths for each in blanks_in("___", BYTES, np.array(3))] == [(3,)]
  assert [each.lengths for each in blanks_in("___", BYTES, [(2, 2)])] == [(2,)]


def test_a_mask_token_of_the_vocabulary_is_no_text():
  class Masked(ByteTokenizer):
    mask_token = "<gap>"

  with pytest.raises(ValueError, match="mask token, '<gap>'"):
    blanks_in("a <gap> b ___", Masked(), 2)
  assert list(blanks_in("a <gap> b ___", BYTES, 2))


def test_blanks_take_the_space_before_them_and_no_indentation():
  (one,) = blanks_in("if x:\n  ___\nelse ___", BYTES, 2)
  assert [bytes(piece).decode() for piece in one.pieces] == ["if x:\n  ", "\nelse", ""]
  assert one.spans == [(8, 10), (15, 17)] and one.size == 17
  assert blank_spans(one.tokens(), one.spans) == one


def test_sets_hold_texts_of_one_size_and_their_missing_tokens(tmp_path):
  file = tmp_path / "problems.jsonl"
  problem = dict(prompt="p" * 30, canonical_solution="solve", suffix="s" * 4)
  long = dict(problem, canonical_solution="x" * 11)
  file.write_text("\n".join(json.dumps(one) for one in (problem, long, problem)))
  (first, missing), _ = code_spans(file, BYTES, size=20, max_tokens=10, count=2)
  assert bytes(missing).decode() == "solve" and first.size == 20
  assert bytes(first.tokens(95)).decode() == "p" * 11 + "_____" + "ssss"
  with pytest.raises(ValueError, match="2 rows of that size, but 3 are needed"):
    code_spans(file, BYTES, size=20, max_tokens=10, count=3)
  file.write_text('{"prompt": "p"}')
  with pytest.raises(ValueError, match="problems.jsonl, line 1: no JSON record with text in"):
    code_spans(file, BYTES, size=20, max_tokens=10, count=1)
  file.write_text("no JSON")
  with pytest.raises(ValueError, match="problems.jsonl, line 1: no JSON record"):
    code_spans(file, BYTES, size=20, max_tokens=10, count=1)
  text = np.arange(40)
  (row, missing), _ = scattered([text], size=20, rate=0.25, count=2)
  assert sum(row.is_target()) == 5 == len(missing)
  assert [
    x for x, is_target in zip(text[:20], row.is_target(), strict=True) if is_target
  ] == missing
  with pytest.raises(ValueError, match="between 0 and 1"):
    scattered([text], size=20, rate=1.0, count=1)


def test_the_benchmark_counts_passes_and_scores_the_true_text(tiny):
  problems = scattered([np.arange(64)], size=16, rate=0.4, count=3)
  methods = {"sequential": Sequential(), "self": SelfDraft(3), "authors'": UncachedAssd(3)}
  report = measure(tiny.model, tiny.params, problems, methods, temperature=1.0, repeats=2)
  sequential, self_draft, uncached = report.rows
  assert report.targets == sequential.forwards == 6 and sequential.speedup == 1
  assert self_draft.forwards < 6 and self_draft.tokens_per_forward == pytest.approx(
    6 / self_draft.forwards
  )
  assert uncached.forwards <= 6
  # An untrained model is near ln 258 for any text, sampled or true.
  for nats in (report.nats, self_draft.own_nats, uncached.own_nats):
    assert nats == pytest.approx(np.log(258), abs=0.3)


def test_one_repeat_has_no_error_and_no_method_is_faster_than_the_first_pass(tiny):
  problems = scattered([np.arange(64)], size=16, rate=0.4, count=1)
  methods = {"sequential": Sequential()}
  report = measure(tiny.model, tiny.params, problems, methods, temperature=1.0, repeats=1)
  assert report.rows[0].own_error is None
  json.dumps(dataclasses.asdict(report), allow_nan=False)
  first, reading = np.array([3.0, 5.0]), np.array([1.0, 1.0])
  assert later(first, np.array([2.0, 3.0]), reading) == 2
  for seconds in (1.0, 0.5):
    assert later(first, np.array([2.0, seconds]), reading) is None
    assert later(np.array([seconds, 5.0]), first, reading) is None
  with pytest.raises(ValueError, match="window must be at least 1, got 0"):
    UncachedAssd(0)


def test_the_picture_shows_every_pass(tiny, tmp_path):
  result = infill(tiny, "ab___cd ___", lengths=[4, 3], method=Fused(2), sampling=SAMPLED, key=2)
  passes_picture(result, BYTES).savefig(tmp_path / "when.png")
  assert (tmp_path / "when.png").read_bytes().startswith(b"\x89PNG")
  shown = colored(result, BYTES)
  assert shown.plain.startswith("ab") and len({span.style for span in shown.spans}) >= 3


def test_ids_that_the_tokenizer_does_not_have_are_not_shown(tiny, tmp_path):
  result = infill(tiny, "ab___cd", lengths=2, sampling=SAMPLED, key=2)
  start = result.is_target.index(True)
  tokens = [*result.tokens[:start], 99_999, ord("x"), *result.tokens[start + 2 :]]
  result = dataclasses.replace(result, tokens=tokens)
  assert colored(result, BYTES).plain == "abxcd"
  passes_picture(result, BYTES).savefig(tmp_path / "when.png")


def test_a_model_with_a_padded_mlp_has_the_same_density(tiny):
  canvas = make_canvas(tiny.model.config, np.array([[3, 1, 4, 1, 5]]), np.array([[1, 0, 1, 1, 0]]))
  model, params = pad_mlp(tiny.model, tiny.params, 80)
  assert params["layer_0"]["mlp"]["down"]["kernel"].shape == (80, 16)
  log_p = log_likelihood(model, params, canvas)
  np.testing.assert_allclose(log_p, log_likelihood(tiny.model, tiny.params, canvas), atol=1e-6)
  with pytest.raises(ValueError, match="at least the model's 32, got 16"):
    pad_mlp(tiny.model, tiny.params, 16)

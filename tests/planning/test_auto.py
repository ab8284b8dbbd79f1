"""From the name of a method to a plan: measured once, stored and used, or refused."""

import gc
from unittest import mock

import numpy as np
import pytest

import mtjax
from mtjax.bench.systems.mtjax_method import open_system
from mtjax.cli.method_names import method_config
from mtjax.decode.method import Autoregressive
from mtjax.decode.planned import Planned
from mtjax.decode.speculative import Speculative
from mtjax.evaluate.answers.methods import answering
from mtjax.planning import auto
from mtjax.planning.calibration import together
from mtjax.planning.calibration.windows import Windows
from mtjax.planning.store import VARIABLE
from mtjax.registry.auto import find_plan, make_planned
from mtjax.registry.build import make_method
from mtjax.registry.configs import decode_config
from mtjax.registry.methods import get_drafter
from mtjax.sampling.logits import Sampling
from mtjax.text import TextModel
from tests.draft.drafters import LETTERS, PARAMS, SMALL, SMALL_PARAMS, TARGET

TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")
DRAFT = TextModel(SMALL, SMALL_PARAMS, LETTERS, "small")
# As long as what is measured with, whose programs then decode it.
PROMPT = 5 * "abcabc"
SETTINGS = dict(context=64, seconds=0.0, texts={"list": ["abcabcab"], "other": ["hijhij", "a"]})


@pytest.fixture
def slow_plain(monkeypatch):
  """Plain decoding takes a second for a token, whatever the clock says, so that drafts pay here.

  Nothing is in truth that slow: no texts are decoded side by side, which is one more program.
  """
  monkeypatch.setattr(Windows, "alone", 1.0)
  monkeypatch.setattr(together, "_COMPILING", float("inf"))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv(VARIABLE, str(tmp_path / "plans"))
  return tmp_path / "plans"


def test_it_is_measured_once_and_then_loaded_and_writes_the_text_of_plain_decoding(
  folder, capsys, monkeypatch, slow_plain
):
  method = mtjax.method("auto", of=["lookup", "draft"], draft_model=DRAFT, **SETTINGS)
  # Following the text pays, too.
  monkeypatch.setattr(auto.AutoPlan, "gain_of_following", 1.0)
  plain, _ = TEXT.generate(PROMPT, max_tokens=30)
  text, run = TEXT.generate(PROMPT, max_tokens=30, method=method)
  assert text == plain
  lines = capsys.readouterr().err.splitlines()
  assert lines[0].startswith(
    "mtjax: measuring lookup:length=3, lookup:length=7, draft at batch 1: compiling, once for this"
  )
  assert lines[-1].startswith("mtjax: auto, batch 1: ") and lines[-1].endswith("(measured now)")
  kinds = sorted(path.name.split("-")[0] for path in folder.iterdir())
  assert kinds == ["acceptance"] * 3 + ["latency"] * 3 + ["plan"]
  # Another process, in effect: nothing is measured.
  again = mtjax.method("auto", of="lookup,draft", draft_model=DRAFT, **SETTINGS)
  with mock.patch.object(auto, "calibrate", side_effect=AssertionError("it was measured again")):
    planned, _ = again.bind(TEXT)
  (line,) = capsys.readouterr().err.splitlines()
  assert line.endswith("(stored profiles)")
  assert planned == method.bind(TEXT)[0]
  assert isinstance(planned, Planned)
  # More rows than the plan is for are refused before anything is compiled, and planned for by name.
  with pytest.raises(
    ValueError, match="nothing is planned for a batch of 2: this plan is for up to"
  ):
    TEXT.generate(["ab", "cd"], method=planned, method_params=again.bind(TEXT)[1], max_tokens=8)
  # A damaged profile: named, set aside, and all are measured anew.
  (damaged, *_) = sorted(folder.glob("acceptance*lookup*"))
  damaged.write_text("{")
  with mock.patch.object(auto, "calibrate", wraps=auto.calibrate) as measured:
    mtjax.method("auto", of="lookup,draft", draft_model=DRAFT, **SETTINGS).bind(TEXT)
  measured.assert_called_once()
  assert "measured anew" in capsys.readouterr().err
  assert len(list(folder.glob("*.damaged-1"))) == 1 and damaged.exists()


def test_where_nothing_is_ahead_of_plain_decoding_its_own_program_is_used(monkeypatch, capsys):
  monkeypatch.setattr(Windows, "alone", 1e-6)
  method = mtjax.method("lookup", tree="auto", length=3, **SETTINGS)
  assert method.bind(TEXT) == (Autoregressive(), None)
  line = capsys.readouterr().err.splitlines()[-1]
  assert "plain decoding, no drafter is predicted to be faster by 5%" in line
  assert "the best, lookup:length=3, would be" in line


@pytest.mark.parametrize(
  "name", ["lookup", pytest.param("draft", marks=pytest.mark.slow), "draft_tree"]
)
def test_where_following_the_text_cannot_pay_the_choice_has_a_program_of_its_own(
  name, monkeypatch, slow_plain
):
  monkeypatch.setattr(auto.AutoPlan, "gain_of_following", 0.0)
  settings = {} if name == "lookup" else dict(draft_model=DRAFT)
  config = decode_config(name).to_dict() | dict(tree="auto", plan=SETTINGS) | settings
  found = find_plan(config, TEXT)
  made, _ = found.made()
  assert isinstance(made, Speculative) and made == found.made_alone(found.plan.choice)[0]
  candidates = {one.name: one for one in found.candidates}
  for one in found.plan.ranking:
    if one.drafter is not None:
      alone = candidates[one.drafter].speculative(one.topology).drafter
      assert (alone.height, alone.breadth) == (one.topology.height, one.topology.breadth)
      assert type(alone) is type(get_drafter(name)(config, TEXT)[0])
  assert found.made_alone(found.plan.plain) == (Autoregressive(), None)
  plain, _ = TEXT.generate(PROMPT, max_tokens=30)
  for method, its in (found.made(), found.made_program()):
    assert TEXT.generate(PROMPT, max_tokens=30, method=method, method_params=its)[0] == plain


def test_an_empty_store_lives_as_long_as_the_method_that_has_it(monkeypatch, slow_plain):
  monkeypatch.setattr(auto.AutoPlan, "gain_of_following", 0.0)
  config = decode_config("suffix").to_dict() | dict(tree="auto", plan=SETTINGS)
  found = find_plan(config, TEXT)
  (candidate,) = found.candidates
  method, params = found.made_alone(found.plan.ranking[0], own_stores=True)
  assert int(params) != int(candidate.params)
  gc.collect()
  text, _ = TEXT.generate(PROMPT, max_tokens=20, method=method, method_params=params)
  assert text == TEXT.generate(PROMPT, max_tokens=20)[0]


def test_each_size_of_batch_sampling_and_context_has_a_plan_of_its_own(monkeypatch):
  made = []

  def make(config, target, batch, drafters):
    made.append((batch, config["plan"]["context"], config.get("temperature")))
    return made[-1], len(made)

  monkeypatch.setattr("mtjax.registry.by_name.make_planned", make)
  method = mtjax.method("lookup", tree="auto", context=64)
  sizes = (1, 1, 5, 6, 3, 1)
  assert [method.bind(TEXT, rows=rows)[0][0] for rows in sizes] == [1, 1, 8, 8, 4, 1]
  assert [batch for batch, *_ in made] == [1, 8, 4], "what was planned is kept"
  hot = Sampling(temperature=1.0, repetition_penalty=[1.2, 1.3])
  assert method.bind(TEXT, sampling=hot)[0] == (1, 64, 1.0)
  same = Sampling(temperature=np.float32(1), repetition_penalty=1.2, top_k=0)
  assert method.bind(TEXT, sampling=same) == method.bind(TEXT, sampling=hot)
  greedy = Sampling(temperature=0, top_p=0.9)
  assert method.bind(TEXT, sampling=greedy) == method.bind(TEXT)
  assert [method.bind(TEXT, tokens=tokens)[0][1] for tokens in (9, 65, 100, 128)] == [
    64, 128, 128, 128
  ]  # fmt: skip
  # The request itself says all of it.
  asked = mock.Mock(return_value=(Autoregressive(), None))
  monkeypatch.setattr(method, "bind", asked)
  TEXT.generate(["abc", "a"], method=method, max_tokens=4, sampling=Sampling(temperature=1.0))
  assert asked.call_args.kwargs == dict(rows=2, sampling=Sampling(temperature=1.0), tokens=7)


def test_penalties_of_a_config_are_part_of_what_is_planned_for():
  config = decode_config("lookup").to_dict() | dict(tree="auto", repetition_penalty=1.3, top_k=0)
  with mock.patch("mtjax.registry.auto.plan_candidates") as plan:
    make_planned(config, TEXT)
  assert plan.call_args.args[2].sampling == Sampling(repetition_penalty=1.3)


def test_configs_ask_for_a_plan_by_their_drafters_or_tree():
  config = method_config("auto:lookup,suffix")
  assert config.of == "lookup,suffix" and config.plan.seconds == 60.0 and "adaptive" not in config
  assert method_config("auto:trie").adaptive.cost == 0.0, "one drafter is as before"
  assert decode_config("draft_tree").tree == "" and "tree" not in decode_config("sorted")
  with mock.patch("mtjax.registry.build.make_planned") as planned:
    for name, change in (("auto", dict(of="all")), ("draft", dict(tree="auto"))):
      config = decode_config(name, **({"of": "all"} if name == "auto" else {})).to_dict() | change
      make_method(config, TEXT, batch=3)
    assert [call.args[2] for call in planned.call_args_list] == [3, 3]


def test_drafters_that_do_not_fit_are_left_out_of_all_and_refused_by_name(capsys):
  other = TextModel(SMALL, SMALL_PARAMS, type(LETTERS)("lkjihgfedcba"), "other")
  config = decode_config("auto", of="all").to_dict() | dict(draft_model=other)
  with mock.patch("mtjax.registry.auto.plan_candidates") as plan:
    make_planned(config, TEXT)
    names = [one.name for one in plan.call_args.args[1]]
    assert names == ["lookup:length=3", "lookup:length=7", "trie:size=8", "suffix:size=8"]
    assert (
      "auto goes without draft: the draft model 'other' has another voc" in capsys.readouterr().err
    )
    with pytest.raises(ValueError, match="'other' has another vocabulary"):
      make_planned(config | dict(of="lookup,draft"), TEXT)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ("auto", dict(of="lookup,jacobi")),
      "jacobi cannot be planned with: auto plans with lo",
    ),
    (("lookup", dict(tree="best")), 'tree \'best\' is not one of: "", "auto"'),
    (("sorted", dict(tree="auto")), "sorted, has no setting tree"),
    (("auto", dict(of="lookup,draft", length=3)), "auto, has no setting length; it has: verifier"),
  ],
)
def test_what_cannot_be_planned_is_refused(arguments, message):
  name, settings = arguments
  with pytest.raises(ValueError, match=message):
    mtjax.method(name, **settings)


def test_a_context_that_the_model_lacks_is_refused():
  method = mtjax.method("lookup", tree="auto", **(SETTINGS | dict(context=500)))
  with pytest.raises(ValueError, match="a context of 500 tokens is longer than the model's 128"):
    method.bind(TEXT)
  with pytest.raises(ValueError, match="there is no drafter available to plan with"):
    auto.plan_candidates(TEXT, [])


def test_texts_that_end_too_early_are_refused_before_more_of_them_are_written(monkeypatch):
  monkeypatch.setattr(Windows, "missing", True)
  written = mock.Mock(side_effect=AssertionError("texts were written"))
  monkeypatch.setattr("mtjax.planning.calibration.together.counted_texts", written)
  method = mtjax.method("lookup", tree="auto", length=3, **SETTINGS)
  with pytest.raises(ValueError, match="texts of 32 tokens end before every drafter had its turn"):
    method.bind(TEXT)


def test_a_drafter_that_is_a_text_is_refused_with_the_way_that_works():
  with pytest.raises(ValueError, match="drafter is the text 'auto': a drafter by its name is"):
    mtjax.Speculative("auto")


def test_what_decodes_several_batches_refuses_a_plan_or_plans_for_its_batch(monkeypatch):
  config = decode_config("lookup").to_dict() | dict(tree="auto")
  with pytest.raises(ValueError, match="makes a plan for a number of rows, and jobs have several"):
    open_system("folder", 1, config=config)
  made = mock.Mock(return_value=(Autoregressive(), None))
  monkeypatch.setattr("mtjax.evaluate.answers.methods.make_method", made)
  answering({"planned": config}, TEXT, temperature=0.5, batch=4)
  assert made.call_args.kwargs["batch"] == 4 and made.call_args.args[0]["temperature"] == 0.5

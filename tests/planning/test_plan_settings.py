"""What a plan is made for, of which candidates, and which settings it refuses: nothing is run."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
from jax.sharding import AbstractMesh
from ml_collections import ConfigDict

import mtjax
from mtjax.cli import decode
from mtjax.cli.tuning.here import PlannedDecoding, plan_config
from mtjax.decode.method import Autoregressive
from mtjax.draft import SuffixSettings, SuffixStore, host
from mtjax.evaluate.answers.methods import answering
from mtjax.planning import auto
from mtjax.planning.identity import platform_of
from mtjax.planning.store import VARIABLE
from mtjax.registry.auto import find_plan, make_planned, planned_rows
from mtjax.registry.build import make_method
from mtjax.registry.candidates import candidates_of, shape_sizes
from mtjax.registry.configs import decode_config
from mtjax.text import TextModel
from mtjax.tuning.online import ProfiledDrafter
from mtjax.tuning.profiles import AcceptanceCounts, AcceptanceProfile, LatencyProfile, fit_curve
from tests.draft.drafters import LETTERS, PARAMS, SMALL, SMALL_PARAMS, TARGET
from tests.forked import launch

TEXT = TextModel(TARGET, PARAMS, LETTERS, "tiny")
DRAFT = TextModel(SMALL, SMALL_PARAMS, LETTERS, "small")


@pytest.fixture
def planned(monkeypatch):
  """Takes the place of `plan_candidates`: its calls have the candidates and the request."""
  stand_in = mock.Mock()
  stand_in.return_value.made.return_value = (Autoregressive(), None)
  monkeypatch.setattr("mtjax.registry.auto.plan_candidates", stand_in)
  return stand_in


@pytest.fixture
def measured(monkeypatch, tmp_path):
  """Takes the place of `calibrate`: each call finds plain decoding slower than the one before."""
  monkeypatch.setenv(VARIABLE, str(tmp_path / "plans"))
  counts = AcceptanceCounts(np.array([[90], [60], [45]]), np.array([[60], [45], [36]]), 90)

  def calibrate(text, candidates, request, *, texts, **_):
    plain = 0.02 * stand_in.call_count
    curve = fit_curve(
      1, 64, verify=[(1, plain), (4, plain)], draft=[(1, 1e-3), (3, 3e-3)], plain=plain
    )
    return tuple(
      ProfiledDrafter(
        one.name,
        AcceptanceProfile(request.of(text, one), dict.fromkeys(texts, counts)),
        LatencyProfile(request.of_times(text, one, candidates), (curve,)),
        one.siblings,
      )
      for one in candidates
    )

  stand_in = mock.Mock(side_effect=calibrate)
  monkeypatch.setattr(auto, "calibrate", stand_in)
  return stand_in


def config_for(name, **settings):
  return decode_config(name).to_dict() | dict(tree="auto") | settings


def test_a_method_of_a_config_is_planned_for_the_longest_row(planned):
  config = config_for("lookup")
  for tokens, context in ((0, 256), (256, 256), (257, 512)):
    target = dataclasses.replace(
      TEXT, model=mock.Mock(config=dataclasses.replace(TARGET.config, max_position=4096))
    )
    make_method(config, target, batch=2, tokens=tokens)
    request = planned.call_args.args[2]
    assert (request.batch, request.context) == (2, context)


def test_a_row_that_is_longer_than_the_model_is_refused_before_anything_is_measured(planned):
  longest = TARGET.config.max_position
  with pytest.raises(ValueError, match=f"{longest + 1} tokens, .* the model's {longest} positions"):
    make_method(config_for("lookup"), TEXT, tokens=longest + 1)
  assert not planned.called


def test_launchers_refuse_settings_of_plans_before_they_load_a_model():
  wrong = ("--config.tree=auto", "--config.plan.measure=often")
  code, _, said = launch("experiments.decode", "--config=lookup", *wrong, "--config.model=none")
  assert code == 2 and "measure must be 'once' or 'again', got 'often'" in said
  wrong = ("--config.tree=auto", "--config.drafter.length=5")
  code, _, said = launch("experiments.decode", "--config=draft", *wrong, "--config.model=none")
  assert code == 2 and "so the setting length would do nothing" in said


def test_launchers_plan_for_the_longest_row_that_they_decode(monkeypatch):
  asked = mock.Mock(side_effect=InterruptedError)
  monkeypatch.setattr(decode, "make_method", asked)
  monkeypatch.setattr("mtjax.evaluate.answers.methods.make_method", asked)
  config = config_for("lookup", max_tokens=20)
  with pytest.raises(InterruptedError):
    decode._decode(ConfigDict(config), TEXT, ["ab", "abcab"], mock.Mock())
  assert asked.call_args.kwargs == dict(batch=2, tokens=5 + 20)
  with pytest.raises(InterruptedError):
    answering({"planned": config}, TEXT, temperature=0.0, batch=4, tokens=90)
  assert asked.call_args.kwargs == dict(batch=4, tokens=90)


@pytest.mark.parametrize(
  ("devices", "expected"),
  [(None, {1: 1, 3: 4, 4: 4, 5: 8}), (3, {1: 3, 3: 3, 4: 6, 7: 9, 9: 9}), (4, {1: 4, 5: 8})],
)
def test_a_batch_of_the_rows_of_a_plan_has_the_same_plan(devices, expected, planned):
  mesh = None if devices is None else AbstractMesh((devices,), ("data",))
  target = dataclasses.replace(TEXT, mesh=mesh)
  for batch, rows in expected.items():
    assert planned_rows(batch, target) == planned_rows(rows, target) == rows
    find_plan(config_for("lookup"), target, planned_rows(batch, target))
    assert planned.call_args.args[2].batch == rows


@pytest.mark.parametrize(
  ("name", "settings", "message"),
  [
    (
      "draft",
      dict(length=3, confidence=0.4),
      'draft with tree="auto" .* settings length and confidence would',
    ),
    ("draft", dict(length=4), "so the setting length would do nothing: leave it out, or leave tre"),
    ("draft_tree", dict(topology=(2, 1)), "so the setting topology would do nothing"),
    ("draft_tree", dict(scheme="delta"), "so the setting scheme would do nothing"),
  ],
)
def test_settings_that_the_plan_would_not_read_are_refused(name, settings, message, planned):
  with pytest.raises(ValueError, match=message):
    mtjax.method(name, tree="auto", **settings)
  config = config_for(name, draft_model=DRAFT)
  make_planned(config, TEXT)
  changed = {field: value for field, value in settings.items() if config["drafter"][field] != value}
  if changed:
    with pytest.raises(ValueError, match=message):
      make_planned(config | dict(drafter=config["drafter"] | changed), TEXT)


def test_settings_of_one_drafter_are_refused_where_auto_has_several(planned):
  config = decode_config("auto").to_dict() | dict(of="lookup,suffix")
  make_planned(config, TEXT)
  for place, own, named in (
    ("drafter", dict(length=3), "length"), ("adaptive", dict(cost=1.3), "cost")
  ):  # fmt: skip
    with pytest.raises(ValueError, match=f"so the setting {named} would do nothing: leave it out,"):
      make_planned(config | {place: config[place] | own}, TEXT)


def test_a_text_in_place_of_several_is_one_and_bad_texts_are_refused_at_once(planned):
  def plan(texts):
    make_planned(config_for("lookup", plan=dict(texts=texts)), TEXT)
    return planned.call_args.kwargs["texts"]

  assert plan({"code": "def f():", "list": ["a", "b"]}) == {
    "code": ("def f():",),
    "list": ("a", "b"),
  }
  before = planned.call_count
  for texts, message in (
    ({"all": ["abc"]}, "can be called 'all', which stands for all of them: give it another name"),
    ({"code": [[1, 2]]}, r"a prompt of domain 'code' is no text: \[1, 2\]"),
    ("code.jsonl", "are named as \"code=FILE\", got 'code.jsonl'"),
  ):
    with pytest.raises(ValueError, match=message):
      plan(texts)
  assert planned.call_count == before


def test_what_is_stored_is_used_once_and_measured_again_where_that_is_asked_for(measured):
  config = config_for("lookup", plan=dict(context=64, texts={"list": ["abcabcab"]}))
  config["drafter"]["length"] = 3
  again = config | dict(plan=config["plan"] | dict(measure="again"))
  for own, number, now in (
    (config, 1, True), (config, 1, False), (again, 2, True), (config, 2, False)
  ):  # fmt: skip
    found = find_plan(own, TEXT)
    assert (measured.call_count, found.measured) == (number, now)
    (drafter,) = found.replanner.drafters
    assert drafter.latency.curves[0].plain == pytest.approx(0.02 * number)
  for make in (
    lambda: mtjax.method("lookup", tree="auto", measure="often"),
    lambda: find_plan(config | dict(plan=dict(measure="often")), TEXT),
  ):
    with pytest.raises(ValueError, match="measure must be 'once' or 'again', got 'often'"):
      make()
  assert (
    plan_config(["lookup"], "", 64, 1.0, PlannedDecoding(measure="again"))["plan"]["measure"]
    == "again"
  )


def test_a_store_of_a_file_is_measured_as_it_is_and_learns_nothing_of_it(tmp_path, monkeypatch):
  monkeypatch.setattr("atexit.register", lambda *_: None)
  path = tmp_path / "suffix.npz"
  store = SuffixStore(TARGET.config.vocab_size, LETTERS.fingerprint(), SuffixSettings())
  store.warm([[1, 2, 3, 1, 2]])
  store.save(path)
  config = config_for("suffix")
  config["drafter"]["store"] = str(path)
  (one,) = candidates_of("suffix", config, TEXT, {})
  assert f"store={str(path)!r} of less than 1000 nodes" in one.label
  own = host.get_store(one.params)
  params, other = one.calibration()
  assert int(params) != int(one.params) and other is not own
  assert list(other.counts.nodes_in_order()) == list(store.counts.nodes_in_order())
  (request,) = other.begin([[1, 2]])
  other.extend(request, [5, 5])
  assert other.counts.find([5]) is not None and own.counts.find([5]) is None
  assert one.calibration()[1].counts.find([5]) is None, "each text begins with the same store"
  # Without a file every process begins with an empty store, whatever this one has learned.
  made = {}
  (empty,) = candidates_of("suffix", config_for("suffix"), TEXT, made)
  host.get_store(empty.params).warm([[1, 2, 3]])
  assert "store" not in empty.label and empty.calibration()[1].counts.size == 0
  assert candidates_of("suffix", config_for("suffix"), TEXT, made)[0].params is empty.params


def test_a_store_that_has_grown_beyond_a_power_of_ten_is_measured_again(tmp_path, monkeypatch):
  monkeypatch.setattr("atexit.register", lambda *_: None)
  config, made = config_for("trie"), {}
  config["drafter"]["store"] = str(tmp_path / "trie.npz")
  labels = []
  for size in (0, 999, 1000, 9_999, 123_456):
    candidates_of("trie", config, TEXT, made)
    monkeypatch.setattr(host.get_store(made["trie"][1]).counts, "size", size)
    labels += [one.label for one in candidates_of("trie", config, TEXT, made)]
  limits = [label.partition("less than ")[2].split()[0] for label in labels]
  assert limits == ["1000", "1000", "10000", "10000", "1000000"]


def test_all_plans_of_a_method_share_one_store(planned):
  method = mtjax.method("suffix", tree="auto")
  handles = []
  for rows in (1, 4):
    method.bind(TEXT, rows=rows)
    (candidate,) = planned.call_args.args[1]
    handles.append(int(candidate.params))
  assert planned.call_count == 2 and handles[0] == handles[1]
  method.bind(dataclasses.replace(TEXT))
  assert int(planned.call_args.args[1][0].params) != handles[0], "another target has its own"


def test_accelerators_are_planned_with_larger_rounds(monkeypatch):
  assert shape_sizes("cpu").chains == (4, 8) and shape_sizes("cpu").trees == (8, 16)
  assert shape_sizes("gpu") == shape_sizes("tpu")
  assert (shape_sizes("tpu").chains, shape_sizes("tpu").trees) == ((4, 8, 16), (16, 64))
  assert platform_of(PARAMS) == "cpu"
  depths = []
  for platform in ("cpu", "tpu"):
    monkeypatch.setattr("mtjax.registry.candidates.platform_of", lambda _, its=platform: its)
    for name, sizes in (("draft", "chains"), ("draft_tree", "trees")):
      (one,) = candidates_of(name, config_for(name, draft_model=DRAFT), TEXT, {})
      expected = getattr(shape_sizes(platform), sizes)
      assert one.arm.sizes == expected
      assert one.label == f"{name} sizes {','.join(map(str, expected))}"
      depths.append(one.arm.height)
      for size in expected:
        trees = one.trials(size)
        assert all(tree.size <= size and tree.height <= one.arm.height for tree in trees)
  assert depths == [7, 6, 15, 8]

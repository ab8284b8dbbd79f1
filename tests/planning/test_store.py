"""Profiles and plans on disk: whole, by what they belong to, and never lost."""

import dataclasses
import errno
import json
import multiprocessing
import os

import numpy as np
import pytest

from mtjax import hosts
from mtjax.planning.shared_store import SharedStore
from mtjax.planning.store import VARIABLE, PlanStore, default_folder
from mtjax.tuning import Competitor, plan
from mtjax.tuning.plan_file import load_plan, save_plan
from mtjax.tuning.profiles import AcceptanceCounts, AcceptanceProfile, LatencyProfile, fit_curve

OF = dict(device="cpu, 2 cores", mesh="1", target="target 0123", drafter="draft sizes 4,8")
OTHER = {**OF, "mesh": "data:2"}
COUNTS = AcceptanceCounts(np.array([[90], [60]]), np.array([[60], [45]]), 90)
PROFILE = AcceptanceProfile(OF, {"code": COUNTS})
CURVE = fit_curve(1, 256, verify=[(1, 0.020), (4, 0.021)], draft=[(1, 0.001), (2, 0.002)])
PLAN = plan([Competitor("draft", np.array([[0.6, 0.1], [0.6, 0.1]]), CURVE)])


@pytest.fixture
def said():
  return []


@pytest.fixture
def store(tmp_path, said):
  return PlanStore(tmp_path / "plans", say=said.append)


def test_what_is_kept_is_found_again(store, said):
  latency = LatencyProfile(OF, (CURVE,))
  assert store.acceptance(OF) is None and store.plan(OF) is None
  for what in (PROFILE, latency, PLAN):
    assert store.keep(OF, what).parent == store.folder
  found = store.acceptance(OF)
  assert found.of == OF and (found.counts().accepted == COUNTS.accepted).all()
  assert store.latency(OF).curves == latency.curves
  assert store.plan(OF) == PLAN
  assert store.plan(OF).why() == PLAN.why() and store.plan(OF).runner_up == PLAN.runner_up
  # Each name and value of `of` counts.
  for name in OF:
    assert store.acceptance({**OF, name: "another"}) is None
  assert not said
  record = json.loads(store.path("plan", OF).read_text())
  assert record["why"][0].startswith("At batch 1 the plan is draft, a tree of ")


def test_a_damaged_file_is_named_set_aside_and_measured_anew(store, said):
  path = store.keep(OF, PROFILE)
  for number, text in enumerate(["{", '{"kind": "mtjax acceptance profile", "version": 99}'], 1):
    path.write_text(text)
    assert store.acceptance(OF) is None
    aside = path.with_name(f"{path.name}.damaged-{number}")
    assert aside.read_text() == text and not path.exists()
    assert str(path) in said[-1] and f"kept as {aside.name!r}, and measured anew" in said[-1]
    assert store.keep(OF, PROFILE) == path and store.acceptance(OF) is not None
  assert len(said) == 2 and "it has version 99" in said[1]


def test_a_file_of_something_else_is_named_with_what_differs(store, said):
  path = store.keep(OF, PROFILE)
  other = {**OF, "target": "target 4567"}
  path.rename(store.path("acceptance", other))
  assert store.acceptance(other) is None
  assert "of target 'target 0123' and not 'target 4567'" in said[0]
  (aside,) = store.folder.glob("*.foreign-1")
  assert json.loads(aside.read_text())["of"] == OF
  # One that came since this program looked is not overwritten either.
  path.write_text("{")
  assert store.keep(OF, PROFILE) == path
  assert path.with_name(f"{path.name}.damaged-1").read_text() == "{"


def test_a_good_file_that_another_program_has_put_there_is_not_set_aside(store, said, monkeypatch):
  path, load = store.keep(OF, PROFILE), AcceptanceProfile.load
  good = path.read_text()
  path.write_text("{")

  def late(place, **of):
    monkeypatch.setattr(AcceptanceProfile, "load", load)
    try:
      return load(place, **of)
    finally:
      path.write_text(good)  # after it was read, and before it gets another name

  monkeypatch.setattr(AcceptanceProfile, "load", late)
  assert store.acceptance(OF).counts().rounds == PROFILE.counts().rounds
  assert not said and [one.name for one in store.folder.iterdir()] == [path.name]


@pytest.mark.parametrize("later", [False, True], ids=["before it is renamed", "after it as well"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_good_file_that_comes_while_one_is_set_aside_is_not_lost(
  later, links, store, said, monkeypatch
):
  path, rename = store.keep(OF, PROFILE), os.rename
  good = path.read_text()
  path.write_text("{")

  def late(source, target):
    path.write_text(good)  # after the last look at what is there
    rename(source, target)
    if later:
      path.write_text(good)

  monkeypatch.setattr("mtjax.planning.store.os.rename", late)
  if not links:
    monkeypatch.setattr("mtjax.planning.store.os.link", refuse_links)
  assert store.acceptance(OF).counts().rounds == PROFILE.counts().rounds
  assert not said and [one.name for one in store.folder.iterdir()] == [path.name]
  assert path.read_text() == good


def refuse_links(*names):
  raise OSError(errno.EPERM, "Operation not permitted")


def test_a_file_is_set_aside_where_there_are_no_hard_links(store, said, monkeypatch):
  monkeypatch.setattr("mtjax.planning.store.os.link", refuse_links)
  path = store.path("acceptance", OF)
  store.folder.mkdir(parents=True, exist_ok=True)
  for number in (1, 2):
    path.write_text("{" * number)
    assert store.acceptance(OF) is None and not path.exists()
    assert path.with_name(f"{path.name}.damaged-{number}").read_text() == "{" * number
  assert "measured anew" in said[1]


def test_where_nothing_can_be_written_it_is_said_and_decoding_goes_on(tmp_path, said):
  (tmp_path / "file").write_text("")
  store = PlanStore(tmp_path / "file" / "plans", say=said.append)
  assert store.acceptance(OF) is None and store.keep(OF, PROFILE) is None
  assert any("cannot be written (Not a directory)" in one and VARIABLE in one for one in said)


def test_a_read_only_folder_is_named(store, said, monkeypatch):
  def refuse(**settings):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr("mtjax.tuning.documents.tempfile.mkstemp", refuse)
  assert store.keep(OF, PROFILE) is None
  assert f"{str(store.folder)!r} cannot be written (Permission denied)" in said[0]


def _write(folder, number):
  counts = AcceptanceCounts(np.array([[100]]), np.array([[number]]), 100)
  store = PlanStore(folder, say=lambda line: None)
  for _ in range(10):
    store.keep(OF, AcceptanceProfile(OF, {"code": counts}))
    found = store.acceptance(OF)
    assert found is None or found.counts().accepted.item() in range(1, 5)


def test_several_writers_leave_one_whole_file(store, said):
  # JAX has threads, which a fork of this process would lack.
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["mtjax.planning.store"])
  writers = [context.Process(target=_write, args=(store.folder, one)) for one in range(1, 4)]
  for one in writers:
    one.start()
  for one in writers:
    one.join(120)
  assert [one.exitcode for one in writers] == [0] * 3
  assert store.acceptance(OF).counts().accepted.item() in range(1, 5)
  assert [path.name for path in store.folder.iterdir()] == [store.path("acceptance", OF).name]
  assert not said


def test_the_folder_is_the_users(monkeypatch, tmp_path):
  monkeypatch.delenv(VARIABLE, raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert default_folder() == tmp_path / "mtjax" / "plans"
  monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
  assert default_folder() == tmp_path / "mine"


def test_a_plan_that_cannot_be_is_refused(tmp_path):
  path = tmp_path / "plan.json"
  save_plan(path, PLAN, OF)
  record = json.loads(path.read_text())
  for change, message in [
    (dict(choice={**record["choice"], "kind": "forest"}), "'forest' is not a valid RoundKind"),
    (dict(choice={**record["choice"], "seconds": -1.0}), "seconds must be above 0"),
    (dict(ranking=[]), "the ranking lacks a round that the plan names"),
  ]:
    path.write_text(json.dumps({**record, **change}))
    with pytest.raises(ValueError, match=message):
      load_plan(path)


def test_a_plan_that_could_not_be_loaded_is_not_written(store, said):
  fewer = dataclasses.replace(PLAN.plain, expected_tokens=0.5)
  wrong = dataclasses.replace(PLAN, ranking=(*PLAN.ranking, fewer))
  path = store.path("plan", OF)
  with pytest.raises(ValueError, match="expected_tokens, batch and entries at least 1"):
    save_plan(path, wrong, OF)
  assert store.keep(OF, wrong) is None and "Nothing was written" in said[0]
  assert not path.exists()


def test_what_process_0_has_is_told_to_the_others_and_kept_by_it_alone(tmp_path, said, monkeypatch):
  told, latency = [], LatencyProfile(OF, (CURVE,))

  def tell(value):
    told.append(json.loads(json.dumps(value)))
    return told[-1]

  def found(store):
    kept = [store.keep(OF, what) for what in (PROFILE, latency, PLAN)]
    return kept, store.acceptance(OF), store.latency(OF), store.plan(OF), store.plan(OTHER)

  monkeypatch.setattr(hosts, "of_first", tell)
  store = SharedStore(tmp_path / "zero", say=said.append)
  kept, *zero = found(store)
  assert all(path.exists() for path in kept)
  assert zero[1:] == [latency, PLAN, None]
  # A damaged file is measured anew by all.
  kept[0].write_text("{")
  assert store.acceptance(OF) is None and len(said) == 1
  heard = iter(told)
  monkeypatch.setattr(hosts, "of_first", lambda value: next(heard))
  monkeypatch.setattr(hosts, "is_first", lambda: False)
  store = SharedStore(tmp_path / "one", say=said.append)
  kept, *one = found(store)
  assert kept == [None] * 3 and one[1:] == zero[1:]
  for own, other in zip(one[:1], zero[:1], strict=True):
    assert own.of == other.of and (own.counts().accepted == other.counts().accepted).all()
  assert store.acceptance(OF) is None
  assert not (tmp_path / "one").exists() and len(said) == 1

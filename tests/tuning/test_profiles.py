"""Acceptance and latency profiles: counts, fits, and files that are never lost."""

import dataclasses
import json
import threading

import numpy as np
import pytest

import mtjax
from mtjax.rounds.history import RoundRecord, TreeRecord, emitted_tokens_of
from mtjax.trees import Topology, chain, k_ary
from mtjax.tuning.documents import DamagedDocument
from mtjax.tuning.profiles import (
  AcceptanceCounts,
  AcceptanceProfile,
  LatencyProfile,
  count_history,
  count_paths,
  count_ranks,
  fit_curve,
  fit_monotone,
  wilson_interval,
)
from mtjax.tuning.profiles.isotonic import isotonic
from mtjax.tuning.shapes import rate
from tests.source import ROOT
from tests.tuning.walks import walk

LENGTH = 4
OF = dict(target="target", drafter="chain")
SHAPE = k_ary((3, 2))
RATES = np.array([[0.5, 0.2, 0.1], [0.4, 0.3, 0.0]])


def record(shape, path, *, bonus=7):
  nodes = tuple(range(shape.size))
  return TreeRecord(nodes, shape.parent, (None,) * shape.size, path, bonus)


def history(*rows):
  return [RoundRecord({}, rows)]


def test_a_round_counts_the_children_of_its_accepted_nodes():
  counts = count_history(history(record(SHAPE, (0, 2, 7)), record(SHAPE, (0,)), None))
  # Node 2 is the second child of the root, node 7 its second child; no child of 7 was there.
  assert counts.tried.tolist() == [[2, 2, 2], [1, 1, 0]]
  assert counts.accepted.tolist() == [[0, 1, 0], [0, 1, 0]] and counts.rounds == 2


def test_a_text_that_ended_with_a_draft_does_not_count_its_children_as_refused():
  ended = count_history(history(record(SHAPE, (0, 1), bonus=None)))
  went_on = count_history(history(record(SHAPE, (0, 1))))
  assert ended.tried.tolist() == [[1, 1, 1]] and went_on.tried.tolist()[1] == [1, 1, 0]


def test_ranks_are_those_of_the_shape_where_it_leaves_some_out():
  shape = Topology((-1, 0, 0), (0, 1, 4))
  seen = [record(shape, (0, 2)), record(chain(0), (0,)), record(chain(1), (0, 1))]
  counts = count_history(history(*seen), shape=shape)
  # The tree of one draft is not counted: which rank it had is unknown.
  assert counts.tried.tolist() == [[0, 2, 0, 0, 2]] and counts.accepted[0, 4] == 1
  assert counts.rounds == 2
  with pytest.raises(ValueError, match="no recorded tree has the structure of the shape"):
    count_history(history(record(SHAPE, (0,))), shape=shape)


def test_drafts_that_were_not_found_are_not_accepted_either():
  rounds = [record(chain(3), (0, 1)), record(chain(0), (0,)), record(chain(1), (0, 1))]
  long = history(*rounds), history(*[record(chain(0), (0,))] * 3)
  whole = count_history([*long[0], *long[1], *long[1]], shape=chain(3))
  present = count_history([*long[0], *long[1], *long[1]])
  # Per row: the trees of 3, 0 and 1 drafts, each with 2 more rounds without a draft behind it.
  assert whole.tried[0, 0] == 9 and whole.accepted[:, 0].tolist() == [2, 0, 0]
  assert present.tried[:, 0].tolist() == [2, 1]
  # Two tokens follow the first round of the third row: a draft at depth 3 could be emitted.
  assert whole.tried[1:, 0].tolist() == [2, 0]


def test_nodes_behind_the_end_of_the_text_were_not_tried():
  two = [record(chain(1), (0, 1)), record(chain(0), (0,))]
  counts = count_history([RoundRecord({}, (tree,)) for tree in two], shape=chain(4))
  # 3 tokens in two rounds: the first could have had depth 3, and the last one depth 1.
  assert counts.tried[:, 0].tolist() == [2, 1, 0, 0] and counts.rounds == 2
  last = count_history(history(record(chain(1), (0, 1), bonus=None)), shape=chain(4))
  assert last.tried[:, 0].tolist() == [1, 0, 0, 0]


def test_the_counts_of_a_real_run_add_up_to_its_tokens():
  target = mtjax.load("target")
  prompt = "def add(a, b):\n  return a + b\n\n\ndef"
  method = mtjax.Speculative(mtjax.PromptLookup(length=LENGTH))
  _, run = target.generate([prompt], method=method, max_tokens=24, history=True)
  trees = [row for one in run.history[1:] for row in one.rows if row is not None]
  counts = count_history(run.history[1:], shape=chain(LENGTH))
  added = sum(tree.bonus is not None for tree in trees)
  emitted = emitted_tokens_of(run.history[1:], row=0)
  assert counts.rounds == len(trees) and counts.accepted.sum() + added == len(emitted)
  assert counts.tried[0, 0] >= added and counts.accepted[0, 0] > 0
  # The rates predict the tokens per round of the run that they are from.
  profile = AcceptanceProfile(OF, {"text": counts})
  predicted = rate(chain(LENGTH), profile.rates()).expected_tokens
  assert predicted == pytest.approx(len(emitted) / len(trees), abs=0.25)


def test_a_history_without_trees_is_refused():
  with pytest.raises(ValueError, match="no trees of drafts"):
    count_history(history(None))


def test_paths_of_a_batch_count_as_its_records_do():
  path, count = walk(SHAPE, RATES, 50, np.random.default_rng(0))
  rows = [record(SHAPE, tuple(p[:n])) for p, n in zip(path.tolist(), count, strict=True)]
  one, other = count_paths(SHAPE, path, count), count_history(history(*rows), shape=SHAPE)
  assert np.array_equal(one.tried, other.tried) and np.array_equal(one.accepted, other.accepted)
  assert one.rounds == other.rounds == 50
  count[:10] = 0  # rows that had ended
  assert count_paths(SHAPE, path, count).rounds == 40


def test_counts_of_many_rounds_are_the_rates_within_their_interval():
  path, count = walk(SHAPE, RATES, 20_000, np.random.default_rng(0))
  profile = AcceptanceProfile(OF, {"text": count_paths(SHAPE, path, count)})
  low, high = profile.interval()
  known = profile.counts().tried > 0
  assert np.all((low <= RATES) & (RATES <= high) | ~known)
  assert np.all((high - low)[known] < 0.03) and np.all(high[~known] == 1)
  wrong = RATES + np.array([[0.04, 0, 0], [0, 0, 0]])  # the control: another rate is outside
  assert not np.all((low <= wrong) & (wrong <= high) | ~known)


def test_replayed_text_counts_only_what_follows_right_tokens():
  counts = count_ranks(np.array([[0, 1], [2, 0], [-1, 0], [1, 5]]), 3)
  assert counts.tried.tolist() == [[4, 4, 4], [3, 3, 3]] and counts.rounds == 4
  assert counts.accepted.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_counts_add_up_over_domains_of_other_sizes():
  small = AcceptanceCounts(np.array([[4]]), np.array([[3]]), 4)
  large = count_ranks(np.array([[0, 1], [2, 0]]), 3)
  profile = AcceptanceProfile(OF, {"code": small, "prose": large})
  assert profile.rates("code").tolist() == [[0.75]]
  total = profile.counts()
  assert total.rounds == 6 and total.tried.tolist() == [[6, 2, 2], [2, 2, 2]]
  with pytest.raises(ValueError, match="no domain 'verse': it has code, prose"):
    profile.rates("verse")


def test_falling_rates_are_the_mean_where_shares_rise():
  counts = AcceptanceCounts(np.array([[100, 100, 50, 0]]), np.array([[40, 5, 6, 0]]), 100)
  rates = AcceptanceProfile(OF, {"text": counts}).falling_rates()
  assert rates[0].tolist() == pytest.approx([0.4, 11 / 150, 11 / 150, 0])


@pytest.mark.parametrize(
  ("tried", "accepted", "rounds", "message"),
  [
    ([[4, 4]], [[5, 0]], 9, "5 candidates of 4 were accepted"),
    ([[4, 4]], [[3, 2]], 4, "5 candidates were accepted after 4 accepted nodes"),
    ([[9]], [[1]], 4, "tried 9 times after 4 accepted nodes"),
    ([[4], [2]], [[1], [0]], 4, "at depth 2 a rank was tried 2 times after 1 accepted nodes"),
    pytest.param([[4, 4]], [[1]], 4, r"\[depths, ranks\]", marks=pytest.mark.ill_typed),
  ],
)
def test_counts_that_no_rounds_give_are_refused(tried, accepted, rounds, message):
  with pytest.raises(ValueError, match=message):
    AcceptanceCounts(np.array(tried), np.array(accepted), rounds)


def test_the_interval_of_nothing_is_everything():
  low, high = wilson_interval(np.array([0, 0, 10]), np.array([0, 10, 10]))
  assert low == pytest.approx([0, 0, 0.7225], abs=1e-3)
  assert high == pytest.approx([1, 0.2775, 1], abs=1e-3)


def acceptance(**of):
  return AcceptanceProfile(OF | of, {"text": count_ranks(np.array([[0, 1], [2, 0]]), 3)})


def latency(**of):
  curve = fit_curve(
    1, 512, verify=[(1, 1.0), (4, 1.2), (8, 1.1)], draft=[(1, 0.1), (3, 0.3)],
    rounds=[(4, 1, 1.5)], plain=1.1,
  )  # fmt: skip
  return LatencyProfile(OF | dict(device="cpu") | of, (curve,))


@pytest.mark.parametrize("make", [acceptance, latency])
def test_a_saved_profile_is_the_same_and_readable(make, tmp_path):
  file, profile = tmp_path / "folder" / "profile.json", make()
  profile.save(file)
  again = type(profile).load(file, target="target", drafter="chain")
  assert str(dataclasses.asdict(again)) == str(dataclasses.asdict(profile))
  lines = file.read_text().splitlines()
  assert any(line.strip().startswith(("[0,", '"amount": [1, 4, 8]', "[1, 0, 1]")) for line in lines)
  profile.save(file)  # the same again is replaced
  assert [path.name for path in file.parent.iterdir()] == ["profile.json"]


def test_times_of_plain_decoding_alone_and_of_a_start_are_saved(tmp_path):
  (curve,), file = latency().curves[:1], tmp_path / "profile.json"
  more = dataclasses.replace(curve, alone=0.5, start=0.25)
  profile = dataclasses.replace(latency(), curves=(more,))
  profile.save(file)
  assert LatencyProfile.load(file) == profile
  # A file from before there were such times has none.
  record = json.loads(file.read_text())
  for name in ("alone", "start"):
    del record["curves"][0][name]
  file.write_text(json.dumps(record))
  (known,) = LatencyProfile.load(file).curves
  assert (known.alone, known.start) == (None, 0.0)


@pytest.mark.parametrize("make", [acceptance, latency])
def test_a_profile_of_another_model_is_neither_used_nor_overwritten(make, tmp_path):
  file, profile = tmp_path / "profile.json", make()
  profile.save(file)
  before = file.read_bytes()
  with pytest.raises(ValueError, match="of drafter 'chain' and not 'medusa'.*another file"):
    type(profile).load(file, drafter="medusa")
  with pytest.raises(ValueError, match="of target 'target' and not 'other'"):
    make(target="other").save(file)
  with pytest.raises(ValueError, match="profile is of something else: of drafter 'chain'"):
    profile.check_is_of(drafter="medusa")
  assert file.read_bytes() == before


def counted(tried, accepted):
  return dict(text=dict(tried=tried, accepted=accepted, rounds=1))


def edited(record, **changes):
  return json.dumps(record | changes)


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda r: "{" + json.dumps(r)[:40], "it is no JSON"),
    (lambda r: "", "it is no JSON"),
    (lambda r: "[]", "and holds 'list'"),
    (lambda r: edited(r, kind="mtjax latency profile"), "and holds 'mtjax latency profile'"),
    (lambda r: edited(r, version=1), "has version 1, and this program reads version 2"),
    (lambda r: edited(r, domains={}), "needs at least one domain"),
    (lambda r: json.dumps({k: v for k, v in r.items() if k != "domains"}), "lacks 'domains'"),
    (lambda r: edited(r, domains=counted([[1]], [[2]])), "2 candidates of 1"),
    (lambda r: edited(r, domains=counted([[0.5]], [[0]])), "a table of whole numbers"),
    (lambda r: json.dumps(r).replace('"rounds": 2', '"rounds": 1e999'), "1e999 is no finite nu"),
    (lambda r: json.dumps(r).replace('"rounds": 2', '"rounds": NaN'), "NaN is no finite number"),
  ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_never_overwritten(damage, message, tmp_path):
  file = tmp_path / "profile.json"
  acceptance().save(file)
  file.write_text(damage(json.loads(file.read_text())))
  before = file.read_bytes()
  with pytest.raises(DamagedDocument, match="profile.json.*cannot be used.*" + message):
    AcceptanceProfile.load(file)
  with pytest.raises(DamagedDocument, match="It is left as it is"):
    acceptance().save(file)
  assert file.read_bytes() == before


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
  file = tmp_path / "profile.json"
  threads = [threading.Thread(target=acceptance().save, args=(file,)) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert AcceptanceProfile.load(file).counts().rounds == 2
  assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


def test_a_profile_says_what_it_is_of():
  counts = AcceptanceCounts.none(1, 1)
  with pytest.raises(ValueError, match="lacks .'drafter'"):
    AcceptanceProfile(dict(target="t"), {"text": counts})
  with pytest.raises(ValueError, match="none called 'all'"):
    AcceptanceProfile(OF, {"all": counts})
  with pytest.raises(ValueError, match="lacks .'device'"):
    LatencyProfile(OF, ())


def test_a_monotone_fit_is_the_nearest_that_does_not_fall():
  fit = fit_monotone([(1, 1.0), (2, 3.0), (3, 2.0), (4, 4.0), (2, 3.0), (2, 90.0)])
  pooled = (3 / 9 + 2 / 4) / (1 / 9 + 1 / 4)  # weights 1 / seconds^2
  assert fit.measured == (1.0, 3.0, 2.0, 4.0) and fit.amount == (1, 2, 3, 4)
  assert fit.fitted == pytest.approx((1.0, pooled, pooled, 4.0))
  assert fit.worst == pytest.approx(1 - pooled / 3)
  assert fit([1, 1.5, 3.5]) == pytest.approx([1, (1 + pooled) / 2, (pooled + 4) / 2])
  with pytest.raises(ValueError, match="known for 1 to 4, got 5 to 5"):
    fit(5)
  for points in ([], [(1, 0.0)], [(-1, 1.0)], [(1, np.nan)]):
    with pytest.raises(ValueError, match="a point is|at least one measured"):
      fit_monotone(points)


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_regression_is_the_formula_of_minima_and_maxima(seed):
  """The i-th value is the maximum over a <= i of the minimum over b >= i of the mean of a to b."""
  rng = np.random.default_rng(seed)
  values, weights = rng.integers(0, 6, 9).astype(float), rng.uniform(0.1, 2, 9)

  def mean(a, b):
    return np.average(values[a : b + 1], weights=weights[a : b + 1])

  wanted = [max(min(mean(a, b) for b in range(i, 9)) for a in range(i + 1)) for i in range(9)]
  assert isotonic(values, weights) == pytest.approx(wanted)


def test_the_fixed_cost_stands_apart_from_the_cost_per_entry():
  points = [(n, 1.0 + 0.1 * n) for n in (1, 2, 4, 8, 16)]
  drafts = [(d, 0.2 * d) for d in (1, 2, 4)]
  whole = [(n, d, 0.5 + 1.0 + 0.1 * n + 0.2 * d) for n in (4, 8, 16) for d in (1, 4)]
  curve = fit_curve(2, 100, verify=points, draft=drafts, rounds=[*whole, (4, 1, 9.0)])
  assert curve.fixed == pytest.approx(0.5) and curve.plain == pytest.approx(1.6)
  assert curve.round_seconds(6, 3) == pytest.approx(0.5 + 1.6 + 0.6)
  assert curve.round_seconds(6, 0) == pytest.approx(0.5 + 1.6)
  assert curve.entry_seconds([1, 16]) == pytest.approx([0, 1.5])
  assert np.abs(curve.round_errors[:-1]).max() < 1e-9 < abs(curve.round_errors[-1])
  # Rounds that take no part in the fit are predicted by it.
  checked = fit_curve(
    2, 100, verify=points, draft=drafts, rounds=whole, checks=[(8, 2, 4.0)], plain=1.0
  )
  assert checked.fixed == pytest.approx(0.5) and checked.plain == 1.0
  assert checked.round_errors == pytest.approx(((0.5 + 1.8 + 0.4) / 4.0 - 1,))
  slower = curve.corrected({16: 2.0, 4: 1.0}, 3.0)
  assert slower.plain == pytest.approx(4.8)
  for entries, factor in ((1, 1.0), (4, 1.0), (8, 1.5), (16, 2.0)):
    whole = curve.round_seconds(entries, 3) * factor
    assert slower.round_seconds(entries, 3) == pytest.approx(whole)


def test_measured_times_of_a_real_model_are_fitted():
  rows = json.loads((ROOT / "results" / "verification.json").read_text())["rows"]
  some = [row for row in rows if row["weights"] == "float32" and row["threads"] == 1]
  fit = fit_monotone([(row["entries"], row["seconds"]) for row in some])
  assert np.all(np.diff(fit.fitted) >= 0) and np.any(np.diff(fit.measured) < 0)
  assert 0 < fit.worst < 0.05


def test_the_smallest_size_that_holds_a_request_is_used():
  def curve(batch, context):
    return fit_curve(batch, context, verify=[(1, 1.0)], draft=[(1, 1.0)])

  sizes = [(1, 100), (8, 100), (1, 500), (8, 500)]
  profile = LatencyProfile(OF | dict(device="cpu"), tuple(curve(*size) for size in sizes))
  assert (profile.at(1).batch, profile.at(2, 100).batch, profile.at(3, 101).context) == (1, 8, 500)
  with pytest.raises(ValueError, match="batch 9 with 0 tokens.*batch 8 with 100"):
    profile.at(9)
  with pytest.raises(ValueError, match="one curve per context and batch"):
    LatencyProfile(profile.of, (curve(1, 1), curve(1, 1)))
  with pytest.raises(ValueError, match="must begin at 1 entry, got 2"):
    fit_curve(1, 1, verify=[(2, 1.0)], draft=[(1, 1.0)])
  with pytest.raises(ValueError, match="must begin at 1 step, got 2"):
    fit_curve(1, 1, verify=[(1, 1.0)], draft=[(2, 1.0)])

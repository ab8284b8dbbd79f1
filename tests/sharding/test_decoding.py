"""Decoding on four and eight devices: the tokens of one, and nothing of a cache is sent."""

import functools

import pytest

from mtjax import verify
from tests.sharding.processes import printed_by

of_decoding = functools.cache(functools.partial(printed_by, "decoding_on_many.py"))
PLAIN = ("plain", "counters of plain decoding", "one text", "one text on another mesh")
STREAMS = [f"{what} of the {name} stream" for what in ("tokens",) for name in ("first", "second")]
CASES = {
  "4": (
    *PLAIN,
    *("lookup", "a trie on the host"),
    *("on the mesh of the parameters", "programs compiled for it"),
    *("other axes that are not refused", "warnings about a draft model but one"),
    *STREAMS,
    *("stacked layers", "tokens read from a prefix of one device"),
    *(f"verdicts of {name}" for name in verify.VERIFIERS),
  ),
  "8": (
    *PLAIN[:2],
    "one text on another mesh",
    *("a draft model", "recycling"),
    "adaptive, with constraints and a history",
  ),
}


@pytest.mark.parametrize("devices", CASES)
def test_no_case_is_left_out(devices):
  assert {*CASES[devices]} <= {*of_decoding(devices)}


@pytest.mark.parametrize("devices", CASES)
def test_the_texts_are_those_of_one_device(devices):
  """Also the counts of what must not be: drafts that are of no use, rows that only pad a batch."""
  wrong = {name: count for name, count in of_decoding(devices).items() if count != 0}
  assert not wrong, wrong


@pytest.mark.slow
@pytest.mark.parametrize("devices", CASES)
def test_drafters_that_take_long_to_compile(devices):
  wrong = {name: n for name, n in printed_by("decoding_on_many.py", devices, "others").items() if n}
  assert not wrong, wrong


@pytest.fixture(scope="module")
def of_commits():
  return printed_by("commit_on_many.py")


def test_a_commit_writes_the_same_entries_and_sends_nothing(of_commits):
  kinds = ("differ: ", "collectives: ", "moved: ")
  counts = {name: count for name, count in of_commits.items() if name.startswith(kinds)}
  counts = {name: n for name, n in counts.items() if "over others" not in name}
  assert len(counts) == 3 * 2 * 5
  assert not any(counts.values()), counts


def test_keys_of_canvases_are_written_over_others_and_nothing_is_sent(of_commits):
  counts = {name: n for name, n in of_commits.items() if name.endswith("over others")}
  assert of_commits["seen: XLA's own split of writes over others"] > 0
  counts.pop("seen: XLA's own split of writes over others")
  assert len(counts) == 2 * 5
  assert not any(counts.values()), counts


def test_no_collective_of_a_round_is_near_the_size_of_a_cache(of_commits):
  shares = [share for name, share in of_commits.items() if name.startswith("share ")]
  assert len(shares) == 3 and 0 < min(shares) and max(shares) < 0.1, of_commits


def test_a_gathered_cache_is_seen(of_commits):
  cache_of_one_row = 2 * 32 * 8  # key heads of a device, slots, width
  assert of_commits["seen: XLA's own split of rows, heads and slots"] > 0
  assert of_commits["seen: XLA's own split of slots of one row"] == cache_of_one_row
  assert of_commits["seen: a round whose writes XLA splits"] >= 1

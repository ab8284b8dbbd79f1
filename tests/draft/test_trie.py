"""The trie in the loop: what the store is told and may say, who shares it, where it is kept."""

import itertools
import random
from types import SimpleNamespace

import pytest

from mtjax.decode.generation import generate, stream
from mtjax.decode.speculative import Speculative
from mtjax.draft import Trie, TrieStore, host
from mtjax.draft.model_free.trie_store import Branches
from mtjax.registry.methods import DRAFTERS
from tests.draft.drafters import LIMITS, PARAMS, PROMPTS, TARGET, VOCAB

METHOD = Speculative(Trie(size=6, depth=4))


@pytest.fixture(scope="module")
def plain():
  return generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS).tokens


class Recorder:
  """Writes down what it is told and drafts random trees."""

  def __init__(self):
    self.prompts, self.texts, self.finished = {}, {}, []
    self._random, self._ids = random.Random(0), itertools.count(7)
    self.handle = host.register(self)

  def begin(self, prompts):
    ids = [next(self._ids) for _ in prompts]
    self.prompts |= dict(zip(ids, prompts, strict=True))
    self.texts |= {number: [] for number in ids}
    return ids

  def extend(self, request, tokens):
    assert request not in self.finished
    self.texts[request] += tokens

  def finish(self, request):
    self.finished.append(request)

  def draft(self, request, size, depth):
    assert request not in self.finished
    out = Branches()
    for _ in range(self._random.randrange(20)):
      parent = self._random.randrange(len(out.token))
      if out.drafts < size and out.depth[parent] < depth:
        out.below(parent, self._random.randrange(VOCAB))
    return out


def test_the_store_is_told_every_prompt_token_and_end(plain):
  spy = Recorder()
  eos = (plain[0][9],)
  short = [len(row) if eos[0] not in row else row.index(eos[0]) + 1 for row in plain]
  for generation in range(2):
    out = generate(
      TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, eos=eos, method=METHOD, method_params=spy.handle
    )
    assert out.tokens == [row[:count] for row, count in zip(plain, short, strict=True)]
    ids = [7 + 3 * generation + row for row in range(3)]
    assert [spy.prompts[number] for number in ids] == PROMPTS
    assert [spy.texts[number] for number in ids] == out.tokens
    ended = [n for n, why in zip(ids, out.finish, strict=True) if why == "length"]
    assert ended and set(ended) <= set(spy.finished)


def test_random_drafts_change_nothing(plain):
  spy = Recorder()
  out = generate(
    TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, method=METHOD, method_params=spy.handle
  )
  assert out.tokens == plain and sum(out.counters["drafted_at_depth"]) > 50


def test_what_one_generation_wrote_the_next_one_drafts(plain):
  store = TrieStore(VOCAB)
  forwards = []
  for _ in range(2):
    out = generate(
      TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, method=METHOD, method_params=store.handle
    )
    assert out.tokens == plain
    forwards.append(out.counters["target_forwards"])
  assert forwards[1] < 0.8 * forwards[0]


def test_streams_that_take_turns_share_a_store(plain):
  store = TrieStore(VOCAB)

  def rows():
    return stream(
      TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, every=2, method=METHOD, method_params=store.handle
    )

  pieces = list(itertools.zip_longest(rows(), rows(), fillvalue=[[], [], []]))
  for which in range(2):
    texts = [[token for piece in pieces for token in piece[which][row]] for row in range(3)]
    assert texts == plain


def test_a_store_that_is_gone_is_named(plain):
  handle = host.register(TrieStore(VOCAB))
  with pytest.raises(Exception, match="the host store of this drafter is gone"):
    generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, method=METHOD, method_params=handle)


@pytest.mark.parametrize(
  ("fields", "message"), [(dict(size=1), "size must be at least 2"), (dict(depth=0), "depth must")]
)
def test_settings_out_of_range(fields, message):
  with pytest.raises(ValueError, match=message):
    Trie(**fields)


def test_a_store_file_is_read_before_and_written_after_a_run(tmp_path, monkeypatch):
  at_exit = []
  monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
  target = SimpleNamespace(model=TARGET, tokenizer=SimpleNamespace(fingerprint=lambda: "letters"))
  config = dict(drafter=dict(size=6, depth=4, max_query=1, store=str(tmp_path / "trie.npz")))

  def run():
    drafter, handle = DRAFTERS["trie"](config, target)
    method = Speculative(drafter)
    out = generate(TARGET, PARAMS, PROMPTS, max_tokens=LIMITS, method=method, method_params=handle)
    (save, *arguments) = at_exit.pop()
    save(*arguments)
    return out.counters["target_forwards"]

  first = run()
  assert run() < 0.8 * first
  target.tokenizer.fingerprint = lambda: "digits"
  with pytest.raises(ValueError, match="has another vocabulary"):
    DRAFTERS["trie"](config, target)
  config["drafter"]["store"] = str(tmp_path / "nowhere" / "trie.npz")
  with pytest.raises(FileNotFoundError, match="there is no folder"):
    DRAFTERS["trie"](config, target)
  config["drafter"]["siz"] = 3
  with pytest.raises(ValueError, match="this drafter has no setting siz; it has: size, depth, "):
    DRAFTERS["trie"](config, target)

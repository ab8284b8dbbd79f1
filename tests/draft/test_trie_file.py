"""Files of stores: what they give back, which are refused, several stores of one file."""

import io
import threading
import zipfile

import numpy as np
import pytest

from mtjax.draft import TrieSettings, TrieStore
from tests.draft.test_trie_store import counts, drafts, store


def read(path):
  found = store()
  found.load(path)
  return found.counts


def test_a_file_gives_back_the_counts(tmp_path):
  path = tmp_path / "trie.npz"
  trie = TrieStore(16, "words")
  rng = np.random.default_rng(0)
  trie.warm(rng.integers(0, 16, (20, 30)).tolist())
  trie.save(path)
  again = TrieStore(16, "words")
  again.load(path)
  assert counts(again.counts) == counts(trie.counts) and again.counts.size == trie.counts.size
  for prompt in rng.integers(0, 16, (20, 3)).tolist():
    one, other = (t.draft(t.begin([prompt])[0], 12, 6) for t in (trie, again))
    assert drafts(one) == drafts(other)
  shallow = TrieStore(16, "words", TrieSettings(branch_length=2, max_total=40))
  shallow.load(path)
  found = counts(shallow.counts)
  assert len(found) <= 40 and max(map(len, found)) <= 3
  assert [file.name for file in tmp_path.iterdir()] == ["trie.npz"]


def test_a_save_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
  path = tmp_path / "trie.npz"
  trie = store()
  trie.warm([[1, 2, 3]])
  trie.save(path)
  before = path.read_bytes()

  def fail(*_, **__):
    raise OSError("no space left")

  monkeypatch.setattr(np, "savez_compressed", fail)
  with pytest.raises(OSError, match="no space"):
    trie.save(path)
  assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_damaged_bytes_never_raise_anything_else_than_a_valueerror_with_the_name(tmp_path):
  path, rng = tmp_path / "trie.npz", np.random.default_rng(0)
  trie = store()
  trie.warm(rng.integers(0, 16, (2, 12)).tolist())
  trie.save(path)
  whole = path.read_bytes()
  for _ in range(500):
    broken = bytearray(whole)
    for place in rng.integers(0, len(whole), rng.integers(1, 4)):
      broken[place] = rng.integers(0, 256)
    path.write_bytes(broken)
    try:
      store().load(path)
    except ValueError as error:
      assert str(path) in str(error)


@pytest.mark.parametrize(
  "changed",
  [
    dict(count=np.array([np.inf, np.inf, 1.0])),
    dict(count=np.array([np.nan, 1.0, 1.0])),
    dict(count=np.array([1e300, 1.0, 1.0])),
    dict(token=np.array([1.5, 2.0, 3.0])),
    dict(depth=np.array([[1, 2, 3]])),
    dict(depth=np.array([1, 2])),
    dict(version=np.inf),
    dict(vocab_size="many"),
  ],
)
def test_impossible_contents_are_refused_with_the_files_name(tmp_path, changed):
  path = tmp_path / "trie.npz"
  trie = store()
  trie.warm([[1, 2, 3]])
  trie.save(path)
  with np.load(path) as file:
    arrays = {name: array[:3] if array.ndim else array for name, array in file.items()}
  np.savez(path, **arrays)
  store().load(path)
  np.savez(path, **{**arrays, **changed})
  with pytest.raises(ValueError, match="trie.npz' is"):
    store().load(path)


def test_a_header_that_claims_more_than_memory_holds_is_refused(tmp_path):
  path = tmp_path / "trie.npz"
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header, dict(descr="<i4", fortran_order=False, shape=(2**58,))
  )
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("depth.npy", header.getvalue())
  with pytest.raises(ValueError, match="trie.npz' is not a file of a trie store"):
    store().load(path)


def test_two_stores_of_one_file_lose_nothing(tmp_path):
  path = tmp_path / "trie.npz"
  one, other = store(), store()
  for each in (one, other):
    each.share(path)  # there is no file yet
  (request,) = one.begin([[9]])
  one.extend(request, [1, 2])  # goes on after both have saved
  other.warm([[1, 3], [1, 3]])
  other.save(path)
  one.save(path)
  both = {(1,): 3, (1, 2): 1, (2,): 1, (1, 3): 2, (3,): 2}
  assert counts(one.counts) == both and counts(read(path)) == both
  one.extend(request, [5])
  other.warm([[6]])
  other.save(path)
  one.save(path)
  one.save(path)  # nothing is counted twice
  assert counts(read(path)) == {**both, (1, 2, 5): 1, (2, 5): 1, (5,): 1, (6,): 1}
  assert [file.name for file in tmp_path.iterdir()] == ["trie.npz"]


def test_a_store_of_two_files_keeps_what_others_wrote_in_either(tmp_path):
  paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
  one = store()
  for path in paths:
    one.save(path)
  for token, path in enumerate(paths, 1):
    other = store()
    other.load(path)
    other.warm([[token]])
    other.save(path)
  one.warm([[3]])
  for path in [*paths, *paths]:
    one.save(path)
  assert [counts(read(path)) for path in paths] == [{(1,): 1, (3,): 1}, {(2,): 1, (3,): 1}]


def test_a_file_that_cannot_be_added_to_is_left_and_the_counts_are_beside_it(tmp_path):
  path = tmp_path / "trie.npz"
  trie, foreign = store(), TrieStore(16, "letters")
  trie.share(path)
  trie.warm([[1, 2]])
  foreign.save(path)
  with pytest.raises(ValueError, match="has another vocabulary.*the store was written to") as error:
    trie.save(path)
  (beside,) = set(tmp_path.iterdir()) - {path}
  assert str(beside) in str(error.value) and counts(read(beside)) == counts(trie.counts)
  TrieStore(16, "letters").load(path)


def test_processes_that_save_at_once_lose_nothing(tmp_path):
  path = tmp_path / "trie.npz"
  stores = [store() for _ in range(8)]
  for number, each in enumerate(stores):
    each.share(path)
    each.warm([[number], [15]])
  threads = [threading.Thread(target=each.save, args=(path,)) for each in stores]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert counts(read(path)) == {**{(number,): 1 for number in range(8)}, (15,): 8}


def test_wrong_files_are_refused(tmp_path):
  path = tmp_path / "trie.npz"
  trie = TrieStore(16, "words")
  trie.warm([[1, 2, 3]] * 50)

  def saved(**changed):
    path.unlink(missing_ok=True)  # what is damaged is not to be added to
    trie.save(path)
    with np.load(path) as file:
      np.savez_compressed(path, **{**dict(file), **changed})

  def refused(message, other=trie):
    with pytest.raises(ValueError, match=message):
      other.load(path)
    assert counts(trie.counts)[(1, 2, 3)] == 50  # what it had is still there

  saved()
  refused(r"has another vocabulary \(16 tokens, words; here 16, letters", TrieStore(16, "letters"))
  refused("another vocabulary", TrieStore(17, "words"))
  whole = path.read_bytes()
  for broken in (b"", b"text", whole[:-40], whole[:60] + b"????????" + whole[68:]):
    path.write_bytes(broken)
    refused("is not a file of a trie store")
  np.savez(path, a=1)
  refused("is not a file of a trie store")
  saved(version=2)
  refused("has version 2; this program reads 1")
  saved(depth=np.array([1, 3, 2, 1, 2, 1]))
  refused("is damaged: a node of depth 3 follows one of depth 1")
  saved(token=np.array([1, 2, 3, 2, 16, 3]))
  refused("is damaged: token ids outside the vocabulary")
  saved(count=np.array([50, 50, 51, 50, 50, 50.0]))
  refused("is damaged: token 3 at depth 3")
  with pytest.raises(FileNotFoundError):
    trie.load(tmp_path / "none.npz")

"""Runs for tests of pages, some of whose tokens are HTML, and a reader of what a page holds."""

import html.parser
import json

from mtjax.report.history.run_json import history_record
from mtjax.rounds.history import PassRecord, RoundRecord, TreeRecord
from tests.draft.letters import Letters

HOSTILE = ("</script><script>alert(1)</script>", '<img src=x onerror="alert(2)">', "<!--", "\"'&")
# The last tokens: a character in two parts, a line, a change of direction, a special one.
PIECES = ("a", " b", *HOSTILE, "\n", "\u202e")
SECONDS = {"propose": 0.001, "forward": 0.002, "<u>verify": 0.0005, "commit": 0.0004}


class Tokens(Letters):
  """PIECES, then the two halves of "é", then a special token whose name is HTML."""

  halves = (len(PIECES), len(PIECES) + 1)
  end = len(PIECES) + 2
  name = "<|end</script>|>"

  def __init__(self):
    super().__init__(list(PIECES))
    self.vocab_size = self.end + 1

  def token_bytes(self):
    return [*(piece.encode() for piece in PIECES), b"\xc3", b"\xa9", b""]

  def special_tokens(self):
    return {self.name: self.end}


def tree(tokens, parents, path, bonus, **more):
  known = dict(draft_probs=(None,) * len(tokens), target_probs=(None, *[0.25] * (len(tokens) - 1)))
  return TreeRecord(tokens, parents, path=path, bonus=bonus, bonus_prob=0.5, **{**known, **more})


def decode_history():
  """Two rounds after the prefill: every kind of token is emitted, and most are refused, too."""
  first, second = Tokens.halves
  return [
    RoundRecord(dict(prefill=0.01), (tree((0,), (-1,), (0,), 2),)),
    RoundRecord(SECONDS, (tree((2, 3, 4, 5, 0), (-1, 0, 1, 0, 3), (0, 1, 2), 6),)),
    RoundRecord(
      SECONDS,
      (
        tree(
          (6, 7, first, second, 2), (-1, 0, 1, 2, 0), (0, 1, 2, 3), Tokens.end,
          draft_probs=(None, 0.75, 0.5, 1.0, 0.125),
        ),
      ),
    ),
  ]  # fmt: skip


EMITTED = (2, 3, 4, 6, 7, *Tokens.halves, Tokens.end)
KINDS = ("own", "draft", "draft", "own", "draft", "draft", "draft", "own")


def decode_record(**more):
  prompt = [0, Tokens.end, 2]
  fields = history_record(decode_history(), Tokens(), [prompt])
  settings = dict(method="tree<b>", model="tiny")
  return json.loads(json.dumps(dict(settings=settings, prompts=[prompt], **fields, **more)))


def compared_record():
  fields = decode_record()
  run = dict(history=fields["history"])
  figures = dict(exactness="lossless", tokens_per_forward=2.0, ms_per_token=3.0)
  compared = [dict(name=name, runs=[run, run], **figures) for name in ("ar", "tree")]
  shared = {name: fields[name] for name in ("pieces", "special", "parts")}
  return dict(compared=compared, prompts=fields["prompts"] * 2, **shared)


def fill_record(**more):
  passes = (
    PassRecord(1, (1,), (3,), (-0.5,), (False,)),
    PassRecord(2, (2, 3), (2, 1), (-1.25, -2.0), (True, False)),
  )
  history = [
    RoundRecord(dict(prefill=0.1), (passes[:1],)), RoundRecord(dict(round=0.1), (passes[1:],)),
  ]  # fmt: skip
  tokens = [0, 3, 2, 1, Tokens.end]
  known = dict(tokens=tokens, is_target=[False, True, True, True, False])
  return dict(history_record(history, Tokens(), [tokens]), **known, **more)


class Reader(html.parser.HTMLParser):
  """The elements of a page as a parser sees them: every tag that is opened is closed, in order."""

  VOID = ("meta", "input", "img")

  def __init__(self, page):
    super().__init__()
    self.stack, self.elements, self.texts, self.data = [], [], {}, ""
    self.feed(str(page))
    self.close()
    assert self.stack == []

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.stack.append(len(self.elements) - 1)

  def handle_endtag(self, tag):
    assert self.elements[self.stack.pop()][0] == tag

  def handle_data(self, data):
    for element in self.stack:
      self.texts[element] = self.texts.get(element, "") + data
    if self.stack and self.elements[self.stack[-1]][1].get("id") == "data":
      self.data += data

  def all(self, tag=None, **attributes):
    """Returns (attributes, text) of the elements with a tag, and with attributes of any value."""
    return [
      (attrs, self.texts.get(at, ""))
      for at, (name, attrs) in enumerate(self.elements)
      if tag in (None, name) and all(one.replace("_", "-") in attrs for one in attributes)
    ]

  @property
  def ids(self):
    return [attrs["id"] for _, attrs in self.elements if "id" in attrs]

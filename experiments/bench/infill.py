r"""Ways of filling blanks, side by side, one text at a time.

python -m experiments.bench.infill --code=HUMANEVAL_INFILLING.jsonl.gz --text="books=file:valid/*"

--ways: sequential; self: ASSD (2504.20456); bonus: with one more token after a window that was
accepted whole; fused: one pass a round; once: one pass a round, all drafts of the first one; ngram:
ASSD with bigrams of the context; confidence: the surest positions, which is another law; authors:
ASSD without a cache, all entries in every pass. A number behind one is its window. --code:
single-line or random-span problems of humaneval_infilling, each with its one blank. --text
(name=source, several times; see mtjax.data.sources) at every --rate: rows of that text with as
large a share of their tokens missing, scattered. Times are medians over --repeats of interleaved
runs without compilation, as a ratio to the first of --ways: of all of it, and of what comes after
the pass that reads the given tokens, which all ways have in common.

The table in docs/benchmarks.md (DATA is the developer data set):

python -m experiments.bench.infill --count=8 --rate=0.05 --rate=0.15 --weights=stored,plain \
  --text="books=file:DATA/books/valid/*.txt.gz#header=-------" \
  --code=DATA/humaneval_infilling/SingleLineInfilling_000_081.jsonl.gz

and the one of a wider model:

python -m experiments.bench.infill --count=8 --repeats=3 --mlp_dim=24000 --rate=0.15 \
  --text="books=file:DATA/books/valid/*.txt.gz#header=-------" --weights=stored,float32,plain \
  --ways=sequential,self4,bonus4,bonus8,fused2,once4
"""

import dataclasses
import itertools
import json
import sys

from absl import flags
from rich.console import Console
from rich.table import Table

from mtjax.cli import flags as launch

_MODEL = flags.DEFINE_string("model", "anysubset", "Bundled any-subset model, folder or id.")
_CODE = flags.DEFINE_multi_string("code", [], "Files of humaneval_infilling.")
_TEXT = flags.DEFINE_multi_string("text", [], "name=source; may be given several times.")
_RATE = flags.DEFINE_multi_float("rate", [0.15], "Share of a text's tokens that is missing.")
_SIZE = flags.DEFINE_integer("size", 191, "Tokens of a text.", lower_bound=8)
_COUNT = flags.DEFINE_integer("count", 16, "Texts of a set.", lower_bound=1)
_MOST = flags.DEFINE_integer("most", 24, "Tokens of a blank of --code at most.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Of the law; above 0.", lower_bound=1e-3)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of each text.", lower_bound=1)
_WAYS = flags.DEFINE_list(
  "ways",
  "sequential,self2,self4,self8,self16,bonus8,ngram4,fused2,fused4,once3,once4,once6,authors5",
  "Ways of filling, with their windows; speed is a ratio to the first.",
)
_KINDS = ("stored", "float32", "plain")
_WEIGHTS = flags.DEFINE_list(
  "weights",
  "stored",
  "Of stored, as in decoding; float32, 32 bits each; plain, float32 arrays that XLA multiplies "
  "without our kernels.",
)
_MLP_DIM = flags.DEFINE_integer(
  "mlp_dim", None, "Widen MLPs to this with zeros: the same law at the cost of a larger model."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the figures.")


def run() -> None:
  if not _CODE.value and not _TEXT.value:
    raise ValueError("give a set: --code=FILE.jsonl.gz or --text=name=source")
  launch.check_output(_OUTPUT, inputs=[_CODE, _TEXT])
  _check_names()
  ways = {name: _way(name) for name in launch.distinct(_WAYS)}
  kinds = launch.distinct(_WEIGHTS)
  unknown = [kind for kind in kinds if kind not in _KINDS]
  if unknown:
    raise ValueError(f"--weights={unknown[0]} is none of {', '.join(_KINDS)}")
  from mtjax.bench.infill import measure
  from mtjax.bench.pad_mlp import pad_mlp
  from mtjax.evaluate.sets.infill import code_spans, scattered
  from mtjax.evaluate.tasks.humaneval import read_problems
  from mtjax.evaluate.texts import named_documents
  from mtjax.pretrained import load_pretrained, weights_for_decoding

  for path in _CODE.value:  # before the model is loaded
    read_problems(path, ("prompt", "canonical_solution"))
  text = load_pretrained(_MODEL.value)
  model, params = text.model, text.params
  if _MLP_DIM.value is not None:
    model, params = pad_mlp(model, params, _MLP_DIM.value)
  stored = {k: params if k == "plain" else weights_for_decoding(params, k) for k in kinds}
  cut = dict(size=_SIZE.value, count=_COUNT.value)
  sets = {
    _of_code(path): code_spans(path, text.tokenizer, max_tokens=_MOST.value, **cut)
    for path in _CODE.value
  }
  for name, documents in named_documents(_TEXT.value, text.tokenizer, limit=200_000).items():
    rows = [tokens for tokens, _ in documents]
    sets |= {_of_text(name, rate): scattered(rows, rate=rate, **cut) for rate in _RATE.value}
  console, records = Console(file=sys.stdout, width=110), {}
  for kind, (name, problems) in itertools.product(kinds, sets.items()):
    title = f"{name}, weights {kind}" if len(kinds) > 1 else name
    with Console(stderr=True).status("") as status:
      report = measure(
        model,
        stored[kind],
        problems,
        ways,
        temperature=_TEMPERATURE.value,
        repeats=_REPEATS.value,
        progress=lambda doing, title=title: status.update(f"{title}: {doing}"),
      )
    table = Table(
      "way", "forwards", "tokens/forward", "ms/token", "speed", "after first pass",
      "-log p drawn", "exact match",
      title=f"{title}: {report.targets:.1f} tokens asked a text, NLL {report.nats:.3f} nats each, "
      f"first pass {report.first_milliseconds:.1f} ms",
      title_justify="left",
    )  # fmt: skip
    for row in report.rows:
      table.add_row(
        row.name,
        f"{row.forwards:.1f}",
        f"{row.tokens_per_forward:.2f}",
        f"{row.milliseconds:.2f}",
        f"{row.speedup:.2f}x",
        "" if row.speedup_later is None else f"{row.speedup_later:.2f}x",
        f"{row.own_nats:.3f}" + ("" if row.own_error is None else f" ± {row.own_error:.3f}"),
        f"{row.exact:.1%}",
      )
    console.print(table)
    records[title] = dataclasses.asdict(report)
  if _OUTPUT.value is not None:
    own = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
    settings = {flag.name: flag.value for flag in own}
    with open(_OUTPUT.value, "w", encoding="utf-8") as file:
      json.dump(dict(settings=settings, sets=records), file, indent=2)


def _of_code(path: str) -> str:
  return f"code, {path.rsplit('/', 1)[-1].split('_')[0]}"


def _of_text(name: str, rate: float) -> str:
  return f"{name}, {100 * rate:g}%"


def _check_names() -> None:
  """ValueError for two sets that would have one name, of which only the last would be left."""
  named = [(_of_code(path), f"--code={path}") for path in _CODE.value]
  for entry in _TEXT.value:
    name = entry.partition("=")[0]
    named += [(_of_text(name, r), f"--text={entry} with --rate={r}") for r in _RATE.value]
  known: dict[str, str] = {}
  for name, given in named:
    if name in known:
      raise ValueError(f"{known[name]} and {given} would both be called {name!r}")
    known[name] = given


def _way(name: str):
  from mtjax.anysubset import SelfDraft
  from mtjax.anysubset.filling.names import METHODS
  from mtjax.bench.infill import Uncached

  # The paper's own self-draft has no bonus token; the one that METHODS calls so has.
  own = dict(self=lambda window: SelfDraft(window, bonus=False), bonus=SelfDraft, authors=Uncached)
  makers = {**METHODS, **own}
  kind = name.rstrip("0123456789")
  window = name.removeprefix(kind)
  if kind not in makers or (kind == "sequential") != (not window):
    known = ", ".join(maker + ("" if maker == "sequential" else "4") for maker in makers)
    raise ValueError(f"way {name!r} is none of {known}, where a number is the window")
  try:
    return makers[kind](int(window or 1))
  except ValueError as error:
    raise ValueError(f"way {name!r}: {error}") from None


if __name__ == "__main__":
  launch.main(run)

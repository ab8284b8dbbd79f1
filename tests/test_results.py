"""Every measured figure of README and docs comes from a file of results/, by the maker."""

import ast
import gzip
import json
import re
import statistics

import pytest
from rich.console import Console

from docs.make.benchmarks import pictures
from docs.make.benchmarks.runs import RUNS
from docs.make.benchmarks.sections import (
  MADE,
  RESULTS,
  ROOT,
  by_hand,
  origin,
  pages,
  section,
  shown,
  with_sections,
)
from mtjax.native import support
from mtjax.report import results
from mtjax.report.cells import Cells
from tests.forked import launch

FILES = sorted(RESULTS.glob("*.json"))
# Pages that are made as a whole and have tests of their own.
OTHER_PAGES = {
  "docs/multi_draft_bounds.md": "multi_draft_bounds",
  "docs/kernel_table.md": None,
  "docs/pods.md": "pods",
}
BY_HAND = [
  path
  for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
  if path.relative_to(ROOT).as_posix() not in OTHER_PAGES
]
LAUNCHERS = [
  path for path in sorted((ROOT / "experiments" / "bench").rglob("*.py")) if path.stem != "__init__"
]
# A ratio, a rate, a time, a likelihood or a share, as one states what was measured.
_UNITS = (
  r"%|times (?:as|faster|slower)|tokens/s|tokens per (?:second|forward)|GB/s|GFLOP|TFLOP|"
  r"(?:ms|us|milliseconds|microseconds|nats|bits per byte)\b"
)
MEASURED = re.compile(rf"(?<![\w.])\d[\d,]*(?:\.\d+)?(?:x\b| ?(?:{_UNITS}))")
# These are no measurements: the level of an interval, and an aim.
ALLOWED = ("95 % interval", "99 % intervals", "reach 80 % of a copy")


_FOLDERS = re.compile(r"(?<![\w.*)])/(?:home|root|tmp|work|mnt|data|Users|usr|opt)/\S*")
_CODE = re.compile(r"```[\s\S]*?```|`[^`\n]*`|^    .*$", re.MULTILINE)


def measured(text: str) -> list[str]:
  """Returns the measured figures that a page states by hand, outside of code."""
  prose = re.sub(_CODE, "", by_hand(text))
  for phrase in ALLOWED:
    prose = prose.replace(phrase, "")
  return [match[0] for match in MEASURED.finditer(prose)]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_pages_are_made_of_the_committed_results(path):
  text = path.read_text(encoding="utf-8")
  expected = with_sections(text)
  assert text == expected, "run `python -m docs.make.benchmarks` and commit what it wrote"


def test_the_pictures_are_made_of_the_committed_results():
  assert pictures.TRIE.is_file()
  assert not pictures.outdated(), "run `python -m docs.make.benchmarks` and commit what it wrote"


@pytest.mark.parametrize("path", BY_HAND, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_states_no_measured_figure_by_hand(path):
  figures = measured(path.read_text(encoding="utf-8"))
  assert not figures, f"{figures}: put the figure into a file of results/ and show its section"


@pytest.mark.parametrize(
  "text",
  [
    "`trie` is 4.8 times as fast as lookup.",
    "It decodes at 1.72x the speed.",
    "| mtjax | 1,531 (10.51x) |",
    "A pass takes 25 ms.",
    "It writes 1,393 tokens/s and 2.7 tokens per forward pass.",
    "3.54 nats per target token",
    "Blocks lose up to 16 % there.",
  ],
)
def test_the_check_of_prose_sees(text):
  assert measured(text)
  name = "results/a.json"
  assert not measured(f"<!-- {name}: {MADE} -->\n{text}\n<!-- end of {name} -->")


def test_the_check_of_prose_leaves_code_and_sizes_alone():
  assert not measured("`--at=3x`, 2 x 4 chips, 6.0 million parameters, 32 tokens\n\n    run 3x\n")
  assert measured("    run 3x\n\nIt takes 3 ms.\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_results_says_how_it_was_made(path):
  record = results.read(path)
  assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"]) and record["complete"] is True
  assert record["command"].startswith("python -m ") and record["project"]["version"]
  assert set(record["hardware"]) == {"processor", "cores", "device"}
  assert record["units"] or record.get("transcribed")
  if record.get("transcribed"):
    assert re.search(r"commit [0-9a-f]{7}", record["source"]), "say where it was typed from"
  folders = _FOLDERS.findall(path.read_text(encoding="utf-8"))
  assert not folders, "folders of a machine: make a link of the name DATA and run it again"


def test_every_file_of_results_is_shown_once_and_can_be_made_again():
  places = [name for path in pages() for name in shown(path.read_text(encoding="utf-8"))]
  places += [f"results/{name}.json" for name in OTHER_PAGES.values() if name]
  assert len(places) == len(set(places))
  files = {path.relative_to(ROOT).as_posix() for path in FILES}
  assert files <= set(places), "add its section to docs/benchmarks.md"
  # Two stores that are no more, beside the one that is.
  assert files - {"results/trie_capacities.json"} <= {run.path for run in RUNS}
  assert {run.path for run in RUNS} <= set(places)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_has_a_program_and_flags_that_exist(run):
  path = ROOT / f"{run.module.replace('.', '/')}.py"
  sources = [path] if path.stem != "evaluate" else sorted((ROOT / "mtjax/cli").glob("evaluate*.py"))
  text = "".join(source.read_text(encoding="utf-8") for source in sources)
  defined = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', text))
  defined |= {"config"} if "define_config(" in text else set()
  used = {argument.split("=")[0].removeprefix("--") for argument in run.arguments}
  assert used | {run.flag.removeprefix("--")} <= defined, used - defined


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_every_benchmark_can_write_its_results(path):
  tree = ast.parse(path.read_text(encoding="utf-8"))
  calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
  assert any(call.startswith("flags.DEFINE_string('results'") for call in calls)
  assert any(re.match(r"results(_files)?\.write\(", call) for call in calls)
  module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
  assert any(run.module == module for run in RUNS)


def test_results_have_a_header_tables_and_rows(tmp_path):
  path = tmp_path / "a.json"
  table = Cells("Speed", ("system", "tokens/s"), [("one", "3"), ("two", "4")])
  rows = [dict(system="one", rates=[2.5, 3.5]), dict(system="zwei ±", rates=[])]
  results.write(
    path, "speed", tables=[table], rows=rows, units=dict(rates="tokens/s"), rounds=2,
    limits={"memory, GB/s": 12.5}, notes=["three did not run"], complete=False,
  )  # fmt: skip
  record = results.read(path)
  assert [*record][: len(results.HEADER)] == [*results.HEADER]
  assert record["rows"] == rows and record["complete"] is False
  assert record["versions"].keys() >= {"python", "jax", "jaxlib", "flax"}
  assert record["hardware"]["cores"] >= 1 and record["hardware"]["device"] == "cpu"
  (again,) = results.tables(record)
  assert again.markdown() == table.markdown() and "| two | 4 |" in section(record)
  assert "memory, GB/s: 12.5" in section(record) and "- three did not run" in section(record)
  assert "2 rounds" in origin(record) and "**Not complete" in origin(record)
  assert "Not complete" not in origin(record | dict(complete=True))
  typed = record | dict(transcribed=True, source="a page", date="2026-11-25", versions=None)
  assert "Typed from the run of 2026-11-25, before results were kept as files" in origin(typed)


def test_a_file_is_old_or_new_and_never_half(tmp_path):
  path = tmp_path / "a.json"
  results.write_json(path, dict(a=1))
  with pytest.raises(TypeError):
    results.write_json(path, dict(a=object()))
  assert json.loads(path.read_text()) == dict(a=1)
  assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_other_files_are_refused_by_name(tmp_path):
  path = tmp_path / "a.json"
  for text, message in (
    ("{", "a.json' is no JSON"),
    ("[]", "a.json' is no results file: it lacks benchmark, command"),
    ('{"benchmark": "a", "command": "b"}', "a.json' is no results file: it lacks date, complete"),
  ):
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
      results.read(path)
  with pytest.raises(ValueError, match="makes results/nothing.json, and there is no file"):
    with_sections(f"<!-- results/nothing.json: {MADE} -->\n<!-- end of results/nothing.json -->")


def _e2e(folder):
  """Returns a folder of sets that has one set of a few requests."""
  (folder / "e2e").mkdir()
  lines = [
    json.dumps(
      dict(
        mr=f"name[{n}]",
        ref=f"{n} is a place of food, near the river and far from the other hills of the town.",
      )
    )
    for n in range(24)
  ]
  for name in ("train", "valid"):
    (folder / "e2e" / f"{name}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
  return folder


@pytest.mark.parametrize(
  ("name", "flags", "columns"),
  [
    (
      "native",
      ["--shapes=64x64", "--rows=2", "--dtypes=int8", "--parameters=80000", "--rounds=1"],
      ["dtype", "K x N", "M", "native ms", "xla ms", "ratio", "GB/s", "share", "GFLOP/s"],
    ),
    (
      "replay",
      ["--text=e2e=file:DATA/e2e/train.jsonl.gz#text_key={mr} {ref}", "--count=2", "--sizes=3"],
      ["text", "drafter", "3 nodes"],
    ),
    (
      "trie",
      ["--data=DATA", "--sets=e2e", "--at=0,4", "--tests=2", "--retrievals=hier"],
      ["after requests", "0", "4", "largest fall"],
    ),
  ],
)
def test_a_launcher_writes_what_it_prints(name, flags, columns, tmp_path):
  if name == "native" and (reason := support()):
    pytest.skip(f"the native code cannot be used: {reason}")
  data, path = _e2e(tmp_path), tmp_path / "a.json"
  flags = [flag.replace("DATA", str(data)) for flag in flags]
  code, _, errors = launch(f"experiments.bench.{name}", *flags, f"--results={path}")
  assert code == 0, errors
  record = results.read(path)
  assert record["benchmark"] == name and record["complete"] and record["rows"]
  assert record["command"].startswith(f"python -m experiments.bench.{name} ")
  (table,) = results.tables(record)
  assert table.header == columns and table.rows
  assert {flag.split("=")[0][2:] for flag in flags} <= set(record["settings"])


@pytest.mark.parametrize(
  ("flags", "processor"),
  [("fpu avx2 avx512f", "Chip (AVX-512)"), ("fpu avx2", "Chip (AVX2)"), ("fpu", "Chip")],
)
def test_the_processor_is_named_with_its_widest_vectors(flags, processor, monkeypatch):
  info = f"processor\t: 0\nmodel name\t: Chip\nflags\t\t: {flags}\n\nprocessor\t: 1\n"
  monkeypatch.setattr(results.Path, "read_text", lambda *args, **settings: info)
  assert results.hardware()["processor"] == processor


def test_a_long_name_wraps_in_a_terminal_and_no_figure_is_cut():
  name, judge = "llada:transfer=threshold:" + "length=128:" * 8, "models/judge/" * 5
  rows = [(name, judge, "2538212.5", "3.45", "-"), ("ar", "target", "-", "3.45", "1,000,000")]
  table = Cells("Quality", ("texts of", "judge", "gen. perplexity", "entropy", "tokens"), rows)
  with (console := Console(width=80)).capture() as captured:
    console.print(table.for_terminal())
  lines = captured.get().splitlines()
  assert max(map(len, lines)) <= 80 and "…" not in captured.get()
  cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
  columns = ["".join(column) for column in zip(*cells, strict=True)]
  assert columns == [name + "ar", judge + "target", "2538212.5-", "3.453.45", "-1,000,000"]


@pytest.mark.parametrize("name", ["auto_plan", "auto_plan_smollm2"])
def test_plans_are_nearly_as_fast_as_the_best_setting_and_were_predicted(name):
  """At least 0.97 of the best setting by hand and 0.98 of plain decoding; 10 % of median error."""
  rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
  for batch in {row["batch"] for row in rows}:
    cells = {row["setting"]: row for row in rows if row["batch"] == batch}
    auto = cells.pop("auto")
    best = max(cells.values(), key=lambda cell: cell["tokens_per_second"])
    for other, least in ((best, 0.97), (cells["ar"], 0.98)):
      pairs = zip(auto["passes"], other["passes"], strict=True)
      share = statistics.median(mine / its for mine, its in pairs)
      assert share >= least, f"batch {batch}: {share:.3f} of {other['setting']}"
  errors = [abs(row["error"]) for row in rows if row["error"] is not None]
  assert statistics.median(errors) <= 0.1

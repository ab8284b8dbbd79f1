r"""A draft model for SmolLM2-135M-Instruct, which copied drafts beat: it is not bundled.

prompts.jsonl holds users' messages that no measurement uses, {"prompt": ...} per line:

python -m experiments.write_texts --model=smollm2 --weights=stored --prompt_format=chat \
  --sources='file:prompts.jsonl#text_key=prompt' --texts=2880 --prompt_tokens=256 \
  --max_tokens=144 --temperature=0.7 --output=answers.jsonl

python -m experiments.export --model=smollm2 --output=runs/smollm2_trimmed \
  --vocabulary='file:answers.jsonl#ids_key=ids' --tokens=4200

python -m experiments.train --config=configs/train/smollm2_draft.py --workdir=runs/smollm2_draft \
  --config.data.sources="('file:answers.jsonl#ids_key=ids',)"

python -m experiments.export --workdir=runs/smollm2_draft --output=runs/smollm2_draft_export \
  --dtype=bfloat16

6.0 M parameters (11.9 MB): 4,200 rows, the target's first two layers with a third of their neurons.
One CPU core: 49 min to write 322,000 tokens of answers (every 16th answer was held out), 30 min to
train on them and their questions (525,000 tokens, five times, 1,490 tokens/s).

It knows its texts by heart. Expected: loss 1.33 on them (the last step) and 3.53 on the answers
that were held out, of which the most probable token is right for 34.6%; 90.2% of their tokens have
a row. Chains of 3 keep 1.25 to 1.85 tokens per forward on four prompts of each set, greedy, 64
tokens each (2026-11-28); in brackets the `suffix` drafter, which needs no model:

  specbench 1.59 (2.01)    gsm8k 1.85 (1.90)    humaneval 1.45 (2.37)    toolcall 1.33 (2.00)
  editing 1.67 (2.94)    summarising 1.25 (2.75)    pycode 1.59 (1.86)

A draft that wins needs more text: ten times these answers, or the target's probabilities of each.
"""

from ml_collections import ConfigDict

from mtjax.train.defaults import defaults


def get_config() -> ConfigDict:
  config = defaults()
  config.model.update(
    vocab_size=4201,
    dim=576,
    layers=2,
    heads=9,
    kv_heads=3,
    head_dim=64,
    mlp_dim=512,
    max_position=8192,
    rope_theta=100_000.0,
  )
  config.model.norm_eps = 9.999999747378752e-06
  # Muon took half as long again per token, and its loss was higher after as many tokens.
  config.optimizer.update(name="adamw", learning_rate=2e-3)
  config.data.tokenizer = "runs/smollm2_trimmed"
  config.init = "runs/smollm2_trimmed"
  config.update(batch=8, length=256, steps=1300, warmup=30, decay=1000)
  return config


def tiny() -> ConfigDict:
  config = get_config()
  config.model.update(
    vocab_size=4096, dim=16, layers=1, heads=2, kv_heads=1, head_dim=8, mlp_dim=16
  )
  config.data.tokenizer = "bundled"
  config.init = ""
  config.update(batch=2, length=16, steps=4, warmup=1, decay=1, log_every=1)
  return config

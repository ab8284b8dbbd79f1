"""The page docs/multi_draft_bounds.md, made from results/multi_draft_bounds.json."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtjax.report.multi_draft.findings import beside_the_paper, errors, findings
from mtjax.report.multi_draft.tables import (
  Bounds,
  columns_table,
  lead_table,
  main_table,
  text_table,
)

Results = Mapping[str, Any]  # as mtjax.evaluate.multi_draft.bounds.measure makes them

_PAGE = """# Several drafts at a position: bounds, and what verifiers reach

{main}

The share of positions where one of n drafts is accepted: the mean over {positions:,} positions
of {texts} texts. In brackets is the gap to the bound of the same drafts. **Bold** is the largest
share that a verifier reaches in the row.

![Acceptance over the temperature, and over the number of drafts](multi_draft_bounds.png)

## How to read it

A draft model with distribution q proposes n tokens for the same position. A lossless verifier
accepts one of them or emits another token, so that what comes out has the target's distribution
p. How often a draft is accepted depends on how the drafts are chosen, and on the verifier. For
each way of choosing them there is a bound that no lossless verifier passes: the optimal
transport between p and the drafts. [Towards optimal multi-draft speculative
decoding](https://arxiv.org/abs/2502.18779) shows how to compute it for whole vocabularies, and
asks how far the known verifiers are below it. This page answers that for the pair of models
named at its end.

{columns}

The last three verifiers reach the bounds of their own drafts, so these bounds have no column.
With one draft, all but top n are ordinary speculative sampling, which accepts 1 - TV(p, q).

## What it shows

{findings}

{lead}

Above 0, fixed tokens are worth more than sampled ones; ± is the standard error.

{by_text}

{errors}

## Beside the paper

The paper measures pairs of LLaMA, OPT and Qwen2 models and of EAGLE drafts, so its figures
cannot be compared with these one by one. Its findings can:

{paper}

## How it is measured

Both models predict the next token at the same positions, which are spread evenly over each text,
from what stands before it in the text ({context} tokens at most). The target reads these texts;
it does not write them. p and q are the softmax of the logits over {vocabulary:,} tokens, at the
temperature of the row. Bounds are those of `mtjax.verify.optimal_acceptance`. What verifiers
accept is averaged over all drafts by the formulas of `mtjax/evaluate/multi_draft/acceptance.py`,
which tests compare with enumeration of the verifiers; only RRS without replacement of three and
more drafts is an average over {samples} sampled sequences of refused drafts per position.
Standard errors are over positions.

Target `{target}`, draft model `{draft}`; {date}, {versions}. DATA is the folder of the public
sets:

```
{command}
```

`results/multi_draft_bounds.json` has every row for each
text. This page is made from it, and a test compares them:

```
python -m experiments.multi_draft_bounds --results=results/multi_draft_bounds.json \\
  --page=docs/multi_draft_bounds.md --picture=docs/multi_draft_bounds.png
```
"""


def read(path: str | Path) -> Results:
  """Returns the results in a JSON file. Raises ValueError for another file."""
  try:
    results = json.loads(Path(path).read_text(encoding="utf-8"))
    if not results["rows"]:
      raise ValueError("it has no rows")
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{str(path)!r} holds no results of multi_draft_bounds ({error!r})") from None
  return results


def page(results: Results) -> str:
  """Returns the page as Markdown, which depends on the results alone.

  Raises ValueError for results of one draft alone: there is nothing to compare.
  """
  bounds, settings = Bounds(results["rows"]), results["settings"]
  if max(bounds.drafts) < 2:
    raise ValueError("the page compares drafts: results of two or more at a position are needed")
  return _PAGE.format(
    main=main_table(bounds).markdown(),
    columns=columns_table().markdown(),
    lead=lead_table(bounds).markdown(),
    by_text=text_table(bounds).markdown(),
    findings=_bullets(findings(bounds)),
    paper=_bullets(beside_the_paper(bounds)),
    errors=errors(bounds),
    positions=sum(results["positions"].values()),
    texts=len(results["positions"]),
    command=_lines(results["command"]),
    versions=", ".join(f"{name} {number}" for name, number in results["versions"].items()),
    **{name: results[name] for name in ("date", "vocabulary")},
    **{name: settings[name] for name in ("target", "draft", "context", "samples")},
  )


def _bullets(sentences: Sequence[str]) -> str:
  return "\n".join(f"- {sentence}" for sentence in sentences)


def _lines(command: str) -> str:
  """Returns a command with a line for each flag."""
  return " \\\n  ".join(re.split(r" (?='?--)", command))

"""The methods of denoising that are no rules or caches: guidance, lookahead, APD, and machines."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mtjax.bench.diffusion.cases import (
  ONE,
  ONE_BLOCK,
  ONE_SAMPLED,
  bidirectional_cases,
  block_cases,
)
from mtjax.bench.diffusion.methods import DenoisingCase
from mtjax.registry.denoising.methods import denoiser
from mtjax.text import TextModel

_TWO = "llada, 2 per pass"
_CLASSIFIER_FREE = dict(guidance="classifier_free:scale=0.5")
_GROWING_CONTRAST = dict(guidance="growing_contrast:decay=0.02")
# Of a bidirectional model: the case of `bidirectional_cases` that each begins with, and what it
# changes there. `falling_threshold` also runs without guidance: soft iteration uses this rule.
_GUIDED: dict[str, tuple[str, dict[str, Any]]] = {
  "classifier-free 0.5": (ONE, _CLASSIFIER_FREE),
  "classifier-free 0.5, 2 per pass": (_TWO, _CLASSIFIER_FREE),
  "growing contrast": (ONE, _GROWING_CONTRAST),
  "growing contrast, 2 per pass": (_TWO, _GROWING_CONTRAST),
  "falling threshold": (ONE, dict(transfer="falling_threshold")),
  "soft iteration": (ONE, dict(transfer="falling_threshold", guidance="soft_iteration")),
  "lookahead 1": (ONE, dict(lookahead=1)),
  "lookahead 3": (ONE, dict(lookahead=3)),
  "classifier-free 0.5, sampled": (ONE_SAMPLED, _CLASSIFIER_FREE),
  "lookahead 3, sampled": (ONE_SAMPLED, dict(lookahead=3)),
}
_APD = "apd"
_TEMPERATURES = (0.0, 0.7)  # of APD: greedy, and its own

# Greedy cases of a block-causal model: each machine with its defaults, some with others too.
_MACHINES = {
  "pipeline": "pipeline",
  "pipeline, threshold 0.7": "pipeline:threshold=0.7",
  "block buffer": "block_buffer",
  "block buffer, edits": "block_buffer:edit=0.9:stability=0.8",
  "token merge": "token_merge",
  "token merge, 4 in flight": "token_merge:in_flight=4",
  "sub-blocks": "sub_blocks:sub_block=8:threshold=0.9",
}
_EDIT = dict(transfer="threshold:threshold=0.95", revise="edit:threshold=0.9")


def guided_cases(length: int, block_length: int, causal: Sequence[str]) -> list[DenoisingCase]:
  """Returns the cases of a model in which all entries see each other.

  `causal`: the models that accept what APD drafts. APD is compared with one token per pass from
  left to right, the others with one token per pass in their own order.
  """
  by_name = {case.name: case for case in bidirectional_cases(length, block_length)}
  cases = [by_name[ONE], by_name[_TWO], by_name[ONE_SAMPLED]]
  cases += [_changed(by_name[of], name, given) for name, (of, given) in _GUIDED.items()]
  for temperature in _TEMPERATURES:
    words = f", temperature {temperature}" * (temperature > 0)
    first = f"{ONE}, left to right{words}"
    left = dict(order="left_to_right", transfer="one_by_one")
    reference = dataclasses.replace(
      _changed(by_name[ONE], first, left), temperature=temperature, reference=first
    )
    cases.append(reference)
    for name in causal:
      method = denoiser(_APD, length=length, causal=name)
      cases.append(DenoisingCase(f"{_APD}, {name}{words}", method, temperature, first))
  return cases


def machine_cases(length: int, text: TextModel) -> tuple[list[DenoisingCase], list[str]]:
  """Returns the cases of a block-causal model, and why it does not run the machines left out.

  Methods that work on one block at a time, over the exact cache, are beside the machines.
  """
  cases = [case for case in block_cases(length) if case.cache == "exact"]
  by_name = {case.name: case for case in cases}
  cases.append(_changed(by_name[ONE_BLOCK], "edit, blocks", _EDIT))
  refused = []
  for name, machine in _MACHINES.items():
    method = denoiser("d2f", length=length, machine=machine)
    try:
      method.check(text)
    except ValueError as error:
      refused.append(f"{name}: not measured on {text.name!r}, because {error}")
    else:
      cases.append(DenoisingCase(name, method, 0.0, ONE_BLOCK))
  buffer = denoiser("multi_bd", length=length)
  cases.append(DenoisingCase("block buffer, sampled", buffer, 1.0, f"{ONE_BLOCK}, sampled"))
  return cases, refused


def with_references(cases: Sequence[DenoisingCase], names: Sequence[str]) -> list[DenoisingCase]:
  """Returns the cases of these names, and those that they are compared with; without names all."""
  references = {case.reference for case in cases if case.name in names}
  return [case for case in cases if not names or case.name in {*names, *references}]


def _changed(case: DenoisingCase, name: str, given: dict[str, Any]) -> DenoisingCase:
  """Returns a case with other settings of its method, and the same reference."""
  return dataclasses.replace(case, name=name, denoiser=dataclasses.replace(case.denoiser, **given))

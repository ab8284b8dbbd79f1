"""Several processes that run one program: how they meet, agree, share rows, and end together.

One process is the usual case: then `count` is 1, and everything here does nothing.
"""

from mtjax.hosts.agreement import (
  check_equal,
  check_whole_mesh,
  differences,
  gather,
  of_first,
  together,
  whole,
)
from mtjax.hosts.compilation import compile_together, compiled
from mtjax.hosts.ending import LOST_EXIT, ends_together
from mtjax.hosts.folder import held_by_first
from mtjax.hosts.meeting import meet
from mtjax.hosts.place import HostPlace
from mtjax.hosts.rows import HostRows
from mtjax.hosts.same import check_same, check_same_files, check_same_named_files
from mtjax.hosts.spread import (
  agreed,
  check_not_spread,
  check_own_or_whole,
  is_shared,
  put,
  spans,
)
from mtjax.hosts.who import count, is_first, say

__all__ = [
  "LOST_EXIT",
  "HostRows",
  "HostPlace",
  "agreed",
  "check_equal",
  "check_not_spread",
  "check_own_or_whole",
  "check_same",
  "check_same_files",
  "check_same_named_files",
  "check_whole_mesh",
  "compile_together",
  "compiled",
  "count",
  "differences",
  "ends_together",
  "gather",
  "held_by_first",
  "is_first",
  "is_shared",
  "meet",
  "of_first",
  "put",
  "say",
  "spans",
  "together",
  "whole",
]

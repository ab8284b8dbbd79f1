"""Several processes that run one program: how they meet, agree, share rows, and end together.

One process is the usual case: then `count` is 1, and everything here does nothing.
"""

from mtjax.hosts.agreement import (
  check_equal,
  check_whole_mesh,
  differences,
  gather,
  together,
  whole,
)
from mtjax.hosts.compilation import compiled
from mtjax.hosts.ending import LOST_EXIT, ends_together
from mtjax.hosts.folder import held_by_first
from mtjax.hosts.meeting import meet
from mtjax.hosts.place import HostPlace
from mtjax.hosts.rows import HostRows
from mtjax.hosts.who import count, is_first, say

__all__ = [
  "LOST_EXIT",
  "HostRows",
  "HostPlace",
  "check_equal",
  "check_whole_mesh",
  "compiled",
  "count",
  "differences",
  "ends_together",
  "gather",
  "held_by_first",
  "is_first",
  "meet",
  "say",
  "together",
  "whole",
]

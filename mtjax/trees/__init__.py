"""Shapes of draft trees."""

from mtjax.trees.merge import merge
from mtjax.trees.published import EAGLE_25, MEDUSA_63
from mtjax.trees.topology import Topology, chain, k_ary

__all__ = ["EAGLE_25", "MEDUSA_63", "Topology", "chain", "k_ary", "merge"]

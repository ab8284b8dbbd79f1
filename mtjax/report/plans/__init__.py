"""Plans of speculation as tables and pictures."""

from mtjax.report.plans.picture import figure
from mtjax.report.plans.table import plan_table
from mtjax.report.plans.tuned import TunedPlan, label

__all__ = ["TunedPlan", "figure", "label", "plan_table"]

"""Plans of speculation as tables and pictures."""

from mtjax.report.plans.picture import figure
from mtjax.report.plans.table import plan_table
from mtjax.report.plans.tuned import TunedPlan, identity_of_plan, label

__all__ = ["TunedPlan", "figure", "identity_of_plan", "label", "plan_table"]

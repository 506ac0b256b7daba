"""Plans: what an engine computes, rewritten exactly from the published network."""

from fastglow.plan.plan import Conditioning, FlowPlan, Plan

__all__ = ["Conditioning", "FlowPlan", "Plan"]

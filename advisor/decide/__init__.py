"""From a task profile to a recommendation, with reasons.

The main path: `options` (what fits and what it costs) → `choices` (tiers with their quality) →
`curves` (latency against load) → `candidates` and `search` (fleets, hybrids) → `confirm` (the whole
simulated) → `answer` (choose and explain).
"""

from advisor.decide.answer import Exploration, explore, recommend
from advisor.decide.recommendation import Recommendation

__all__ = ["Exploration", "Recommendation", "explore", "recommend"]

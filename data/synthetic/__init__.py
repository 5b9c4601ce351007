"""A CRM whose true hazards are known: for the demo, the docs and tests of truth.

`make_history` plays two years of a company that introduces a CRM on day one: leads arrive, some
qualify, deals move through their stages until they are won or lost. Everything is drawn from the
`World`, whose every number is documented, so `Truth` can say what the right answer was: the exact
probability that a deal open at a moment is won or lost by any later day.

One rule keeps the tables honest: what is drawn for day d depends on the state at the start of
day d only. `docs/synthetic.md` tells the recipe.

>>> synthetic = make_history(200, seed=1, days=365)
>>> sorted(synthetic.tables)[:4]
['account', 'activity', 'deal', 'field_change']
"""

from data.synthetic.company import Synthetic, make_history
from data.synthetic.truth import Truth
from data.synthetic.world import Level, PipelineWorld, Product, StageWorld, World

__all__ = [
    "Level",
    "PipelineWorld",
    "Product",
    "StageWorld",
    "Synthetic",
    "Truth",
    "World",
    "make_history",
]

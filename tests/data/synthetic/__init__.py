"""Moments and questions that the tests of the synthetic CRM share."""

import numpy as np

from data.records import Table
from data.synthetic import Synthetic

END = np.datetime64("2026-02-16", "us")
AS_OF = np.datetime64("2025-09-15", "us")


def open_deals(synthetic: Synthetic, as_of: np.datetime64) -> Table:
    deals = synthetic.tables["deal"]
    return deals.take((deals["created_at"] < as_of) & ~(deals["closed_at"] < as_of))

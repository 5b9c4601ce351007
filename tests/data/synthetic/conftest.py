"""A small company with shocks, played once for all tests of the synthetic CRM."""

from __future__ import annotations

import pytest

from data.synthetic import Synthetic, make_history


@pytest.fixture(scope="session")
def crm() -> Synthetic:
    return make_history(1500, seed=7)

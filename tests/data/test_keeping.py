from __future__ import annotations

import numpy as np
import pytest

from data.store import ApiKey, Store, StoreError
from tests.data.stored_rows import T1, T2, T3


def test_keys_live_and_are_revoked_once(store: Store) -> None:
    key = ApiKey("k1", "CRM", "0f" * 32, ("score", "write"), T1, expires_at=T3)
    store.create_key(key)
    store.create_key(ApiKey("k0", "page", "ff", (), T2))
    assert [k.key_id for k in store.list_keys()] == ["k1", "k0"]
    found = store.find_key("0f" * 32)
    assert found is not None
    assert (found.name, found.scopes, found.created_at, found.expires_at) == (
        "CRM", ("score", "write"), T1, T3
    )  # fmt: skip
    assert np.isnat(found.last_used_at) and np.isnat(found.revoked_at)
    assert store.find_key("0e") is None
    assert store.touch_key("k1", T2) and not store.touch_key("none", T2)
    assert store.revoke_key("k1", T2) and not store.revoke_key("k1", T3)
    found = store.find_key("0f" * 32)
    assert found is not None and found.last_used_at == T2 and found.revoked_at == T2
    for taken in (ApiKey("k1", "x", "aa", (), T1), ApiKey("k2", "x", "ff", (), T1)):
        with pytest.raises(StoreError, match="exists already"):
            store.create_key(taken)
    with pytest.raises(StoreError, match="words without spaces"):
        store.create_key(ApiKey("k3", "x", "bb", ("read all",), T1))


def test_settings_are_set_and_replaced(store: Store) -> None:
    store.put_setting("time_zone", "UTC")
    store.put_setting("time_zone", "Europe/Berlin")
    store.put_setting("currency", "EUR")
    assert store.settings() == {"time_zone": "Europe/Berlin", "currency": "EUR"}

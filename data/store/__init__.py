"""The SQL store: SQLite file by default, PostgreSQL by URL."""

from data.store.database import Store
from data.store.issued import ForecastFilter, IssuedCell, IssuedForecast, IssuedScore
from data.store.keeping import ApiKey
from data.store.tables import StoreError
from data.store.upsert import ConflictError, Written

__all__ = [
    "ApiKey",
    "ConflictError",
    "ForecastFilter",
    "IssuedCell",
    "IssuedForecast",
    "IssuedScore",
    "Store",
    "StoreError",
    "Written",
]

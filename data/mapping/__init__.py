"""`dealcast import`'s engine: any files, SQL query or event log -> canonical tables."""

from data.mapping.imported import FileCount, Imported, Reject, Rejects
from data.mapping.sections import MappingError
from data.mapping.source import Mapping, load_mapping, read_source

__all__ = [
    "FileCount",
    "Imported",
    "Mapping",
    "MappingError",
    "Reject",
    "Rejects",
    "load_mapping",
    "read_source",
]

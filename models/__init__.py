"""What can be learned from a table: fit, calibrate and predict on plain arrays.

Only what is pure is exported here; `bundle` (disk) and `registry` (MLflow) are imported by module.
"""

from models.encoding import Columns, EncodingError, TableEncoder

__all__ = ["Columns", "EncodingError", "TableEncoder"]

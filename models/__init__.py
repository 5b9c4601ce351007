"""What can be learned from a table: fit, calibrate and predict on plain arrays.

Only what is pure is exported here; `bundle` (disk) and `registry` (MLflow) are imported by module,
and measures are called as `measures.log_loss(p, y)`.
"""

from models import measures
from models.calibration import CalibrationError, Calibrator, fit_calibrator
from models.encoding import Columns, EncodingError, TableEncoder
from models.lead import UNEXPLAINED, Evidence, LeadError, LeadModel, tier_weights

__all__ = [
    "UNEXPLAINED",
    "CalibrationError",
    "Calibrator",
    "Columns",
    "EncodingError",
    "Evidence",
    "LeadError",
    "LeadModel",
    "TableEncoder",
    "fit_calibrator",
    "measures",
    "tier_weights",
]

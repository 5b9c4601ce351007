"""`dealcast check`: what can be learnt from the data, what cannot, and what to fix."""

from data.quality.findings import Check, Finding
from data.quality.report import CHECKS, Learnable, QualityReport, examine

__all__ = ["CHECKS", "Check", "Finding", "Learnable", "QualityReport", "examine"]

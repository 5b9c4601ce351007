"""dealcast: lead scoring, win probability and revenue forecasting for any CRM."""

__version__ = "0.1.0"

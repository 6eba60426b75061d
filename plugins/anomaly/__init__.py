"""Score machine meter readings: preprocessing, models, verdicts, and what keeps them right."""

__version__ = "0.1.0"

"""triage: what happens after a serverless task fails."""

__version__ = "0.1.0"

"""Tests: what every method promises (contract), each part (unit), whole commands (integration)."""

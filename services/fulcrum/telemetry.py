"""Logs, figures and traces, the same in every service."""

"""Formats of a run: Markdown, JUnit XML, JSON and its schema, and the figures and sentences that they share."""

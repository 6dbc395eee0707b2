"""The shapes of a run: Markdown, JUnit XML, JSON and its schema, and what all shapes say alike."""

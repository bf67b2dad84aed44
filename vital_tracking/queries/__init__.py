"""The read side: one typed function a question."""

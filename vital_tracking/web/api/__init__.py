"""The API: the same answers as the pages give, for programs."""

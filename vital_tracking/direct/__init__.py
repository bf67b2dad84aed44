"""Calls that LangChain did not make."""

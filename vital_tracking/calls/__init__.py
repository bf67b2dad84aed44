"""A call's facts on their way from the callback to the row; pure of LangChain."""

"""The room that knows LangChain: its callbacks, models and configs. Nothing outside it imports LangChain."""

"""The room that knows LangChain: its callbacks, results and configs. Nothing outside it imports LangChain."""

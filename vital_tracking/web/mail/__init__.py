"""Reports as mail: a page as Markdown and HTML, the summary of a week or month, and sending what is due."""

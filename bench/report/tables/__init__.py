"""Tables from records, in the terminal, Markdown, CSV and LaTeX."""

"""The report: results of the tracks as one page, as Markdown and as pictures."""

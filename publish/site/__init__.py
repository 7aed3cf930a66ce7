"""The documentation site: the Markdown pages of the tree and an API reference, by mkdocs."""

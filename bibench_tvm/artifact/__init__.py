"""The folder with a compiled network: its manifest, read and written, and running it. For boards too."""

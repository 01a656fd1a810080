"""The figures, one file a kind; `style` has what they share."""

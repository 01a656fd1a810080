"""Damaged and hostile files: what becomes of them is a network or one sentence, soon and in little memory."""

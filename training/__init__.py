"""Trains the small checkpoints that ship beside the code; not part of the wheel."""

"""Segments: masks of whatever is in a photo, before anyone says what it is; from SAM's prompts, or from files."""

"""Measures what was gained and what was lost. Imported as `edgeseg.benches`; never imports torch."""

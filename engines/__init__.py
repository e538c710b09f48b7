"""Turns graphs into engines of this device, and gates them. Imported as `edgeseg.engines`; never imports torch."""

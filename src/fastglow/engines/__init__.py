"""Engines: run a plan on a device."""

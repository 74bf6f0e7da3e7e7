"""Whole models, each with its configuration, and their registry."""

"""Recipes: strict YAML in, frozen dataclasses out, and back."""

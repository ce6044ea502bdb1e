"""Where songs come from. Each file is a kind: its `Settings` holds what a recipe may say, its `load()`
gives Songs."""

"""Tasks: what can be trained. One file per task, named by the recipe's `task`.

Every file has a frozen dataclass `Settings`, the recipe's tree for this task; what it builds is all
that the trainer knows of a model: batches, losses, weights, state (distill.training.trainer.Task).
"""

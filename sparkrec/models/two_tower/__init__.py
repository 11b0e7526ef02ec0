"""The two-tower model: towers, histories, losses, and its form on disk."""

NAME = "two_tower"

"""Data-parallel training of the two-tower model under Horovod on Spark."""

"""sparkrec: raw shop logs in; recommendations, an honest report and a run record out.

Importing this package imports no Spark, TensorFlow, Horovod or MLflow.
"""

__version__ = "0.1.0"

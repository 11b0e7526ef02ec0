"""A simulated shop: raw logs of the kind a shop has, of any size, and the truth about them apart."""

from sparkrec.ingest.simulator.options import Dirt, SimulatorOptions

__all__ = ["Dirt", "SimulatorOptions"]

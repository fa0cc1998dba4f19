"""transmodal: from a head MR to the CT that was never taken, and from a CT to the MR."""

__version__ = "0.1.0"

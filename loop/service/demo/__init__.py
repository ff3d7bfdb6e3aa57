"""``make demo``: the whole loop once, on real recordings and then on a simulated fleet."""

from loop.service.demo.story import run_demo

__all__ = ["run_demo"]

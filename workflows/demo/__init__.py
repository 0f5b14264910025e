"""The main job on a small sky or on real images, start to end."""

from workflows.demo.models import DemoSky
from workflows.demo.run import demo
from workflows.demo.steps import DemoResult

__all__ = ["DemoResult", "DemoSky", "demo"]

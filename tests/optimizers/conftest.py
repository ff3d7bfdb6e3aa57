"""Property tests here are judged by what they find, not by how long one example takes."""

from hypothesis import settings

settings.register_profile("optimizers", deadline=None)
settings.load_profile("optimizers")

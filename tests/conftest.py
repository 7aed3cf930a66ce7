"""Settings of every test: no limit on the time of an example, since machines are slow at times."""

from hypothesis import settings

settings.register_profile("slow machine", deadline=None)
settings.load_profile("slow machine")

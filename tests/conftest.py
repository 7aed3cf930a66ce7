"""What holds for every test: no limit on how long an example takes, since machines are slow at times."""

from hypothesis import settings

settings.register_profile("slow machine", deadline=None)
settings.load_profile("slow machine")

"""What must be so after such a machine was booted again, going by what `tests/installed` left."""

"""Which contacts belong together? Segments: by a condition, or by hand."""

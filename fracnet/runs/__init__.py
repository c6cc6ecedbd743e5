"""Everything that works from a finished run folder."""

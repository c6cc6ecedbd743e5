"""What device options gain on this machine."""

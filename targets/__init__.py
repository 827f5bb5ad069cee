"""Target strings, device profiles, host detection."""

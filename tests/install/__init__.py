"""The package as a person installs it: what the wheel holds, and beside whom it lives."""

"""StoMPP: which entries are frozen at which step, and the freezer that sets the masks."""

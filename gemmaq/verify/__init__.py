"""Whether an artifact is what it should be: its files, its headers, its source, and what a runtime makes of it."""

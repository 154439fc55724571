"""Charts: line plots as image files, and SVG for pages."""

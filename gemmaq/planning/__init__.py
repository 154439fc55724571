"""What is to be written: rules, types, methods and grids, settled before the first byte."""

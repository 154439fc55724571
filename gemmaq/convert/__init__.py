"""The conversion: plan, calibrate, lay out, write, finish."""

"""Reading and writing scans, and what is done to them before any method: grids, masks, intensities."""

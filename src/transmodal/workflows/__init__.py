"""The steps of the flow, one file each, and the command line over them."""

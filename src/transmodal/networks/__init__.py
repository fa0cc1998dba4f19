"""Networks: plain torch modules that know nothing of files, devices or training."""

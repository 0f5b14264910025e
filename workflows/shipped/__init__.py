"""How the bundles that ship with the package are made, one file each: data, training, calibration, card."""

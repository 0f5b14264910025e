"""How the bundles that ship with the package are made, one file each: data, training, calibration, card.

Not part of the installed package: run from a checkout, `python -m bundles NAME --out BUNDLE --scratch DIR`.
"""

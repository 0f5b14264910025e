"""People in the loop: scores of objects in a file beside the catalog, a ranking that learns, a page of pictures.

Import the submodules: scores and learning need no torch, pictures do.
"""

"""From labelled stamps to a model bundle."""

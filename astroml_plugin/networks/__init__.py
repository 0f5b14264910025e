"""Pure torch modules: layers only."""

"""Objects in fields."""

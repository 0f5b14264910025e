"""World coordinates, boxes, duplicates on the sky."""

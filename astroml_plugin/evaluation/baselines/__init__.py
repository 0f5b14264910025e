"""Classical measurements on the same pixels, for comparison: arrays in, arrays out."""

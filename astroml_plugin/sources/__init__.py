"""What can be read unit by unit: surveys and stamps on disk."""

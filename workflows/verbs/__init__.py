"""The verbs of the command, by what they are about: each is a workflow's options and its last line."""

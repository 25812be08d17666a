"""The verbs of the command, one file each: call the API and print the result."""

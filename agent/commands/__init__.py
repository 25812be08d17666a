"""What each verb of the command does, one file a verb."""

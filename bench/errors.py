"""The error that a user can mend: shown as one message, exit code 2, nothing lost."""


class UserError(Exception):
    """Bad input; the message says what was given, what is allowed, and what to do."""
